"""What an object was made with: recorded for saving, and shown by `repr`.

A class that writes `get_config` says itself how it is made again. One that has an `__init__` but no
`get_config` of its own would get an inherited one, which knows nothing of its arguments, and they
would be lost in silence. Such a class is recorded: its arguments are kept as they were passed.
"""

import functools
import inspect
import itertools
import re
import reprlib
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

PLAIN = (bool, int, float, str, type(None))
NUMPY_KINDS = "biufU"
"""Arrays that a configuration can hold exactly: of booleans, integers, floats and texts."""

UNKNOWN = re.compile(r"Could not (?:locate|deserialize) (?:\w+ )?'([^']+)'")
"""How Keras says that a saved class is not known."""

LAYER_ENTRIES = ("name", "trainable", "dtype", "activity_regularizer")
"""What every Keras layer records of itself, whether its `__init__` takes them or not."""

_installed: "weakref.WeakSet[type]" = weakref.WeakSet()


class Recorded:
    """Base of classes that users extend: a member without `get_config` keeps its arguments.

    A member's `__init__` counts as recorded when no `get_config` comes with it or after it, a
    mixin's or a dataclass's too. Arguments are those that were passed, by name; defaults are left
    out. Lists, dicts and arrays are copied when the object is made; Keras objects are asked for
    their configuration when it is saved. `get_config` raises `NotImplementedError`, as a layer of
    Keras does, for what cannot be recorded.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make the object, of a class that records its arguments where it must."""
        # Here, not when the class is made: a dataclass gets its `__init__` after that.
        for one in reversed(cls.__mro__):
            if issubclass(one, Recorded) and one not in {Recorded, Settled, *_installed}:
                _installed.add(one)
                _install(one)
        make: Any = super().__new__
        return make(cls) if make is object.__new__ else make(cls, *args, **kwargs)

    def __repr__(self) -> str:
        return shown(self)


