"""What early exit does at each point of a path of thresholds, and which point is best."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_trgl.export.threshold_path import exits_of
from keras_trgl.scores import class_probabilities


def right_and_sure(found: Sequence[Any], labels: Any, kind: str) -> tuple[Any, Any]:
    """Give whether each depth is right, and how sure it is, each `(K, rows)`."""
    right = np.stack([_classes(one) == labels for one in found])
    return right, np.stack([_sure(one, kind) for one in found])


def _sure(predictions: Any, kind: str) -> Any:
    """Give the probability of the likeliest class, `(rows,)`, in the type that is served."""
    return class_probabilities(predictions, kind).max(-1).astype("float32")


def _classes(predictions: Any) -> Any:
    if predictions.shape[-1] == 1:
        raise ValueError(
            "A depth is chosen for classifiers with a unit per class. Received: a single unit."
        )
    return predictions.argmax(-1)


def curve_of(
    right: Any, sure: Any, latency: Any, path: Sequence[tuple[float, ...]]
) -> dict[str, Any]:
    """Give accuracy, risk, mean depth and mean latency of early exit at each point of a path.

    Args:
        right: bool array, `(K, rows)`: whether depth k is right.
        sure: float array, `(K, rows)`: its confidence.
        latency: float array, `(K,)`, seconds.
        path: list of tuples of K − 1 thresholds.
    """
    rows = np.arange(right.shape[1])
    points = []
    for thresholds in path:
        exit_of = exits_of(sure, thresholds)
        correct = right[exit_of, rows]
        lost = right[-1] & ~correct
        times = np.asarray(latency)[exit_of]
        points.append((correct.mean(), lost.mean(), 1.0 + exit_of.mean(), times.mean()))
    names = ("accuracy", "risk", "mean_depth", "mean_latency")
    return dict(zip(names, np.transpose(points), strict=True))


def best(goal: str, bound: float, accuracy: Any, latency: Any) -> int:
    """Give the place of the best choice.

    Raises:
        ValueError: none meets the bound.
    """
    # `lexsort` orders by its last key first; the other one decides among equals.
    if goal in ("max_latency", "max_depth"):
        fits = np.asarray(latency) <= bound
        order = np.lexsort((latency, -np.asarray(accuracy)))
    else:
        # A difference of two accuracies may miss the very accuracy that it allows by a last bit.
        fits = np.asarray(accuracy) >= bound - 1e-12
        order = np.lexsort((-np.asarray(accuracy), latency))
    for place in order:
        if fits[place]:
            return int(place)
    raise ValueError(
        f"No depth meets the goal. Received: {goal} with a bound of {bound:.4g}; the best "
        f"accuracy is {max(accuracy):.4g}, the least time or depth {min(latency):.4g}."
    )
