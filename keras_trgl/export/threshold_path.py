"""Thresholds of early exit, one per exit: a path from never leaving to leaving at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np

NEVER = 1.1
"""A threshold that no confidence reaches."""

PRICES = np.geomspace(1e-3, 10.0, 60)
"""What the time of the last depth is worth, in shares of rows; each gives a point of the path."""

SWEEPS = 10


def exits_of(sure: Any, thresholds: Sequence[float]) -> Any:
    """Give the exit of each row, counted from 0.

    Args:
        sure: float array, `(K, rows)`: confidence of each depth.
        thresholds: K − 1 floats. A row leaves at the first depth that is at least as sure.
    """
    leaves = sure[:-1] >= np.asarray(thresholds, float)[:, None]
    return np.vstack([leaves, np.ones((1, sure.shape[1]), bool)]).argmax(0)


def shared_path(sure: Any, points: int = 200) -> list[tuple[float, ...]]:
    """Give one threshold for all exits, at equal steps in the number of rows that leave."""
    inner = np.quantile(sure[:-1], np.linspace(0.0, 1.0, points)) if len(sure) > 1 else []
    return [(float(one),) * (len(sure) - 1) for one in np.unique([0.0, *inner, NEVER])[::-1]]


def threshold_path(gain: Any, sure: Any, cost: Any) -> list[tuple[float, ...]]:
    """Give thresholds that are best for what time is worth, from slow to fast.

    Of each price p, coordinate ascent looks for the thresholds with the most of the mean of
    gain − p · cost over the rows: an exit's threshold, with the others fixed, is the best cut of
    the rows that reach it, sorted by confidence.

    Args:
        gain: float array, `(K, rows)`: what leaving at a depth is worth.
        sure: float array, `(K, rows)`: confidence of each depth.
        cost: float array, `(K,)`: time of each depth, in any unit.

    Returns:
        List of tuples of K − 1 floats, without repeats; the first never leaves, the last at once.
    """
    # A deeper exit costs no less; where a measurement says so, that is noise.
    cost = np.maximum.accumulate(np.asarray(cost, float)) / np.max(cost)
    never, at_once = np.full(len(sure) - 1, NEVER), np.zeros(len(sure) - 1)
    found, thresholds = [never], never
    for price in PRICES:
        thresholds = _best(gain - price * cost[:, None], sure, thresholds)
        found.append(thresholds)
    found.append(at_once)
    unique = dict.fromkeys(tuple(map(float, one)) for one in found)
    return sorted(unique, key=lambda one: -cost[exits_of(sure, one)].mean())


def _best(value: Any, sure: Any, start: Any) -> Any:
    thresholds = start.copy()
    rows = np.arange(sure.shape[1])
    for _ in range(SWEEPS):
        before = thresholds.copy()
        for k in reversed(range(len(thresholds))):
            reached = (sure[:k] < thresholds[:k, None]).all(0)
            later = k + 1 + exits_of(sure[k + 1 :], thresholds[k + 1 :])
            better = (value[k] - value[later, rows])[reached]
            thresholds[k] = _cut(sure[k, reached], better)
        if (before == thresholds).all():
            break
    return thresholds


def _cut(sure: Any, better: Any) -> float:
    """Give the threshold whose leaving rows have the largest sum of what they gain."""
    if not len(sure):
        return NEVER
    order = np.argsort(-sure, kind="stable")
    sure, total = sure[order], np.cumsum(better[order])
    # Rows that are as sure leave together.
    ends = np.flatnonzero(np.append(sure[1:] < sure[:-1], True))
    if total[ends].max() <= 0.0:
        return NEVER
    return float(sure[ends[np.argmax(total[ends])]])
