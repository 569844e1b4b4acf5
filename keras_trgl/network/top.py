"""The classifier that a model still has: refused, or taken as the last head."""

from collections.abc import Sequence
from typing import Any

from keras_trgl.network.call_kinds import is_main
from keras_trgl.network.calls import Call, Flat, Value
from keras_trgl.network.crossing import crossing

PROBABILITIES = ("softmax", "sigmoid")


def top_start(flat: Flat, main: Value, residuals: Sequence[int]) -> int:
    """Give the position of the first call of a model's own classifier.

    It begins where features lose their axes, by pooling, flattening or the choice of one token;
    in a network of vectors it is the last layer with weights.

    Args:
        flat: the model's calls.
        main: its output.
        residuals: number of residuals that end in each call.

    Raises:
        ValueError: the model has no classifier that stands apart.
    """
    drop, last = _drop(flat, main, residuals), _last_with_weights(flat)
    start = last if drop is None or last is None or last < drop else drop
    single = start is not None and start > 0 and len(crossing(flat, main)[start - 1]) == 1
    if start is None or not single or last is None:
        raise ValueError(
            "`head='top'` takes the model's own classifier, layers at its end that one tensor "
            "reaches. Received: a model without one. Give a head for every stage."
        )
    return start


def check_no_top(model: Any, flat: Flat, main: Value, residuals: Sequence[int]) -> None:
    """Raise if a model still has its classifier.

    Raises:
        ValueError: it has: it ends in probabilities, or in weights after the features have lost
            their axes.
    """
    drop, last = _drop(flat, main, residuals), _last_with_weights(flat)
    # An embedding that is pooled makes no features yet.
    body = flat.calls[: drop or 0]
    deep = any(residuals[: drop or 0]) or sum(map(is_main, body)) > 1
    dropped = deep and drop is not None and last is not None and last >= drop
    if len(main.shape) == 2 and (dropped or ends_in_probabilities(flat.calls)):
        start = drop if dropped and drop is not None else last or 0
        before = flat.calls[start - 1].name if start else "its input"
        raise ValueError(
            f"`model` must end in features, as every stage gets a head. Received: {model.name}, "
            f"which has its own classifier, {flat.calls[-1].name}. Give that to the last stage, "
            "`head=[…, 'top']`, or leave it out: `include_top=False`, or "
            f"`head_input={before!r}`."
        )


def ends_in_probabilities(calls: Sequence[Call]) -> bool:
    """Tell whether calls in a row end in a softmax or sigmoid."""
    last = calls[-1].operation if calls else None
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    kind = type(last).__name__.lower()
    return activation in PROBABILITIES or kind in PROBABILITIES


def _drop(flat: Flat, main: Value, residuals: Sequence[int]) -> int | None:
    """Give the last place where one tensor of axes becomes one of vectors, and stays one."""
    if len(main.shape) != 2:
        return None
    for index in reversed(range(len(flat.calls))):
        call = flat.calls[index]
        if residuals[index] or len(call.outputs[0].shape) != 2:
            return None
        if len(call.inputs) == 1 and len(call.inputs[0].shape) > 2:
            return index
    return None


def _last_with_weights(flat: Flat) -> int | None:
    found = [index for index, call in enumerate(flat.calls) if call.weights]
    return found[-1] if found else None
