"""The stages and heads that an export takes from a model, with variables in the ordinary place."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.layers.chain import main_shape
from keras_trgl.layers.copying import copy_layer
from keras_trgl.layers.stage import Stage
from keras_trgl.network.unfolding import as_model

HALF = {"float16", "bfloat16"}


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


def live_parts(model: Any, depth: int) -> tuple[list[Stage], list[Any], Any]:
    """Give the model's own stages 1…k, as many heads, and the shape of its data.

    Batches on their way to later stages are let through first.
    """
    model.drain()
    return list(model.stages[:depth]), list(model.heads[:depth]), model.input_shape


def unplaced(
    stages: list[Stage], heads: list[Any], input_shape: Any
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
    return _copies(stages, heads, input_shape, copy_layer)


def in_float32(
    stages: list[Stage], heads: list[Any], input_shape: Any
) -> tuple[list[Stage], list[Any]]:
    """Give stages and heads that compute in float32, with the same weights.

    If none computes in a half type, the very same ones; else copies, made from configurations
    whose half types are float32: converters know no operations of half types, or end the process
    over them.

    Args:
        stages: built stages.
        heads: built heads, as many.
        input_shape: shape of the data, batch axis included.
    """
    layers = [layer for stage in stages for layer in stage.blocks] + list(heads)
    if not any(name in HALF for layer in layers for name in compute_types(layer)):
        return stages, heads
    policy = keras.config.dtype_policy()
    # What a layer makes without a type of its own takes the global one.
    keras.config.set_dtype_policy("float32")
    try:
        return _copies(stages, heads, input_shape, _float32_copy)
    finally:
        keras.config.set_dtype_policy(policy)


def compute_types(layer: Any) -> set[str]:
    """Give the names of the types that a layer and the layers in its configuration compute in."""
    layer = as_model(layer)
    found = {str(layer.compute_dtype), str(layer.variable_dtype)}
    try:
        todo: list[Any] = [layer.get_config()]
    except NotImplementedError:
        todo = []
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            found |= _policy_types(one.get("dtype"))
            todo += one.values()
        elif isinstance(one, (list, tuple)):
            todo += one
    return found


def _is_plain(value: Any, device: str) -> bool:
    return not isinstance(value, tf.distribute.DistributedValues) and value.device == device


def _copies(
    stages: list[Stage], heads: list[Any], input_shape: Any, copy: Callable[[Any], Any]
) -> tuple[list[Stage], list[Any]]:
    """Give built copies of stages and heads with the same weights."""
    # A part of a user's model has no configuration of its own; as a model it has.
    stages = [Stage([as_model(block) for block in one.blocks], name=one.name) for one in stages]
    heads = list(map(as_model, heads))
    own_stages, own_heads, shape = [], [], input_shape
    for stage, head in zip(stages, heads, strict=True):
        own = Stage([copy(block) for block in stage.blocks], name=stage.name)
        own.build(shape)
        shape = own.compute_output_shape(shape)
        own_heads.append(copy(head))
        if not own_heads[-1].built:
            own_heads[-1].build(main_shape(shape))
        own_stages.append(own)
    layers = [layer for stage in stages for layer in stage.blocks] + list(heads)
    copies = [layer for stage in own_stages for layer in stage.blocks] + own_heads
    # Layer by layer: by path would fail, as paths differ between a model and its copy.
    for own_layer, layer in zip(copies, layers, strict=True):
        for new, old in zip(own_layer.weights, layer.weights, strict=True):
            new.assign(tf.cast(old.value, new.dtype).numpy())
    return own_stages, own_heads


def _float32_copy(layer: Any) -> Any:
    return type(layer).from_config(_without_half(layer.get_config()))


def _without_half(config: Any) -> Any:
    """Give a configuration whose types are float32 where they compute in a half type."""
    if isinstance(config, (list, tuple)):
        return type(config)(_without_half(one) for one in config)
    if not isinstance(config, dict):
        return config
    found = {name: _without_half(value) for name, value in config.items()}
    if _policy_types(config.get("dtype")) & HALF:
        found["dtype"] = "float32"
    return found


def _policy_types(dtype: Any) -> set[str]:
    """Give the types behind an entry `dtype` of a configuration, if it tells any."""
    if dtype is None:
        return set()
    try:
        policy = keras.dtype_policies.get(dtype)
    except (TypeError, ValueError):
        return set()
    return {str(policy.compute_dtype), str(policy.variable_dtype)}
