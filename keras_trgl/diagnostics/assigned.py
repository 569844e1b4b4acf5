"""The exact optimal pairing of features before and after a stage.

With equal numbers of rows of equal weight, optimal transport is an assignment: some permutation is
optimal among all plans (Birkhoff), so `scipy.optimize.linear_sum_assignment` gives it exactly.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from keras_trgl.checks import check_integer, needed
from keras_trgl.diagnostics.seen import Seen

MOST_ROWS = 5000
"""Rows of an exact assignment: costs take 200 MB, and time grows with the third power."""

MOST_DIMENSIONS = 32
"""Axes of the points: in thousands of them all points are equally far apart."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """What it costs to carry features through a stage, in squared feature units, a mean over rows.

    Attributes:
        pairs: along the stage's own map.
        best: along the best pairing.
        spacing: from a point before the stage to the nearest other one.
    """

    pairs: float
    best: float
    spacing: float


def check_assignment(sample: int, dimensions: int) -> None:
    """Raise unless an assignment is exact in reasonable time, and says something.

    Raises:
        TypeError: a number is no integer.
        ValueError: there are too many rows or dimensions.
    """
    check_integer("sample", sample, 2, "One point has nothing to be paired with.")
    if sample > MOST_ROWS:
        raise ValueError(
            f"An exact assignment takes at most {MOST_ROWS} rows. Received: sample={sample}. "
            "1000 are paired in about a second."
        )
    check_integer("dimensions", dimensions, 1)
    if dimensions > MOST_DIMENSIONS:
        raise ValueError(
            f"Features must have at most {MOST_DIMENSIONS} dimensions for an exact assignment: in "
            f"more, all points are equally far apart. Received: dimensions={dimensions}. "
            "They are projected by a PCA."
        )


def costs_by_depth(seen: Seen, dimensions: int) -> list[Costs | None]:
    """Give each stage's costs, `None` where vectors before and after have other lengths.

    Args:
        seen: with vectors, and those before each stage.
        dimensions: int, axes to project to at most.
    """
    optimize = needed("scipy.optimize", "analysis", "An exact assignment")
    return [
        _costs(seen.get("origin", depth), seen.get("vectors", depth), dimensions, optimize)
        for depth in seen.depths
    ]


def _costs(before: Any, after: Any, dimensions: int, optimize: Any) -> Costs | None:
    if before is None or after is None or before.shape != after.shape:
        return None
    before, after = projected(before, after, dimensions)
    distances = squared_distances(before, after)
    rows, columns = optimize.linear_sum_assignment(distances)
    pairs = float(np.square(after - before).sum(1).mean())
    # Of two ways to count the same cost the pairs' own is the exact one.
    best = float(np.square(after[columns] - before[rows]).sum(1).mean())
    among = squared_distances(before, before)
    np.fill_diagonal(among, math.inf)
    return Costs(pairs, min(best, pairs), float(among.min(1).mean()))


def projected(before: Any, after: Any, dimensions: int) -> tuple[Any, Any]:
    """Give both sides in the axes of one PCA of them together, where they have more.

    Args:
        before: array, `(examples, features)`.
        after: array, `(examples, features)`.
        dimensions: int ≥ 1. Axes to keep.
    """
    before, after = (np.asarray(one, np.float64) for one in (before, after))
    if before.shape[1] <= dimensions:
        return before, after
    both = np.concatenate([before, after])
    center = both.mean(0)
    axes = np.linalg.svd(both - center, full_matrices=False)[2][:dimensions].T
    return (before - center) @ axes, (after - center) @ axes


def squared_distances(one: Any, other: Any) -> Any:
    """Give |x_i − y_j|², `(examples, examples)`."""
    products = one @ other.T
    sizes = np.square(one).sum(1)[:, None] + np.square(other).sum(1)
    return np.maximum(sizes - 2.0 * products, 0.0)


def said(dimensions: int) -> str:
    """Say how features are made into points."""
    return (
        "mean over all axes but batch and channels, then one PCA of both sides to "
        f"{dimensions} dimensions where there are more; exact assignment"
    )
