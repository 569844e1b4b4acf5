"""What `compile` was given for every head: which settings are whose, and which are copied."""

import collections
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

METRIC_SETTINGS = ("metrics", "weighted_metrics")


class Exit(keras.Model):
    """The compiled loss and metrics of one head; a model without layers or losses of its own."""

    @property
    def loss_tracker(self) -> Any:
        """Mean of the task loss."""
        return self.metrics[0]


def exit_settings(predicts: Sequence[bool], **settings: Any) -> Callable[[int], dict[str, Any]]:
    """Give every head its settings.

    A metric that serves one head is used as it is, so that its owner reads from it what was
    measured. One that serves several is copied for each, registered or not. Stages that predict
    nothing get none.

    Args:
        predicts: list of K bools, whether each stage has a head.
        **settings: `loss`: every head's, or a list of K. `loss_weights`: every head's. `metrics`,
            `weighted_metrics`: as in Keras, for every head, or a list of K lists (or `None`), one
            per head.

    Returns:
        Function of k, counted from 0, that gives the settings of head k. It makes the copies, so
        that their variables are made where it is called.

    Raises:
        ValueError: lists of metrics for another number of heads, or lists beside metrics.
    """
    num_stages = len(predicts)
    _check_kinds(settings, num_stages)
    _tell_where_metrics_go(predicts, settings)
    shares = {
        key: _per_stage(key, value, num_stages) if key in METRIC_SETTINGS else [value] * num_stages
        for key, value in settings.items()
    }
    for key in METRIC_SETTINGS:
        if key in shares:
            kept = zip(predicts, shares[key], strict=True)
            shares[key] = [value if has_head else None for has_head, value in kept]
    shares["loss"] = losses_of(settings.get("loss"), num_stages)
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


def _tell_where_metrics_go(predicts: Sequence[bool], settings: dict[str, Any]) -> None:
    """Warn where metrics were given, and stages predict nothing that they could measure."""
    without = [str(k) for k, has_head in enumerate(predicts, start=1) if not has_head]
    given = [key for key in METRIC_SETTINGS if settings.get(key)]
    if without and given:
        warnings.warn(
            f"`{given[0]}` measure predictions, and the method trains none at depth "
            f"{', '.join(without)}: they go to the other heads alone.",
            stacklevel=6,
        )


def losses_of(loss: Any, num_stages: int) -> list[Any]:
    """Give every head's loss.

    Args:
        loss: one loss, or a list of one per head.
        num_stages: int. K.
    """
    listed = isinstance(loss, (list, tuple)) and len(loss) == num_stages > 1
    return list(loss) if listed else [loss] * num_stages


def _check_kinds(settings: dict[str, Any], num_stages: int) -> None:
    """Raise where a loss or metric came in a form that Keras takes for something else.

    Raises:
        TypeError: a class in place of an object.
        ValueError: losses for another number of heads, or by name: a head has one prediction.
    """
    for key, value in settings.items():
        if key in METRIC_SETTINGS and isinstance(value, str):
            raise TypeError(
                f"`{key}` must be a list. Received: {key}={value!r}. Give `{key}=[{value!r}]`."
            )
        for one in keras.tree.flatten(value):
            if isinstance(one, type):
                raise TypeError(
                    f"`{key}` must hold objects, functions or names. Received: the class "
                    f"{one.__name__}. Call it to make an object: `{one.__name__}()`."
                )
    loss = settings.get("loss")
    wrong = isinstance(loss, (list, tuple)) and len(loss) not in (1, num_stages)
    if isinstance(loss, dict) or wrong:
        shown = list(loss) if isinstance(loss, dict) else f"a list of {len(loss or ())}"
        raise ValueError(
            "`loss` must be one loss, which every head gets, as a head has one prediction, or a "
            f"list of {num_stages}, one per head. Received: {shown}. Other terms come from the "
            "method."
        )


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
        return _Copies().of(value)
    except TypeError as error:
        raise ValueError(
            "A metric that serves several heads is copied for each. Received: "
            f"{value.name} of type {type(value).__name__}, which cannot be copied ({error}). "
            "Give a list of metrics for every head: `metrics=[[…], […]]`."
        ) from error


class _Copies:
    """The copies made so far, so that what a metric holds twice is copied once.

    `copy.deepcopy` goes by Keras's configurations, which speak of registered classes only.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, Any]] = {}

    def of(self, metric: Any) -> Any:
        """Give the copy of a metric, values included."""
        kind: Any = type(metric)
        made = kind.__new__(kind)
        # The base alone, as with optimizers: a member's own may take anything.
        keras.metrics.Metric.__init__(made, dtype=metric.dtype, name=metric.name)
        self._made[id(metric)] = (metric, made)
        known = set(vars(made))
        for key, value in list(vars(metric).items()):
            # TensorFlow keeps its books of dependencies under names of this kind.
            if key not in known and not key.startswith("_self"):
                setattr(made, key, self._part(value, made))
        return made

    def _part(self, value: Any, owner: Any) -> Any:
        if id(value) in self._made:
            return self._made[id(value)][1]
        if isinstance(value, keras.metrics.Metric):
            return self.of(value)
        if isinstance(value, keras.Variable):
            made = self._variable(value, owner)
            self._made[id(value)] = (value, made)
            return made
        if isinstance(value, dict):
            return {key: self._part(one, owner) for key, one in value.items()}
        if isinstance(value, (list, set)) or type(value) is tuple:
            plain = next(kind for kind in (list, set, tuple) if isinstance(value, kind))
            return plain(self._part(one, owner) for one in value)
        if isinstance(value, types.MethodType) and id(value.__self__) in self._made:
            return types.MethodType(value.__func__, self._made[id(value.__self__)][1])
        return value

    @staticmethod
    def _variable(variable: Any, owner: Any) -> Any:
        made = owner.add_variable(
            variable.shape,
            "zeros",
            dtype=variable.dtype,
            aggregation=variable.aggregation,
            name=variable.name,
        )
        made.assign(variable.numpy())
        return made
