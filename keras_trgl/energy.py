"""The squared size of a residual.

`mean` (published code): the mean of `r ** 2` over every axis. `sum` (the paper's formula): the
squared norm of each example's `r`, averaged over the batch. They differ by the number of features.
"""

from keras import config, ops

from keras_trgl.types import Tensor

REDUCTIONS = ("mean", "sum")


def direct_energy(residual: Tensor, reduction: str, mean_square: Tensor | None = None) -> Tensor:
    """Give the energy of a residual.

    Args:
        residual: tensor, `(batch, ...)`, of any floating type. Squared and added up in `floatx`.
        reduction: `"mean"` or `"sum"`.
        mean_square: scalar tensor, the mean over every axis where it is known already; then
            only the shape of `residual` is read. Defaults to `None`.

    Returns:
        Scalar tensor of `floatx`, squared feature units.
    """
    if mean_square is None:
        mean_square = ops.mean(ops.square(ops.cast(residual, config.floatx())))
    mean_square = ops.cast(mean_square, config.floatx())
    if reduction == "mean":
        return mean_square
    features = ops.divide(ops.size(residual), ops.shape(residual)[0])
    return ops.multiply(mean_square, ops.cast(features, config.floatx()))
