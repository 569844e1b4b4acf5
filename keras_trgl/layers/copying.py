"""Copies of layers that are recipes: made from the live object, not from its configuration.

A configuration speaks of registered classes only. The live object has everything: functions, own
initializers, vocabularies. So a copy gets what its original has, part by part: layers inside are
copied too, seed generators are made anew, and what has no state of its own is shared.
"""

import copy
import functools
import types
from typing import Any

import keras

from keras_trgl.layers.inner import config_of, inner_layers
from keras_trgl.recording import Arguments

_OF_ITSELF = {"name", "built", "_path", "_parent_path", "_called", "_lock", "_build_shapes_dict"}
"""Plain attributes that every Keras layer has and that tell of itself, not of its settings."""
_SETTINGS = (
    *(type(None), bool, int, float, str, tuple),
    *(keras.layers.InputSpec, keras.regularizers.Regularizer),
)
_STATEFUL = (keras.layers.Layer, keras.Variable, keras.random.SeedGenerator)


class _CannotCopyError(Exception):
    """Says what stands in the way."""


def copy_layer(layer: Any, name: str | None = None) -> Any:
    """Give an unbuilt copy of a layer, with the same settings and variables of its own.

    Args:
        layer: Keras layer, as a rule unbuilt. One with weights is made anew from its
            configuration; an adapted `Normalization` keeps what it learned.
        name: str. The copy's name. Defaults to `None`, the layer's own.

    Returns:
        The copy. Initial weights are drawn anew.

    Raises:
        ValueError: the layer holds something that the copy would share or lose.
    """
    name = layer.name if name is None else name
    try:
        made = _Copies().layer(layer, name)
        _check_same(layer, made)
    except _CannotCopyError as error:
        raise ValueError(
            "A layer that serves several places is copied for each. Received: "
            f"{layer.name} of type {type(layer).__name__}, which {error}. Give every place a "
            "layer of its own: a list of heads, or blocks made in a loop."
        ) from error
    return made


class _Copies:
    """The copies made so far, so that what occurs twice inside a layer is copied once."""

    def __init__(self) -> None:
        # The originals are kept too, so that no other object gets their identity meanwhile.
        self._made: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any) -> Any:
        """Give the copy of anything, or the thing itself where it has no state."""
        if id(value) in self._made:
            return self._made[id(value)][1]
        if isinstance(value, keras.layers.Layer):
            return self.layer(value, value.name)
        made = self._copied(value)
        self._made[id(value)] = (value, made)
        return made

    def layer(self, layer: Any, name: str) -> Any:
        """Give the copy of a layer."""
        made = self._layer(layer, name)
        self._made[id(layer)] = (layer, made)
        return made

    def _layer(self, layer: Any, name: str) -> Any:
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            return _adapted(layer, name)
        if type(layer) is keras.Sequential or _is_functional(layer):
            # Keras calls `clone_function` for what stands in the model, not for the model.
            made = keras.models.clone_model(layer, clone_function=self.of)
            made.name = name
            return made
        if layer.weights and not _is_rebuilt(layer):
            return _made_anew(layer, name, "has weights already")
        try:
            return self._part_by_part(layer, name)
        except _CannotCopyError as error:
            return _made_anew(layer, name, str(error))

    def _part_by_part(self, layer: Any, name: str) -> Any:
        kind: Any = type(layer)
        try:
            made = kind.__new__(kind)
        except TypeError as error:
            raise _CannotCopyError(f"has a `__new__` that takes arguments ({error})") from error
        if isinstance(layer, keras.Sequential):
            keras.Sequential.__init__(made, name=name, trainable=layer.trainable)
        else:
            base: Any = keras.Model if isinstance(layer, keras.Model) else keras.layers.Layer
            base.__init__(made, name=name, dtype=layer.dtype_policy, trainable=layer.trainable)
        self._made[id(layer)] = (layer, made)
        known = set(vars(made))
        for key, value in list(vars(layer).items()):
            # TensorFlow keeps its books of dependencies by itself, under names of this kind.
            if key.startswith("_self"):
                continue
            if key not in known:
                setattr(made, key, None if layer.built and _is_state(value) else self.of(value))
            elif key == "_auto_config" or (isinstance(value, _SETTINGS) and key not in _OF_ITSELF):
                setattr(made, key, value)
        for inner in layer.layers if isinstance(layer, keras.Sequential) else ():
            made.add(self.of(inner))
        # Layers without weights are built from the start.
        made.built = layer.built and not layer.weights
        return made

    def _copied(self, value: Any) -> Any:
        if isinstance(value, keras.random.SeedGenerator):
            return type(value).from_config(value.get_config())
        if isinstance(value, keras.Variable):
            raise _CannotCopyError(f"holds the variable {value.name}")
        if isinstance(value, keras.initializers.Initializer):
            return self._initializer(value)
        if isinstance(value, keras.metrics.Metric):
            return copy.deepcopy(value)
        if isinstance(value, Arguments):
            return value.mapped(self.of)
        if isinstance(value, dict):
            return {key: self.of(one) for key, one in value.items()}
        if isinstance(value, tuple):
            parts = [self.of(one) for one in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if isinstance(value, list):
            return [self.of(one) for one in value]
        if isinstance(value, functools.partial):
            names = {key: self.of(one) for key, one in value.keywords.items()}
            return functools.partial(self.of(value.func), *map(self.of, value.args), **names)
        if isinstance(value, types.MethodType) and isinstance(value.__self__, _STATEFUL):
            return types.MethodType(value.__func__, self.of(value.__self__))
        _check_stateless(value)
        return value

    def _initializer(self, initializer: Any) -> Any:
        # A configuration may leave out what a user's initializer was given.
        made = copy.copy(initializer)
        for key, value in vars(initializer).items():
            setattr(made, key, self.of(value))
        return made


def _is_functional(layer: Any) -> bool:
    """Say whether a layer is a functional model, and of no class that adds to one."""
    if not isinstance(layer, keras.Model) or not getattr(layer, "inputs", None):
        return False
    return type(layer) is type(keras.Model(layer.inputs, layer.outputs))


def _is_rebuilt(layer: Any) -> bool:
    """Say whether all weights of a built layer are made by its `build`, and only there."""
    whole = layer.built and type(layer).__module__.startswith("keras.")
    return whole and not any(inner.weights for inner in inner_layers(layer))


def _is_state(value: Any) -> bool:
    held = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(one, keras.Variable) for one in held)


