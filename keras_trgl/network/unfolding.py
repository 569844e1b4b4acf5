"""Blocks and heads in a functional model, layer by layer where all layers are Keras's own.

Such a model loads with Keras alone. A block with a layer of this package or of the user stays
whole, and so does one whose layers compute in another type than the block.
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.heads.head import Head
from keras_trgl.layers.residual_block import ResidualBlock
from keras_trgl.network.part import Part
from keras_trgl.network.several_inputs import SeveralInputs
from keras_trgl.types import Tensor


class Unfolding:
    """Calls blocks and heads in one functional model, under names that are all different.

    Args:
        taken: names of the model's layers so far.
    """

    def __init__(self, taken: Sequence[str]) -> None:
        self._called: dict[str, Any] = dict.fromkeys(taken)

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        """Give what a block or head gives, through its own layers if they are all Keras's.

        Args:
            layer: built block or head.
            x: symbolic tensor, `(batch, …)`.
        """
        if isinstance(layer, Part):
            return self._part(layer, x)
        # Not a subclass: what it computes is its own.
        if type(layer) is ResidualBlock and _unfolds(layer, _inner(layer)):
            return self._residual(layer, x)
        is_row = isinstance(layer, Head) and type(layer).call is Head.call
        if is_row and _unfolds(layer, layer.layers_in_a_row):
            return self._row(layer.layers_in_a_row, x)
        return self._call(layer, x)

    def _part(self, part: Part, x: Any) -> Any:
        """Call a part's own layers, as the user's model does."""
        stretch = part.stretch
        values = dict(zip(stretch.flat.inputs, stretch.taken(x), strict=True))
        for call in part.calls:
            args, kwargs = call.filled(values)
            values.update(call.entered(self._operation(call.operation, args, kwargs)))
        return stretch.left(values)

    def _operation(self, operation: Any, args: Any, kwargs: Any) -> Any:
        if self._called.setdefault(operation.name, operation) is operation:
            return operation(*args, **kwargs)
        # The name is taken, as by a layer of another nested model: a model of one call has another.
        symbolic = keras.utils.is_keras_tensor
        given = [one for one in keras.tree.flatten((args, kwargs)) if symbolic(one)]
        inner = [keras.Input(batch_shape=one.shape, dtype=one.dtype) for one in given]
        place = {id(one): put for one, put in zip(given, inner, strict=True)}
        args, kwargs = keras.tree.map_structure(lambda one: place.get(id(one), one), (args, kwargs))
        model = keras.Model(inner, operation(*args, **kwargs), name=self._free(operation.name))
        self._called[model.name] = model
        return model(given)

    def _residual(self, block: ResidualBlock, x: Tensor) -> Tensor:
        x = self._row(block.entry, x)
        residual = self._row(block.branch, x)
        shortcut = self._row(block.shortcut, x)
        dtype = block.dtype_policy
        add = keras.layers.Add(name=self._free(f"{block.name}_add"), dtype=dtype)
        merged = self._call(add, [shortcut, residual])
        if block.activation is None:
            return merged
        name = self._free(f"{block.name}_activation")
        return self._call(keras.layers.Activation(block.activation, name=name, dtype=dtype), merged)

    def _row(self, layers: Sequence[Any], x: Tensor) -> Tensor:
        for layer in layers:
            x = self._call(layer, x)
        return x

    def _call(self, layer: Any, x: Any) -> Tensor:
        known = self._called.setdefault(layer.name, layer)
        if known is not layer:
            # A layer keeps its name, by which its owner knows it: a row of one has another.
            row = keras.Sequential([layer], name=self._free(layer.name), trainable=layer.trainable)
            self._called[row.name] = row
            layer = row
        return layer(x)

    def _free(self, name: str) -> str:
        """Give the name, or the first of `name_1`, `name_2`, … that no layer has."""
        number, free = 0, name
        while free in self._called:
            number += 1
            free = f"{name}_{number}"
        return free


def as_model(layer: Any) -> Any:
    """Give a part of a user's model as a functional model of the same layers; others pass.

    Such a model has a configuration, and can be copied.

    Args:
        layer: layer, a `Part` or another.
    """
    if not isinstance(layer, Part):
        return layer
    x = SeveralInputs(layer.given).symbolic()
    names = [one.name for one in keras.tree.flatten(x)]
    return keras.Model(x, Unfolding(names)(layer, x), name=layer.name)


def _inner(block: ResidualBlock) -> list[Any]:
    return [*block.entry, *block.branch, *block.shortcut]


def _unfolds(layer: Any, inner: Sequence[Any]) -> bool:
    """Whether a block or head may be unfolded into its layers."""
    activation = getattr(layer, "activation", None)
    if activation is not None and not _is_stock(keras.activations.serialize(activation)):
        return False
    same_type = all(one.compute_dtype == layer.compute_dtype for one in inner)
    return same_type and all(is_stock(one) for one in inner)


def is_stock(layer: Any) -> bool:
    """Tell whether a layer, with all that its configuration names, comes with Keras."""
    try:
        return _is_stock(keras.saving.serialize_keras_object(layer))
    except (NotImplementedError, TypeError, ValueError):
        return False


def _is_stock(config: Any) -> bool:
    if isinstance(config, (list, tuple)):
        return all(_is_stock(one) for one in config)
    if not isinstance(config, dict):
        # A registered function is told by its name, `package>name`.
        return not (isinstance(config, str) and ">" in config)
    if "class_name" in config:
        home = str(config.get("module"))
        if config.get("registered_name") or not (home == "keras" or home.startswith("keras.")):
            return config["class_name"] in ("__tuple__", "__numpy__", "__tensor__")
    return all(_is_stock(value) for value in config.values())
