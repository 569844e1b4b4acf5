"""What callbacks count, kept apart from their settings.

A callback's own `get_state` and `set_state` come first. Of Keras's callbacks a table names the
counters. Of all others those attributes are kept that have changed since `on_train_begin`, if
they are plain: numbers, texts, arrays, and lists and dicts of these.
"""

import functools
import json
import types
import warnings
from typing import Any

import keras
import numpy as np

PLAIN = (type(None), bool, int, float, str)
CONTAINERS: dict[str, type] = {"list": list, "tuple": tuple, "set": set}


@functools.cache
def counters_of_keras() -> dict[type, tuple[str, ...]]:
    """Give the names of what Keras's callbacks count.

    Private names of Keras stand here alone; `tests/keeping/test_callback_state.py` fails when
    one of them moves.
    """
    of = keras.callbacks
    batches = ("_batches_seen_since_last_saving", "_last_batch_seen")
    return {
        of.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
        of.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
        of.ModelCheckpoint: ("best", *batches),
        of.OrbaxCheckpoint: ("best", "_total_batches_seen", *batches),
        of.BackupAndRestore: ("_current_epoch", *batches),
        of.SwapEMAWeights: ("_ema_weights_in_model",),
        of.TensorBoard: ("_global_train_batch", "_global_test_batch"),
        of.CSVLogger: ("keys",),
    }


LARGE = 2**22
"""Bytes of arrays above which an attribute counts as changed only if it is another object."""

STOPPING = ("monitor", "min_delta", "patience", "baseline", "start_from_epoch", "mode")
"""Settings of `EarlyStopping` that say when it ends a run."""


def encoded(value: Any, arrays: list[Any]) -> Any:
    """Give a value as JSON holds it, types told; arrays go to a list.

    Raises:
        TypeError: it holds something that is not plain.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        arrays.append(np.asarray(value))
        what = "array" if isinstance(value, np.ndarray) else "scalar"
        return {what: len(arrays) - 1}
    if kind is dict:
        pairs = [[encoded(key, arrays), encoded(one, arrays)] for key, one in value.items()]
        return {"dict": pairs}
    for name, container in CONTAINERS.items():
        if kind is container:
            return {name: [encoded(one, arrays) for one in value]}
    raise TypeError(f"{kind.__name__} is no number, text, array, list or dict of these.")


def decoded(value: Any, arrays: list[Any]) -> Any:
    """Give back what `encoded` was given.

    Raises:
        ValueError: it is none of its results.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((name, held),) = value.items()
        if name == "array" and type(held) is int:
            return np.array(arrays[held])
        if name == "scalar" and type(held) is int:
            return np.array(arrays[held])[()]
        if name == "dict" and isinstance(held, list):
            return {decoded(key, arrays): decoded(one, arrays) for key, one in held}
        if name in CONTAINERS and isinstance(held, list):
            return CONTAINERS[name](decoded(one, arrays) for one in held)
    raise ValueError(f"{str(value)[:80]} is no state of a callback")


def names_of(callbacks: list[Any]) -> list[str]:
    """Give names to pair callbacks by: class, what is monitored, and the how-manieth of those."""
    names: list[str] = []
    for one in callbacks:
        monitor = getattr(one, "monitor", None)
        name = type(one).__qualname__.rpartition("<locals>.")[2]
        name += f"({monitor!r})" if isinstance(monitor, str) else ""
        count = sum(known.partition("#")[0] == name for known in names)
        names.append(f"{name}#{count + 1}" if count else name)
    return names


def stops_by(callbacks: list[Any], epoch: int | None = None) -> dict[str, Any]:
    """Give the settings of each `EarlyStopping` by its name.

    Args:
        callbacks: list of callbacks.
        epoch: int, to give only those that ended the run at it, or `None`. Defaults to `None`.
    """
    return {
        name: {key: _setting(one, key) for key in STOPPING}
        for name, one in zip(names_of(callbacks), callbacks, strict=True)
        if isinstance(one, keras.callbacks.EarlyStopping) and epoch in (None, one.stopped_epoch)
    }


def _setting(callback: Any, key: str) -> Any:
    value = getattr(callback, key)
    # Keras negates it once, at the end of an epoch.
    value = abs(value) if key == "min_delta" else value
    return value if type(value) in PLAIN else float(value)


