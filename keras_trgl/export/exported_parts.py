"""The stages and heads that an export takes from a model, with variables in the ordinary place."""

from typing import Any

import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.layers.stage import Stage
from keras_trgl.types import Shape


def check_model(model: Any) -> None:
    """Raise unless `model` is a built network of stages and heads.

    Raises:
        TypeError: something else.
        ValueError: it is not built.
    """
    if not isinstance(model, GreedyModel):
        raise TypeError(
            f"`model` must be a `GreedyModel`. Received: {model!r}. Other Keras models have "
            "`model.export`."
        )
    if not model.built:
        raise ValueError(
            "`model` must be built before it is exported. Received: an unbuilt model. Call it on "
            "data or `model.build(input_shape)` first."
        )


def check_depth(model: Any, depth: Any) -> int:
    """Give the depth, or raise unless it is one of 1…K.

    Raises:
        TypeError: it is no int.
        ValueError: it is another number.
    """
    check_integer("depth", depth, 1, f"Depths count from 1 to {model.num_stages}.")
    if depth > model.num_stages:
        raise ValueError(
            f"A depth must be 1 to {model.num_stages}, the number of stages. Received: {depth}."
        )
    return int(depth)


def live_parts(model: Any, depth: int) -> tuple[list[Stage], list[Any], Shape]:
    """Give the model's own stages 1…k, as many heads, and the shape of its data.

    Batches on their way to later stages are let through first.
    """
    model.drain()
    return list(model.stages[:depth]), list(model.heads[:depth]), tuple(model.input_shape)


def unplaced(
    stages: list[Stage], heads: list[Any], input_shape: Shape
) -> tuple[list[Stage], list[Any]]:
    """Give stages and heads whose variables are plain and lie where new ones would be made.

    If all are, the very same ones; else copies, made from configurations, with the weights. So
    no device, and nothing of a strategy, gets into what is exported.

    Args:
        stages: built stages.
        heads: built heads, as many.
        input_shape: shape of the data, batch axis included.

    Raises:
        ValueError: inside a strategy's scope, where a copy would be placed too.
    """
    if tf.distribute.has_strategy():
        raise ValueError(
            "A model is exported outside the scope of a strategy, so that no place of training "
            "gets into the export. Received: a call in such a scope. Export after it."
        )
    layers = [layer for stage in stages for layer in stage.blocks] + list(heads)
    # The device in force has no public name; a new variable tells it.
    here = tf.Variable(0.0, trainable=False).device
    if all(_is_plain(variable.value, here) for layer in layers for variable in layer.variables):
        return stages, heads
    own_stages, own_heads, shape = [], [], input_shape
    for stage, head in zip(stages, heads, strict=True):
        own = Stage([_copy(block) for block in stage.blocks], name=stage.name)
        own.build(shape)
        shape = tuple(own.compute_output_shape(shape))
        own_heads.append(_copy(head))
        if not own_heads[-1].built:
            own_heads[-1].build(shape)
        own_stages.append(own)
    # Layer by layer: by path would fail, as paths differ between a model and its copy.
    copies = [layer for stage in own_stages for layer in stage.blocks] + own_heads
    for copy, layer in zip(copies, layers, strict=True):
        for new, old in zip(copy.weights, layer.weights, strict=True):
            new.assign(old.numpy())
    return own_stages, own_heads


def _is_plain(value: Any, device: str) -> bool:
    return not isinstance(value, tf.distribute.DistributedValues) and value.device == device


def _copy(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())
