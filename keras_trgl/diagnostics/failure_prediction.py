"""Whether confidence tells where a depth is wrong, and where a later one would be right."""

from typing import Any

import numpy as np

from keras_trgl.diagnostics.depth_table import DepthTable, column
from keras_trgl.diagnostics.seen import Seen, check_heads, see
from keras_trgl.registration import public
from keras_trgl.scores import auroc


@public
def failure_prediction(
    model: Any,
    data: Any,
    cuts: Any = None,
    predictions: str = "logits",
    sample: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> DepthTable:
    """Give how well every depth's confidence tells right from wrong, as areas under ROC curves.

    `right`: of confidence, the probability of the likeliest class, for "this depth is right".
    `mends`: of 1 − confidence, for "this depth is wrong and a later one is right", which early
    exit wants to know. 0.5 is chance, 1 perfect.

    Args:
        model: built `GreedyModel`, a classifier.
        data: tuple `(x, y)` of arrays, `(examples, …)` and class indices or one-hot labels.
        cuts: list of depths 1…K, among which later ones are looked for; `None` is every depth.
            Defaults to `None`.
        predictions: `"logits"` or `"probabilities"`: what the heads give. Defaults to
            `"logits"`.
        sample: int ≥ 1. Rows at most, drawn with the same share of every class. Defaults to
            `2000`.
        seed: int ≥ 0. Seed of the rows. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.

    Returns:
        `DepthTable` with `right` and `mends`, 0 to 1, and `wrong` and `mended`, the shares of
        rows, 0 to 1. NaN where all rows are alike, and at the last depth, which nothing mends.

    Raises:
        TypeError: a model without heads.
        ValueError: the model is not built, has no such depth, or gives numbers that are not
            finite, or not those of `predictions`; labels that do not fit.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> model = trgl.GreedyModel(
        ...     [keras.layers.Identity()], [keras.layers.Identity()], method="vangl", seed=0)
        >>> logits = np.array([[4, 0], [3, 0], [0, 1], [0, 2]], "float32")
        >>> model.build(logits.shape)
        >>> found = trgl.diagnostics.failure_prediction(model, (logits, [0, 0, 0, 1]))
        >>> found.columns["right"], found.columns["wrong"]  # The least sure one is wrong.
        ((1.0,), (0.25,))
    """
    check_heads(model)
    wants = ("prediction",)
    seen = see(model, data, wants, cuts, sample, seed, batch_size, verbose, needs_labels=True)
    return predicted_failures(seen, predictions)


def predicted_failures(seen: Seen, predictions: str = "logits") -> DepthTable:
    """Give `failure_prediction`'s table of what was seen.

    Args:
        seen: with predictions.
        predictions: what the heads give. Defaults to `"logits"`.
    """
    labels = seen.sample.labels
    right: dict[int, Any] = {}
    sure: dict[int, Any] = {}
    for depth in seen.depths:
        chances = seen.chances(depth, predictions)
        if chances is not None:
            right[depth] = chances.argmax(1) == labels
            # Its order is that of the confidence, which is 1.0 for all that is far above.
            sure[depth] = seen.sureness(depth, predictions)
    found: dict[str, list[Any]] = {name: [] for name in ("right", "mends", "wrong", "mended")}
    for depth in seen.depths:
        later = [right[k] for k in right if k > depth]
        row: tuple[Any, ...] = (None,) * 4
        if depth in right:
            mended = ~right[depth] & np.any(later, axis=0) if later else None
            row = (
                auroc(sure[depth], right[depth]),
                None if mended is None else auroc(-sure[depth], mended),
                1.0 - right[depth].mean(),
                None if mended is None else mended.mean(),
            )
        for name, value in zip(found, row, strict=True):
            found[name].append(value)
    area, share = "area under the ROC curve, 0 to 1", "share of rows, 0 to 1"
    units = {"right": area, "mends": area, "wrong": share, "mended": share}
    return DepthTable(
        "prediction of failures by confidence",
        seen.index,
        {name: column(values) for name, values in found.items()},
        units,
        seen.about(
            right="of confidence, for: this depth is right",
            mends="of 1 − confidence, for: this depth is wrong and a later one is right",
            predictions=predictions,
        ),
    )