class CallbackCounters:
    """What the callbacks of one `fit` count.

    Args:
        callbacks: list of callbacks, in their order.
    """

    def __init__(self, callbacks: list[Any]) -> None:
        self.callbacks = callbacks
        self._begun: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Note what attributes are now that all callbacks have begun."""
        self._begun = [_attributes(one) for one in self.callbacks]

    def get_state(self) -> tuple[list[Any], list[Any]]:
        """Give a record for each callback that counts, for JSON, and the arrays of them all.

        Raises:
            TypeError: a callback's own `get_state` gives what cannot be kept.
        """
        records: list[Any] = []
        arrays: list[Any] = []
        begun = self._begun or [{} for _ in self.callbacks]
        for name, one, at in zip(names_of(self.callbacks), self.callbacks, begun, strict=True):
            try:
                state = encoded(_state_of(one, at), arrays)
            except TypeError as error:
                raise TypeError(
                    f"`get_state` of {name} must give a dict of numbers, texts, arrays, and lists "
                    f"and dicts of these. Received: {error}"
                ) from error
            if state != {"dict": []}:
                records.append([name, state])
        return records, arrays

    def paired(
        self, records: list[Any], arrays: list[Any], weights: list[Any]
    ) -> tuple[list[tuple[Any, dict[str, Any]]], list[str]]:
        """Give each callback with its state, and the names of those that have no partner here.

        Args:
            records: `get_state`'s.
            arrays: `get_state`'s.
            weights: the model's, which best weights must fit.

        Raises:
            ValueError: a record is none, or has what the callback of its name does not count.
        """
        known = dict(zip(names_of(self.callbacks), self.callbacks, strict=True))
        pairs, left = [], []
        for name, state in records:
            held = decoded(state, arrays)
            if not isinstance(name, str) or not isinstance(held, dict):
                raise ValueError(f"{str(name)[:80]} is no record of a callback")
            if name in known:
                _check(name, known[name], held, weights)
                pairs.append((known[name], held))
            else:
                left.append(name)
        return pairs, left

    def set_state(self, pairs: list[tuple[Any, dict[str, Any]]]) -> None:
        """Put back what `paired` gave; what an own hook did since `begin` is undone."""
        for one, at in zip(self.callbacks, self._begun, strict=True):
            if not _has_protocol(one):
                vars(one).update(_copied(_changed(one, at, gone=True)))
        for one, held in pairs:
            if _has_protocol(one):
                one.set_state(held)
            else:
                vars(one).update(held)


def tell_left_over(names: list[str], path: Any) -> None:
    """Warn of counters that nobody takes."""
    if names:
        warnings.warn(
            f"The backup {path} holds counters of {', '.join(names)}, which `callbacks` lack now: "
            "they are dropped. Callbacks are paired by class and what they monitor.",
            stacklevel=2,
        )


def _has_protocol(callback: Any) -> bool:
    return all(callable(getattr(callback, name, None)) for name in ("get_state", "set_state"))


def _state_of(callback: Any, begun: dict[str, Any]) -> Any:
    if _has_protocol(callback):
        return callback.get_state()
    return {**_counted_by_keras(callback), **_changed(callback, begun)}


def _counted_by_keras(callback: Any) -> dict[str, Any]:
    return {
        name: getattr(callback, name)
        for kind, names in counters_of_keras().items()
        if isinstance(callback, kind)
        for name in names
        if hasattr(callback, name)
    }


def _changed(callback: Any, begun: dict[str, Any], gone: bool = False) -> dict[str, Any]:
    """Give plain attributes that differ from those at the beginning, as now or, `gone`, as then."""
    now = _attributes(callback)
    changed = [name for name in now if name not in begun or not _same(now[name], begun[name])]
    source = begun if gone else now
    return {name: source[name] for name in changed if name in source}


def _attributes(callback: Any) -> dict[str, Any]:
    """Give copies of the plain attributes that are not Keras's own."""
    keras_names = _names_in_keras(callback.__class__)
    kept = {}
    for name, value in vars(callback).items():
        if name not in keras_names:
            arrays: list[Any] = []
            try:
                code = encoded(value, arrays)
            except (TypeError, RecursionError):
                continue
            is_large = sum(array.nbytes for array in arrays) > LARGE
            kept[name] = value if is_large else decoded(code, arrays)
    return kept


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    arrays: list[Any] = []
    return dict(decoded(encoded(state, arrays), arrays))


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    arrays: list[Any] = []
    others: list[Any] = []
    texts = [json.dumps(encoded(*pair)) for pair in ((one, arrays), (other, others))]
    return texts[0] == texts[1] and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(arrays, others, strict=True)
    )


@functools.cache
def _names_in_keras(kind: type) -> frozenset[str]:
    """Give all names that the code of a callback's Keras classes uses: settings among them."""
    codes = [
        code
        for base in kind.__mro__
        if base.__module__.split(".")[0] == "keras"
        for member in vars(base).values()
        for code in _codes(member)
    ]
    names: set[str] = set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return frozenset(names)


def _codes(member: Any) -> list[Any]:
    if isinstance(member, property):
        return [one.__code__ for one in (member.fget, member.fset) if one is not None]
    code = getattr(member, "__code__", None)
    return [] if code is None else [code]


def _check(name: str, callback: Any, held: dict[str, Any], weights: list[Any]) -> None:
    """Raise unless a state can be this callback's."""
    if any(not isinstance(key, str) for key in held):
        raise ValueError(f"the state of {name} has names that are no texts")
    if _has_protocol(callback):
        return
    counted = _counted_by_keras(callback)
    for key in counted.keys() & {"wait", "stopped_epoch", "cooldown_counter"} & held.keys():
        if type(held[key]) is not int:
            raise ValueError(f"{key} of {name} is {str(held[key])[:40]}, no whole number")
    if "best" in counted and not isinstance(held.get("best"), (type(None), int, float, np.generic)):
        raise ValueError(f"best of {name} is {str(held['best'])[:40]}, no number")
    best = held.get("best_weights")
    if "best_weights" in counted and best is not None:
        shapes = [tuple(weight.shape) for weight in weights]
        if [np.shape(one) for one in best] != shapes:
            raise ValueError(f"the best weights of {name} are those of another model")
