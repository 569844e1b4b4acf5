"""The distance between the features before and after every stage, as two clouds of points."""

import math
from typing import Any

from keras_trgl.diagnostics.assigned import Costs, check_assignment, costs_by_depth, said
from keras_trgl.diagnostics.depth_table import DepthTable, column
from keras_trgl.diagnostics.seen import Seen, see
from keras_trgl.registration import public


@public
def wasserstein(
    model: Any,
    data: Any,
    cuts: Any = None,
    sample: int = 1000,
    dimensions: int = 32,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> DepthTable:
    """Give W2 between the features before and after every stage, where widths agree.

    Features are averaged over all axes but batch and channels, and projected by one PCA of both
    sides together where they have more than `dimensions` axes; W2 is then exact, by assignment,
    between the two clouds of points. Of the distance between the distributions it is an estimate:
    between two draws of one distribution it is not zero.

    Args:
        model: built `GreedyModel`, or a functional `keras.Model` with `cuts`.
        data: array `(examples, …)`, or a tuple `(x, y)` of arrays.
        cuts: list of depths 1…K, or of names of layers of a plain model, the first of which is
            compared with the data; `None` is every depth. Defaults to `None`.
        sample: int ≥ 2, rows at most; 5000 are the limit. Defaults to `1000`.
        dimensions: int in [1, 32]. Axes to project to. Defaults to `32`.
        seed: int ≥ 0. Seed of the rows. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.

    Returns:
        `DepthTable` with `w2`, in feature units.

    Raises:
        ImportError: scipy, the extra `[analysis]`, is missing.
        ValueError: the model is not built, has no such depth, or gives numbers that are not
            finite; too many rows or dimensions.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> block = keras.layers.Dense(2, kernel_initializer="identity", bias_initializer="ones")
        >>> model = trgl.GreedyModel.from_blocks(
        ...     [block], [1], trgl.heads.LinearHead(2), method="vangl", seed=0)
        >>> x = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
        >>> model.build(x.shape)
        >>> found = trgl.diagnostics.wasserstein(model, x)["w2"]
        >>> round(float(found[0]), 4)  # Every point is shifted by (1, 1).
        1.4142
    """
    check_assignment(sample, dimensions)
    seen = see(model, data, ("origin", "vectors"), cuts, sample, seed, batch_size, verbose)
    return distances(seen, costs_by_depth(seen, dimensions), dimensions)


def distances(seen: Seen, costs: list[Costs | None], dimensions: int) -> DepthTable:
    """Give `wasserstein`'s table.

    Args:
        seen: what costs were found of.
        costs: of each depth.
        dimensions: int, axes of the points.
    """
    return DepthTable(
        "distance of features before and after a stage",
        seen.index,
        {"w2": column(None if one is None else math.sqrt(one.best) for one in costs)},
        {"w2": "W2, feature units"},
        seen.about(features=said(dimensions)),
    )
