"""Whether the heads' confidence is what their accuracy is."""

from typing import Any

from keras_trgl.diagnostics.depth_table import DepthTable, column
from keras_trgl.diagnostics.seen import Seen, check_heads, see
from keras_trgl.registration import public
from keras_trgl.scores import BINS, brier, calibration_error, log_loss


@public
def calibration(
    model: Any,
    data: Any,
    cuts: Any = None,
    predictions: str = "logits",
    sample: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> DepthTable:
    """Give how far every depth's confidence is from its accuracy.

    `ece` is the expected calibration error, Σ share·|accuracy − mean confidence| over 15 bins of
    confidence of equal width; `brier` the mean squared distance of the probabilities to the
    one-hot label; `nll` the mean negative log-likelihood.

    Args:
        model: built `GreedyModel`, a classifier.
        data: tuple `(x, y)` of arrays, `(examples, …)` and class indices or one-hot labels.
        cuts: list of depths 1…K; `None` is every depth. Defaults to `None`.
        predictions: `"logits"` or `"probabilities"`: what the heads give. Defaults to
            `"logits"`.
        sample: int ≥ 1. Rows at most, drawn with the same share of every class. Defaults to
            `2000`.
        seed: int ≥ 0. Seed of the rows. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.

    Returns:
        `DepthTable` with `accuracy`, `confidence` (its mean), `ece`, all 0 to 1, `brier`, 0 to 2,
        and `nll`, in nats. NaN at depths without a head.

    Raises:
        TypeError: a model without heads.
        ValueError: the model is not built, has no such depth, or gives numbers that are not
            finite, or not those of `predictions`; labels that do not fit.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> head = keras.layers.Dense(2, kernel_initializer="zeros")
        >>> model = trgl.GreedyModel([keras.layers.Dense(2)], [head], method="vangl", seed=0)
        >>> x, y = np.ones((8, 2), "float32"), np.array([0, 1] * 4)
        >>> model.build(x.shape)
        >>> trgl.diagnostics.calibration(model, (x, y)).columns["ece"]  # Half sure, half right.
        (0.0,)

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    check_heads(model)
    wants = ("prediction",)
    seen = see(model, data, wants, cuts, sample, seed, batch_size, verbose, needs_labels=True)
    return calibrated(seen, predictions)


def calibrated(seen: Seen, predictions: str = "logits") -> DepthTable:
    """Give `calibration`'s table of what was seen.

    Args:
        seen: with predictions.
        predictions: what the heads give. Defaults to `"logits"`.
    """
    labels = seen.sample.labels
    found: dict[str, list[Any]] = {
        name: [] for name in ("accuracy", "confidence", "ece", "brier", "nll")
    }
    for depth in seen.depths:
        chances = seen.chances(depth, predictions)
        row: tuple[Any, ...] = (None,) * len(found)
        if chances is not None:
            row = (
                (chances.argmax(1) == labels).mean(),
                chances.max(1).mean(),
                calibration_error(chances, labels),
                brier(chances, labels),
                log_loss(chances, labels),
            )
        for name, value in zip(found, row, strict=True):
            found[name].append(value)
    return DepthTable(
        "calibration by depth",
        seen.index,
        {name: column(values) for name, values in found.items()},
        {
            "accuracy": "accuracy and confidence, 0 to 1",
            "confidence": "accuracy and confidence, 0 to 1",
            "ece": "expected calibration error, 0 to 1",
            "brier": "Brier score, 0 to 2",
            "nll": "negative log-likelihood, nats",
        },
        seen.about(bins=f"{BINS} of equal width", predictions=predictions),
    )
