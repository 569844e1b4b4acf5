"""How good predictions and their confidence are: plain numbers from NumPy arrays."""

from typing import Any

import numpy as np

WAY_OUT = "Count classes from 0, as in training."

BINS = 15
"""Bins of confidence, of equal width, of the expected calibration error (Guo et al. 2017)."""

SUM = 2e-2
"""How far a sum of probabilities may be from 1: heads may compute in bfloat16, of 8 bits."""


def class_probabilities(predictions: Any, kind: str) -> Any:
    """Give the probability of every class; one unit is a class against none.

    Args:
        predictions: float array, `(examples, units)`.
        kind: `"logits"` or `"probabilities"`.

    Returns:
        float64 array, `(examples, classes)`, with two classes for one unit.
    """
    values = np.asarray(predictions, np.float64)
    if values.shape[1] == 1:
        if kind == "logits":
            # The larger of 0 and the logit is taken off, so that nothing overflows.
            values = np.concatenate([np.zeros_like(values), values], 1)
        else:
            return np.concatenate([1.0 - values, values], 1)
    return values if kind == "probabilities" else np.exp(log_softmax(values))


def check_predictions(kind: str, predictions: Any) -> None:
    """Raise where predictions are not of the kind that is said.

    Args:
        kind: `"logits"` or `"probabilities"`.
        predictions: float array, `(examples, units)`.

    Raises:
        ValueError: they look like the other.
    """
    inside = bool((predictions >= 0).all() and (predictions <= 1 + 1e-6).all())
    sums = predictions.shape[1] == 1 or np.allclose(predictions.sum(1), 1.0, atol=SUM)
    if kind == "probabilities" and not (inside and sums):
        raise ValueError(
            "Probabilities must lie between 0 and 1 and sum to 1. Received: heads that give "
            f"{predictions.min():.3g} to {predictions.max():.3g}. Pass `predictions='logits'`."
        )
    if kind == "logits" and inside and sums and predictions.shape[1] > 1:
        raise ValueError(
            "Logits are numbers of any sign. Received: heads whose numbers lie between 0 and 1 "
            "and sum to 1. Pass `predictions='probabilities'`."
        )


def log_softmax(logits: Any) -> Any:
    """Give logarithms of probabilities, `(examples, classes)`, of logits of as many classes."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def calibration_error(probabilities: Any, labels: Any, bins: int = BINS) -> float:
    """Give the expected calibration error: Σ_bins share·|accuracy − mean confidence|.

    Args:
        probabilities: float array, `(examples, classes)`.
        labels: int array, `(examples,)`.
        bins: int ≥ 1. Bins of equal width over [0, 1], each open at its left. Defaults to `15`.

    Returns:
        float, 0 to 1.
    """
    sure = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    places = np.digitize(sure, edges, right=True)
    gaps = np.bincount(places, right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier(probabilities: Any, labels: Any) -> float:
    """Give the Brier score: mean of the squared distance to the one-hot label, 0 to 2.

    Args:
        probabilities: float array, `(examples, classes)`.
        labels: int array, `(examples,)`.
    """
    wanted = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - wanted).sum(1).mean())


def log_loss(probabilities: Any, labels: Any) -> float:
    """Give the mean negative log-likelihood of the labels, in nats.

    Args:
        probabilities: float array, `(examples, classes)`.
        labels: int array, `(examples,)`.
    """
    of_labels = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_labels, np.finfo(np.float64).tiny)).mean())


def log_odds(predictions: Any, kind: str) -> Any:
    """Give log(p/(1 − p)) of the likeliest class: its order is that of p, and it does not saturate.

    Args:
        predictions: float array, `(examples, units)`.
        kind: `"logits"` or `"probabilities"`.

    Returns:
        float64 array, `(examples,)`.
    """
    values = np.asarray(predictions, np.float64)
    if kind == "probabilities":
        p = class_probabilities(values, kind).max(1)
        tiny = np.finfo(np.float64).tiny
        return np.log(np.maximum(p, tiny)) - np.log(np.maximum(1.0 - p, tiny))
    if values.shape[1] == 1:
        return np.abs(values[:, 0])
    ordered = np.sort(values, 1)
    others = ordered[:, :-1] - ordered[:, -1:]
    return -np.log(np.exp(others - others[:, -1:]).sum(1)) - others[:, -1]


def right_rows(predictions: Any, labels: Any, kind: str) -> Any:
    """Give whether each row's likeliest class is its label, `(examples,)`.

    Args:
        predictions: float array, `(examples, units)`; one unit is a class against none.
        labels: int array, `(examples,)`.
        kind: `"logits"` or `"probabilities"`; matters to one unit alone.
    """
    if predictions.shape[1] > 1:
        return predictions.argmax(1) == labels
    return (predictions[:, 0] > (0.5 if kind == "probabilities" else 0.0)) == labels


def auroc(scores: Any, events: Any) -> float:
    """Give the probability that a row with the event scores higher than one without.

    Equal scores count half.

    Args:
        scores: float array, `(examples,)`.
        events: bool array, `(examples,)`.

    Returns:
        float, 0 to 1; NaN where all rows or none have the event.
    """
    with_event = int(events.sum())
    without = len(events) - with_event
    if not with_event or not without:
        return float("nan")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # The mean rank of each value, from 1.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    above = ranks[events].sum() - with_event * (with_event + 1) / 2
    return float(above / (with_event * without))


def class_indices(y: Any) -> Any:
    """Give `(examples,)` class indices from indices, of one or two axes, or from one-hot rows.

    Args:
        y: array.
    """
    y = np.asarray(y)
    return y.argmax(-1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)


def class_labels(y: Any) -> Any:
    """Give class indices from indices or one-hot rows.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: they have other axes, or are below 0.
    """
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf":
        if not (((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()):
            raise ValueError(
                "Labels of several columns must be one-hot. Received: rows without a single 1. "
                f"{WAY_OUT}"
            )
        return y.argmax(1)
    if y.ndim not in (1, 2):
        raise ValueError(
            f"Labels must be `(examples,)` or one-hot. Received: shape {y.shape}. {WAY_OUT}"
        )
    y = y.reshape(-1)
    whole = y.dtype.kind in "biu" or (y.dtype.kind == "f" and np.array_equal(y, np.round(y)))
    if not whole:
        raise TypeError(
            "Labels must be whole numbers, those of classes. Received: labels of type "
            f"{y.dtype}. {WAY_OUT}"
        )
    if len(y) and y.min() < 0:
        raise ValueError(f"Labels must be at least 0. Received: {int(y.min())}. {WAY_OUT}")
    return y.astype(int)


def check_classes(predictions: Any, labels: Any = None) -> None:
    """Raise unless there is a prediction of every example, and labels are among its classes.

    Args:
        predictions: float array.
        labels: int array, `(examples,)`, or `None`. Defaults to `None`.

    Raises:
        ValueError: predictions have more axes, as one per step of a sequence; a label is none of
            the classes.
    """
    if predictions.ndim != 2:
        raise ValueError(
            "Predictions must be `(examples, units)`, one of every example. Received: "
            f"{predictions.shape}. Let the head pool over positions."
        )
    classes = max(predictions.shape[1], 2)
    if labels is not None and labels.max() >= classes:
        raise ValueError(
            f"Labels must be classes that the heads know, 0 to {classes - 1}. Received: label "
            f"{int(labels.max())}. {WAY_OUT}"
        )


def mean_of_numbers(values: Any) -> float:
    """Give the mean of those that are no NaN; NaN where there are none.

    Args:
        values: float array, `(examples,)`.
    """
    kept = np.asarray(values, np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else float("nan")
