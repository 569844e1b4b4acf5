"""How well a linear classifier tells the classes apart, from the features of every depth."""

from typing import Any

import numpy as np

from keras_trgl.checks import needed
from keras_trgl.diagnostics.depth_table import DepthTable, column
from keras_trgl.diagnostics.sampled import held_out as split
from keras_trgl.diagnostics.seen import Seen, see
from keras_trgl.progress import Progress
from keras_trgl.registration import public

MAX_ITERATIONS = 10_000


@public
def separability(
    model: Any,
    data: Any,
    cuts: Any = None,
    sample: int = 2000,
    held_out: float = 0.3,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> DepthTable:
    """Give the accuracy of a linear probe on the features of every depth.

    A logistic regression (scikit-learn, L2 with C = 1) is trained to convergence on features that
    are averaged over all axes but batch and channels and standardized, on a part of the rows; its
    accuracy is that on the others. Beside it stands the accuracy of the depth's own head on those
    same rows. Give rows that the model was not trained on.

    Args:
        model: built `GreedyModel`, or a functional `keras.Model` with `cuts`.
        data: tuple `(x, y)` of arrays, `(examples, …)` and class indices or one-hot labels.
        cuts: list of depths 1…K, or of names of layers of a plain model; `None` is every depth.
            Defaults to `None`.
        sample: int ≥ 1. Rows at most, drawn with the same share of every class. Defaults to
            `2000`.
        held_out: float in (0, 1). Share of the rows that the probe is judged by. Defaults to
            `0.3`.
        seed: int ≥ 0. Seed of the rows. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.

    Returns:
        `DepthTable` with `probe` and `train`, the probe's accuracy on held-out and on training
        rows, and `head`, the head's on held-out rows.

    Raises:
        ImportError: scikit-learn, the extra `[analysis]`, is missing.
        ValueError: the model is not built, has no such depth, or gives numbers that are not
            finite; labels that do not fit; fewer rows than two of each class.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> blocks = [keras.layers.Dense(4) for _ in range(2)]
        >>> model = trgl.GreedyModel.from_blocks(
        ...     blocks, [1, 1], trgl.heads.LinearHead(2), method="vangl", seed=0)
        >>> model.build((None, 2))
        >>> x = np.random.default_rng(0).normal(size=(100, 2)).astype("float32")
        >>> y = (x[:, 0] > 0).astype(int)
        >>> bool(trgl.diagnostics.separability(model, (x, y))["probe"].min() > 0.85)
        True

    Reference:
        Alain and Bengio, "Understanding intermediate layers using linear classifier probes",
        ICLR 2017 (workshop).
    """
    wants = ("vectors", "prediction")
    seen = see(model, data, wants, cuts, sample, seed, batch_size, verbose, needs_labels=True)
    return separable(seen, held_out)


def separable(seen: Seen, fraction: float = 0.3) -> DepthTable:
    """Give `separability`'s table of what was seen.

    Args:
        seen: with vectors and predictions.
        fraction: float in (0, 1). Share of held-out rows. Defaults to `0.3`.
    """
    linear = needed("sklearn.linear_model", "analysis", "A linear probe")
    labels = seen.sample.labels
    train, test = split(labels, fraction, seen.sample.seed)
    found: dict[str, list[Any]] = {"probe": [], "train": [], "head": []}
    done = Progress(len(seen.depths), 1 if seen.verbose else 0, "depth")
    for depth in seen.depths:
        vectors = standardized(np.asarray(seen.get("vectors", depth), np.float64), train)
        probe = linear.LogisticRegression(max_iter=MAX_ITERATIONS)
        probe.fit(vectors[train], labels[train])
        found["probe"].append(probe.score(vectors[test], labels[test]))
        found["train"].append(probe.score(vectors[train], labels[train]))
        right = seen.right(depth)
        found["head"].append(None if right is None else right[test].mean())
        done()
    if not seen.view.is_greedy:
        del found["head"]
    about = seen.about(
        features="mean over all axes but batch and channels, standardized",
        probe=f"logistic regression, L2, C = 1; {len(train)} rows to train, {len(test)} held out",
    )
    return DepthTable(
        "linear separability",
        seen.index,
        {name: column(values) for name, values in found.items()},
        dict.fromkeys(found, "accuracy, 0 to 1"),
        about,
    )


def standardized(vectors: Any, train: Any) -> Any:
    """Give vectors with the mean 0 and the standard deviation 1 that the training rows have."""
    center, spread = vectors[train].mean(0), vectors[train].std(0)
    return (vectors - center) / np.where(spread > 0, spread, 1.0)