class Settled(Recorded):
    """Base of settings that a model reads when it is made and when its steps are traced.

    Once a model has one, its arguments cannot be set: what was traced would not follow, while
    `repr` and a saved model would tell the new value.
    """

    def settle(self) -> None:
        """Say that a model has it."""
        vars(self)["_settled"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if vars(self).get("_settled") and name in inspect.signature(type(self)).parameters:
            raise AttributeError(
                f"`{name}` is settled once a model has this {type(self).__name__}. Received: "
                f"{name}={value!r}. Make another model with "
                f"`{type(self).__name__}({name}={value!r})`."
            )
        super().__setattr__(name, value)


class Arguments:
    """The arguments of one object, by the class whose `__init__` took them.

    An object of its own kind, since Keras's saving looks for layers inside lists and dicts.
    """

    def __init__(self) -> None:
        self.of: dict[type, dict[str, Any]] = {}

    def mapped(self, change: Callable[[Any], Any]) -> "Arguments":
        """Give the arguments of a copy, whose parts are copies too.

        Args:
            change: function of an argument that gives the copy's.
        """
        made = Arguments()
        for cls, given in self.of.items():
            made.of[cls] = {name: change(value) for name, value in given.items()}
        return made


def _place(cls: type, name: str) -> int:
    """Give the place in the order of bases of the class that defines `name`."""
    return next(k for k, one in enumerate(cls.__mro__) if name in vars(one))


def _install(cls: Any) -> None:
    """Let a class record its arguments, unless it says itself how it is made again."""
    init, config = _place(cls, "__init__"), _place(cls, "get_config")
    # A `get_config` from outside this family is a mixin's of the user's own.
    if init >= config or not issubclass(cls.__mro__[config], Recorded):
        return
    made: dict[str, Any] = {
        "__init__": _recording(cls, cls.__init__),
        "get_config": functools.partialmethod(_recorded_config, cls),
    }
    if init < _place(cls, "from_config"):
        made["from_config"] = classmethod(_made_again)
    for name, value in made.items():
        setattr(cls, name, value)


def _recording(cls: type, init: Callable[..., None]) -> Callable[..., None]:
    """Give an `__init__` that keeps its arguments before it does what it did."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            bound = None  # The call itself says what does not fit.
        if bound is not None:
            # Past `__setattr__`: Keras would track layers among the arguments.
            kept = vars(self).setdefault("_recorded", Arguments())
            kept.of[cls] = _by_name(signature, bound)
        init(self, *args, **kwargs)

    # Keras reads it without following wrappers.
    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def _by_name(signature: inspect.Signature, bound: inspect.BoundArguments) -> dict[str, Any]:
    given = {name: _copied(value) for name, value in list(bound.arguments.items())[1:]}
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return given


def _copied(value: Any) -> Any:
    """Give a copy of lists, dicts and arrays, which may change later."""
    # Keras's layers hand out lists and dicts of their own kind.
    if isinstance(value, list):
        return [_copied(one) for one in value]
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if type(value) is tuple:
        return tuple(_copied(one) for one in value)
    return value.copy() if isinstance(value, np.ndarray) else value


def _recorded_config(self: Any, cls: type) -> dict[str, Any]:
    """Give the configuration: the arguments that `cls` was given."""
    given = _given(self, cls)
    own = keras.layers.Layer.get_config(self) if isinstance(self, keras.layers.Layer) else {}
    # The name, type and trainability of now, as Keras has them.
    config = {name: value for name, value in given.items() if name not in own}
    return {name: _plain(cls, name, value) for name, value in config.items()} | own


def _given(one: Any, cls: type) -> dict[str, Any]:
    kept = vars(one).get("_recorded")
    return kept.of.get(cls, {}) if kept else {}


def _plain(cls: type, name: str, value: Any) -> Any:
    """Give an argument as a configuration holds it.

    Raises:
        NotImplementedError: it cannot be held.
    """

    def walk(value: Any) -> Any:
        if type(value) in PLAIN:
            return value
        if isinstance(value, list):
            return [walk(one) for one in value]
        if type(value) is tuple:
            return {"class_name": "__tuple__", "config": {"value": [walk(one) for one in value]}}
        if isinstance(value, dict):
            if not all(type(key) is str for key in value):
                raise _Unrecordable("a dict whose keys are not all texts")
            if {"class_name", "config"} <= set(value):
                raise _Unrecordable("a dict that looks like a configuration of an object")
            return {key: walk(one) for key, one in value.items()}
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in NUMPY_KINDS:
            config = {"value": value.tolist(), "dtype": value.dtype.str}
            return {"class_name": "__numpy__", "config": config}
        return _configured(value)

    try:
        return walk(value)
    except _Unrecordable as reason:
        raise NotImplementedError(
            f"`{cls.__name__}` keeps its arguments for saving, and cannot keep `{name}`: {reason}. "
            f"Received: {name}={short(value)}. Write `get_config` in `{cls.__name__}`, and "
            "`from_config` where its entries are not the arguments themselves."
        ) from reason.__cause__


class _Unrecordable(Exception):
    """What stands in a configuration's way."""


def _configured(value: Any) -> Any:
    """Give the configuration of a Keras object, or of a function, that can be found again.

    Raises:
        _Unrecordable: it cannot.
    """
    is_function = isinstance(value, types.FunctionType)
    if isinstance(value, type) or not (is_function or hasattr(value, "get_config")):
        raise _Unrecordable("neither plain values nor a Keras object")
    if is_function and value.__name__ == "<lambda>":
        # Keras writes its code, which only `safe_mode=False` reads.
        raise _Unrecordable("a lambda, which has no name to be found by")
    try:
        config = keras.saving.serialize_keras_object(value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _Unrecordable(f"it does not give its configuration ({error})") from error
    if _found(config, is_function) is not (value if is_function else type(value)):
        raise _Unrecordable(
            "it is not registered by `keras.saving.register_keras_serializable`, so it would not "
            "be found again"
        )
    return config


def _found(config: dict[str, Any], is_function: bool) -> Any:
    """Give the class or function that loading would take, or `None`."""
    if is_function:
        # By the whole way: Keras takes a function of its own that has the same name.
        try:
            return keras.saving.deserialize_keras_object(config)
        except (TypeError, ValueError):
            return None
    if config["registered_name"] is not None:
        return keras.saving.get_registered_object(config["registered_name"])
    found: Any = keras
    for name in [*str(config["module"]).split(".")[1:], config["class_name"]]:
        found = getattr(found, name, None)
    return found


def made_from(config: Any, custom_objects: Any = None) -> Any:
    """Make what a file tells of, as Keras does, and say in a sentence which class is not known.

    Args:
        config: configuration that `keras.saving.serialize_keras_object` gave.
        custom_objects: dict of names to classes or functions, or `None`. Defaults to `None`.

    Raises:
        ValueError: a class or function of it is not registered.
    """
    try:
        return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
    except (TypeError, ValueError) as error:
        key = unknown_class(error)
        if key is None:
            raise
        name = key.rpartition(">")[2]
        raise ValueError(
            f"Every class of a saved model must be known. Received: `{name}`, which no module "
            "imported so far registers with `keras.saving.register_keras_serializable`. Import "
            f"its module first, or pass `custom_objects={{'{key}': {name}}}`."
        ) from None


def unknown_class(error: Exception) -> str | None:
    """Give the class or function that Keras did not find in loading, as a file names it.

    Args:
        error: what Keras raised. Its message has the whole configuration, once at every level.
    """
    unknown = UNKNOWN.search(str(error))
    if unknown is None:
        return None
    registered = re.search(rf"'([^']*>{re.escape(unknown[1])})'", unknown.string)
    return registered[1] if registered else unknown[1]


def _restored(value: Any) -> Any:
    """Give an argument back from what a configuration holds."""
    if isinstance(value, (list, tuple)):
        return type(value)(_restored(one) for one in value)
    if not isinstance(value, dict):
        return value
    if not {"class_name", "config"} <= set(value):
        return {key: _restored(one) for key, one in value.items()}
    if value["class_name"] == "__tuple__":
        return tuple(_restored(one) for one in value["config"]["value"])
    if value["class_name"] == "__numpy__":
        # An empty index makes a number of an array without axes.
        return np.array(value["config"]["value"], value["config"]["dtype"])[()]
    return keras.saving.deserialize_keras_object(value)


def _made_again(cls: Any, config: dict[str, Any]) -> Any:
    """Make the object from `get_config`'s result."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    named = {one.name for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD}
    values = {name: _restored(value) for name, value in config.items()}
    after = {}
    if issubclass(cls, keras.layers.Layer):
        if type(values.get("dtype")) is keras.DTypePolicy:
            values["dtype"] = values["dtype"].name  # As Keras hands it to its own layers.
        others = () if takes_any else LAYER_ENTRIES
        after = {name: values.pop(name) for name in others if name in values.keys() - named}
    bound = inspect.BoundArguments(
        inspect.Signature([one for one in parameters if one.name in named]),
        {name: value for name, value in values.items() if name in named},  # type: ignore[arg-type]
    )
    rest = {name: value for name, value in values.items() if name not in named}
    made = cls(*bound.args, **bound.kwargs, **rest)
    for name, value in after.items():
        setattr(made, "dtype_policy" if name == "dtype" else name, value)
    return made


class Words:
    """A text that `repr` shows without quotes.

    Args:
        text: str.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def row_of(things: Sequence[Any]) -> Words:
    """Give the kinds of things in a row, equal neighbours counted: `[2 × Dense, ReLU]`."""
    groups = [(kind, len(list(many))) for kind, many in itertools.groupby(map(_kind, things))]
    named = [kind if count == 1 else f"{count} × {kind}" for kind, count in groups]
    cut = [*named[:8], "…"] if len(named) > 8 else named
    return Words(f"[{', '.join(cut)}]")


def _kind(thing: Any) -> str:
    return type(thing).__name__


class _Repr(reprlib.Repr):
    """Short texts of values: no addresses, and of long rows the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.maxother, self.maxstring = 100, 60
        self.maxlist = self.maxtuple = self.maxdict = 8

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, (list, tuple)) and x and all(isinstance(one, _KERAS) for one in x):
            return repr(row_of(x))
        if isinstance(x, list):
            return self.repr_list(x, level)
        if isinstance(x, np.ndarray):
            return f"array of shape {x.shape}"
        if isinstance(x, types.FunctionType | type):
            return str(x.__qualname__)
        if isinstance(x, _KERAS):
            return _kind(x)
        text = super().repr1(x, level)
        return f"{_kind(x)}(…)" if " at 0x" in text else text


_KERAS = (
    keras.layers.Layer,
    keras.initializers.Initializer,
    keras.optimizers.Optimizer,
    keras.losses.Loss,
)
"""Shown by their class alone: their own texts are long, or tell an address."""

short = _Repr().repr
"""Gives a short text of a value, without addresses in memory."""


def shown(one: Any, **values: Any) -> str:
    """Give an object as its call: `TRGL(tau=0.5)`.

    Args:
        one: the object.
        **values: what to show, by name. Without any, the arguments of its class that are not
            defaults, as the object has them now.

    Returns:
        str. Long values are cut.
    """
    inner = ", ".join(f"{name}={short(value)}" for name, value in (values or told(one)).items())
    return f"{_kind(one)}({inner})"


def told(one: Any) -> dict[str, Any]:
    """Give the arguments of an object that differ from their defaults, and a layer's name.

    The class's `always_shown` names those that are given in any case.
    """
    cls, held = type(one), vars(one)
    if cls in getattr(held.get("_recorded"), "of", {}):
        given = dict(_given(one, cls))
    else:
        always = getattr(cls, "always_shown", ())
        parameters = inspect.signature(cls.__init__).parameters
        given = {name: getattr(one, name, None) for name in always}
        given |= {
            name: held[name]
            for name, parameter in parameters.items()
            if name in held and name not in given and not _same(held[name], parameter.default)
        }
    if isinstance(one, keras.layers.Layer):
        given["name"] = held.get("name")
    return given


def _same(value: Any, default: Any) -> bool:
    if default is None and isinstance(value, list):
        return not value
    return value is default or (type(value) in PLAIN and value == default)
