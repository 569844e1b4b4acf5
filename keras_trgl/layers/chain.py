"""Layers in a row: built, called and measured one after the other."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.types import Shape, Tensor


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
        if not layer.built:
            layer.build(shape)
        shape = tuple(layer.compute_output_shape(shape))
    return shape


def call_chain(layers: Sequence[keras.layers.Layer], x: Tensor) -> Tensor:
    """Call the layers in turn; `training` comes from the layer that calls."""
    for layer in layers:
        x = layer(x)
    return x


def chain_output_shape(layers: Sequence[keras.layers.Layer], shape: Shape) -> Shape:
    """Give the last layer's output shape; needs nothing built."""
    for layer in layers:
        shape = tuple(layer.compute_output_shape(shape))
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
