"""How far every stage moves its features."""

from typing import Any

from keras_trgl.checks import check_choice
from keras_trgl.diagnostics.depth_table import DepthTable, column
from keras_trgl.diagnostics.seen import Seen, see
from keras_trgl.energy import REDUCTIONS
from keras_trgl.registration import public
from keras_trgl.scores import mean_of_numbers


@public
def transport(
    model: Any,
    data: Any,
    cuts: Any = None,
    reduction: str | None = None,
    sample: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> DepthTable:
    """Give the kinetic energy and the relative displacement of every stage, in inference mode.

    `energy` is E_k, the sum over the stage's blocks of the squared size of r, by the direct form;
    in training batch normalization takes the batch's statistics, so the logs' energy differs.
    `displacement` is the mean over rows of |T_k(x) − x|²/|x|², where shapes agree.

    Args:
        model: built `GreedyModel`, or a functional `keras.Model` with `cuts`, which tells no
            energy.
        data: array `(examples, …)`, or a tuple `(x, y)` of arrays.
        cuts: list of depths 1…K, or of names of layers of a plain model; `None` is every depth.
            Defaults to `None`.
        reduction: `"mean"` or `"sum"`, see `kinetic_energy`. `None` is that of the model's
            method, or `"mean"`. Defaults to `None`.
        sample: int ≥ 1. Rows at most. Defaults to `2000`.
        seed: int ≥ 0. Seed of the rows. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.

    Returns:
        `DepthTable` with `energy`, in squared feature units, and `displacement`, without a unit.

    Raises:
        ValueError: the model is not built, has no such depth, or gives numbers that are not
            finite; another word for `reduction`.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> block = trgl.layers.ResidualBlock(
        ...     [keras.layers.Dense(3, kernel_initializer="identity")])
        >>> model = trgl.GreedyModel.from_blocks([block], [1], trgl.heads.LinearHead(2), seed=0)
        >>> x = np.ones((4, 3), "float32")
        >>> model.build(x.shape)
        >>> trgl.diagnostics.transport(model, x).columns  # The block gives x + x.
        {'energy': (1.0,), 'displacement': (1.0,)}

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, equation 9.
    """
    if reduction is None:
        own = [stage.energy_reduction for stage in getattr(model, "stages", ())]
        reduction = next((one for one in own if one), "mean")
    check_choice("reduction", reduction, REDUCTIONS)
    wants = ("vectors", "energy", "displacement")
    seen = see(model, data, wants, cuts, sample, seed, batch_size, verbose, reduction=reduction)
    return moved(seen, reduction)


def moved(seen: Seen, reduction: str) -> DepthTable:
    """Give `transport`'s table of what was seen.

    Args:
        seen: with energies and displacements.
        reduction: what energies were found by.
    """
    found = {
        name: column(
            None if values is None else mean_of_numbers(values)
            for values in (seen.get(name, depth) for depth in seen.depths)
        )
        for name in ("energy", "displacement")
    }
    return DepthTable(
        "transport by stage",
        seen.index,
        found,
        {
            "energy": "energy E_k, squared feature units",
            "displacement": "displacement |T_k(x) − x|²/|x|²",
        },
        seen.about(mode="inference", reduction=reduction),
    )