def _adapted(layer: Any, name: str) -> Any:
    made = type(layer).from_config({**layer.get_config(), "name": name})
    if not made.built:
        made.build_from_config(layer.get_build_config())
    made.set_weights(layer.get_weights())
    made.finalize_state()
    return made


def _made_anew(layer: Any, name: str, reason: str) -> Any:
    """Give a layer made from the configuration, where the live object cannot be copied."""
    config = config_of(layer) or {}
    own = {key: one for key, one in config.items() if key not in ("name", "trainable", "dtype")}
    failed: list[str] = []
    # Keras's own entries are no arguments of a class without **kwargs.
    for entries in (config, own):
        try:
            made = type(layer).from_config(entries)
        except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
            failed.append(" ".join(str(error).split()))
            continue
        made.name = name
        return made
    raise _CannotCopyError(
        f"{reason}, and cannot be made anew from its configuration ({failed[-1][:100]})"
    )


def _check_stateless(value: Any) -> None:
    """Raise if a function or a plain object holds something that two copies must not share."""
    if isinstance(value, types.FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or () if _is_set(cell)]
        what = f"the function {value.__name__}"
    elif isinstance(value, (type, types.ModuleType)) or not hasattr(value, "__dict__"):
        return
    else:
        held, what = list(vars(value).values()), f"a {type(value).__name__}"
    for one in keras.tree.flatten(held):
        if isinstance(one, _STATEFUL):
            raise _CannotCopyError(
                f"holds {what} that refers to {getattr(one, 'name', type(one).__name__)}"
            )


def _is_set(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _check_same(layer: Any, made: Any) -> None:
    """Raise if the copy's settings are others, as far as the layer tells them."""
    # A graph's configuration is full of names; Keras's own copy of it needs no check.
    wanted = None if _is_functional(layer) else config_of(layer)
    if wanted is not None and _nameless(config_of(made)) != _nameless(wanted):
        raise _CannotCopyError("has settings that did not pass to its copy")


def _nameless(config: Any) -> Any:
    if isinstance(config, dict):
        left_out = ("name", "build_config", "shared_object_id")
        return {key: _nameless(one) for key, one in config.items() if key not in left_out}
    if isinstance(config, (list, tuple)):
        return [_nameless(one) for one in config]
    return config
