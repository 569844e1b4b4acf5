"""F_k∘G_k as a plain functional Keras model."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.network.door import input_of


def _features(stages: Sequence[Any], x: Any) -> list[Any]:
    """Give every stage's features; blocks are called, not stages, so that no energy is added."""
    features = []
    for stage in stages:
        for block in stage.blocks:
            x = block(x)
        features.append(x)
    return features


def truncated_model(
    stages: Sequence[Any],
    heads: Sequence[Any],
    input_shape: tuple[int | None, ...],
    name: str,
    data: str | None = None,
) -> keras.Model:
    """Give stages in a row and the last one's head as a functional model.

    Args:
        stages: built stages 1 to k.
        heads: built heads 1 to k.
        input_shape: shape of the data, batch axis included.
        name: str. The model's name.
        data: str or `None`. The input's name; `None` takes a declared one. Defaults to `None`.

    Returns:
        `keras.Model` that shares the layers and carries no energy loss.
    """
    inputs = input_of(stages[0].blocks, input_shape, data)
    return _named(keras.Model(inputs, heads[-1](_features(stages, inputs)[-1]), name=name))


def all_exits_model(
    stages: Sequence[Any],
    heads: Sequence[Any],
    input_shape: tuple[int | None, ...],
    name: str,
    data: str | None = None,
) -> keras.Model:
    """Give a functional model with every depth's prediction as a list of outputs."""
    inputs = input_of(stages[0].blocks, input_shape, data)
    # All depths in one pass: each stage runs once however many heads read it.
    features = _features(stages, inputs)
    outputs = [head(x) for head, x in zip(heads, features, strict=True)]
    return _named(keras.Model(inputs, outputs, name=name))


def _named(model: keras.Model) -> keras.Model:
    """Give a functional model that tells its input's name, which Keras itself does not."""
    model.input_names = [model.inputs[0].name]
    return model
