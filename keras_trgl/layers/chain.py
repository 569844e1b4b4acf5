"""Layers in a row: built, called and measured one after the other."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.layers.copying import copy_layer
from keras_trgl.layers.inner import inner_layers
from keras_trgl.types import PassesSeveral, Shape, Tensor


def as_layers(name: str, layers: Any) -> list[keras.layers.Layer]:
    """Give `layers` as a list, whether it came as none, one or several.

    Raises:
        TypeError: an entry is no Keras layer.
    """
    if layers is None:
        return []
    listed = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    for layer in listed:
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                f"`{name}` must be a Keras layer or a list of them. Received: {layer!r}."
            )
    return listed


def build_chain(layers: Sequence[keras.layers.Layer], shape: Shape) -> Shape:
    """Build every layer that is not built yet, and give the last one's output shape."""
    for layer in layers:
        # When a file is loaded Keras builds inner layers before the one that holds them.
        build_layer(layer, shape)
        shape = output_shape(layer, shape)
    return shape


def build_layer(layer: Any, shape: Shape) -> None:
    """Build a layer as Keras does on the first call, unless it is built.

    Args:
        layer: Keras layer. One without `build`, or whose `build` leaves layers inside it
            unbuilt, is called on a symbolic tensor.
        shape: shape of its input, batch axis included.
    """
    if layer.built:
        return
    if _builds(layer):
        layer.build(shape)
    if _has_unbuilt(layer) and not isinstance(layer, keras.Sequential):
        layer(_symbolic(layer, shape))
    if _has_unbuilt(layer):
        # A layer that tells its output's shape is not traced by a symbolic call.
        keras.Operation.compute_output_spec(layer, _symbolic(layer, shape))
    if not layer.built:
        layer.build(shape)


def _builds(layer: Any) -> bool:
    return type(layer).build not in (keras.layers.Layer.build, keras.Model.build)


def _has_unbuilt(layer: Any) -> bool:
    return any(_builds(inner) and not inner.built for inner in inner_layers(layer))


def output_shape(layer: Any, shape: Shape) -> Shape:
    """Give the shape of a layer's output; builds nothing.

    Args:
        layer: Keras layer. One without `compute_output_shape` is traced on a symbolic tensor, as
            Keras does; where it is not built, a copy is.
        shape: shape of its input, batch axis included.

    Raises:
        ValueError: the layer neither tells the shape nor can be copied.
    """
    try:
        return tuple(layer.compute_output_shape(shape))
    except NotImplementedError:
        pass
    asked = layer
    if not layer.built or _has_unbuilt(layer):
        try:
            asked = copy_layer(layer)
        except ValueError as error:
            raise ValueError(
                f"The shape that {layer.name} gives must be known before it is built. Received: a "
                f"{type(layer).__name__} without `compute_output_shape`, and no copy to ask: "
                f"{error.__cause__}. Define `compute_output_shape(self, input_shape)`."
            ) from error
        build_layer(asked, shape)
    return tuple(asked.compute_output_spec(_symbolic(asked, shape)).shape)


def passes_several(layer: Any) -> bool:
    """Tell whether a layer takes, or gives, several tensors."""
    return isinstance(layer, PassesSeveral) and layer.passes_several


def as_shapes(shapes: Any) -> Any:
    """Give a shape, or a structure of shapes, as no list at its top: files have lists."""
    return tuple(shapes) if isinstance(shapes, list) else shapes


def flat_shapes(shapes: Any) -> list[Shape]:
    """Give the shapes in a structure of them, in the order in which Keras takes tensors.

    Args:
        shapes: shape, or list, tuple or dict of shapes.
    """
    if isinstance(shapes, dict):
        shapes = [shapes[key] for key in sorted(shapes)]
    elif not shapes or not isinstance(shapes[0], (tuple, list, dict)):
        return [tuple(shapes)]
    return [one for inner in shapes for one in flat_shapes(inner)]


def main_shape(shapes: Any) -> Shape:
    """Give the first shape of a structure of them, the one that heads see."""
    return flat_shapes(shapes)[0]


def _symbolic(layer: Any, shape: Shape) -> keras.KerasTensor:
    """Give a symbolic input of the type that a layer takes, as far as it tells."""
    return keras.KerasTensor(shape, dtype=layer.input_dtype or keras.config.floatx())


def call_chain(layers: Sequence[keras.layers.Layer], x: Tensor) -> Tensor:
    """Call the layers in turn; `training` comes from the layer that calls."""
    for layer in layers:
        x = layer(x)
    return x


def chain_output_shape(layers: Sequence[keras.layers.Layer], shape: Shape) -> Shape:
    """Give the last layer's output shape; needs nothing built."""
    for layer in layers:
        shape = output_shape(layer, shape)
    return shape


def serialize_chain(layers: Sequence[keras.layers.Layer]) -> list[dict[str, Any]]:
    """Give the layers' configurations."""
    return [keras.saving.serialize_keras_object(layer) for layer in layers]


def deserialize_chain(configs: Sequence[Any]) -> list[keras.layers.Layer]:
    """Make the layers from their configurations."""
    return [
        config
        if isinstance(config, keras.layers.Layer)
        else keras.saving.deserialize_keras_object(config)
        for config in configs
    ]
