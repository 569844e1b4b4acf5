"""What `compile` was given for every head: which settings are whose, and which are copied."""

import collections
import copy
from collections.abc import Callable
from typing import Any

import keras

METRIC_SETTINGS = ("metrics", "weighted_metrics")


def exit_settings(num_stages: int, **settings: Any) -> Callable[[int], dict[str, Any]]:
    """Give every head its settings.

    A metric that serves one head is used as it is, so that its owner reads from it what was
    measured. One that serves several is copied for each by `copy.deepcopy`, which knows classes
    that are not registered too.

    Args:
        num_stages: int. K.
        **settings: `loss`, `loss_weights`: every head's. `metrics`, `weighted_metrics`: as in
            Keras, for every head, or a list of K lists (or `None`), one per head.

    Returns:
        Function of k, counted from 0, that gives the settings of head k. It makes the copies, so
        that their variables are made where it is called.

    Raises:
        ValueError: lists of metrics for another number of heads, or lists beside metrics.
    """
    shares = {
        key: _per_stage(key, value, num_stages) if key in METRIC_SETTINGS else [value] * num_stages
        for key, value in settings.items()
    }
    stages = [
        {
            id(one)
            for key in METRIC_SETTINGS
            for one in keras.tree.flatten(shares.get(key, [None] * num_stages)[k])
        }
        for k in range(num_stages)
    ]
    served = collections.Counter(one for stage in stages for one in stage)

    def of_stage(k: int) -> dict[str, Any]:
        return {
            key: keras.tree.map_structure(
                lambda one: _copied(one) if served[id(one)] > 1 else one, values[k]
            )
            if key in METRIC_SETTINGS
            else values[k]
            for key, values in shares.items()
        }

    return of_stage


def _per_stage(name: str, value: Any, num_stages: int) -> list[Any]:
    """Give the metrics of every head: those for all, or the list's own for each."""
    if not isinstance(value, (list, tuple)):
        return [value] * num_stages
    lists = [isinstance(one, (list, tuple)) for one in value]
    if not any(lists):
        return [value] * num_stages
    if len(value) != num_stages or not all(
        is_list or one is None for is_list, one in zip(lists, value, strict=True)
    ):
        raise ValueError(
            f"`{name}` must be a list of metrics, for every head, or a list of {num_stages} lists "
            f"(or None), one per head. Received: {name}={value!r}."
        )
    return list(value)


def _copied(value: Any) -> Any:
    """Give a metric with variables of its own; names and functions pass.

    Raises:
        ValueError: it cannot be copied.
    """
    if not isinstance(value, keras.metrics.Metric):
        return value
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise ValueError(
            "A metric that serves several heads is copied for each. Received: "
            f"{value.name} of type {type(value).__name__}, which cannot be copied "
            f"({str(error).strip().splitlines()[0]}). Give a list of metrics for every head: "
            "`metrics=[[…], […]]`."
        ) from error
