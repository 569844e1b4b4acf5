"""What exits predict where they have temperatures and are averaged, and how those are fitted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_trgl.scores import log_softmax

LOW, HIGH = -4.0, 4.0
"""Of the logarithm of a temperature."""

GOLDEN = (5**0.5 - 1) / 2


def exit_predictions(
    found: Sequence[Any], kind: str, temperatures: Sequence[float] | None, average: bool
) -> list[Any]:
    """Give predictions of all exits from what their heads give.

    Args:
        found: list of K arrays, `(rows, units)`, or `None` of a depth without a head.
        kind: `"logits"`, `"probabilities"` or `"values"`: what heads and exits give.
        temperatures: K floats, or `None`.
        average: bool. Whether exit k is the mean of the probabilities of heads 1…k.
    """
    if temperatures is None and not average:
        return list(found)
    total, made = 0.0, []
    for depth, one in enumerate(found, start=1):
        temperature = 1.0 if temperatures is None else temperatures[depth - 1]
        if not average:
            logits = np.asarray(one) / np.float32(temperature)
            made.append(logits if kind == "logits" else _probabilities(one, kind, temperature))
            continue
        total = total + _probabilities(one, kind, temperature)
        mean = total / depth
        made.append(_logits(mean) if kind == "logits" else mean)
    return [np.asarray(one, "float32") for one in made]


def log_probabilities(predictions: Any, kind: str, temperature: float = 1.0) -> Any:
    """Give logarithms of probabilities, `(rows, classes)`, in float64.

    Args:
        predictions: array, `(rows, classes)`, at least two classes.
        kind: `"logits"` or `"probabilities"`.
        temperature: float > 0. Defaults to `1.0`.
    """
    logits = np.asarray(predictions, "float64")
    if kind == "probabilities":
        logits = np.log(np.maximum(logits, 1e-30))
    return log_softmax(logits / temperature)


def fitted_temperature(predictions: Any, labels: Any, kind: str) -> float:
    """Give the temperature with the least mean negative log-likelihood.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
    section 4.2. The likelihood has one maximum in 1/T, so a golden-section search finds it.

    Args:
        predictions: array, `(rows, classes)`.
        labels: int array, `(rows,)`.
        kind: `"logits"` or `"probabilities"`.
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        found = log_probabilities(predictions, kind, float(np.exp(log_temperature)))
        return float(-found[rows, labels].mean())

    low, high = LOW, HIGH
    while high - low > 1e-4:
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def _probabilities(predictions: Any, kind: str, temperature: float) -> Any:
    if predictions.shape[-1] == 1:
        logits = _logits(predictions) if kind == "probabilities" else predictions
        return 1.0 / (1.0 + np.exp(-np.asarray(logits, "float64") / temperature))
    return np.exp(log_probabilities(predictions, kind, temperature))


def _logits(probabilities: Any) -> Any:
    p = np.maximum(np.asarray(probabilities, "float64"), 1e-30)
    if p.shape[-1] > 1:
        return np.log(p)
    return np.log(p / np.maximum(1.0 - p, 1e-30))
