"""Heads that a method brings for the stages below the last: by name, or a layer to copy."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_trgl.layers.chain import output_shape
from keras_trgl.layers.copying import copy_layer
from keras_trgl.types import StagePlace

Makers = Mapping[str, Callable[[int], Any]]
"""Names of heads, each with a function from a number of units to the unbuilt head."""


def check_head(head: Any, names: Makers) -> None:
    """Raise unless `head` is one of the names, or an unbuilt layer.

    Raises:
        TypeError: it is neither.
        ValueError: it is another name, or a layer that has weights.
    """
    allowed = ", ".join(repr(name) for name in names)
    if isinstance(head, str):
        if head not in names:
            raise ValueError(
                f"`head` must be one of {allowed}, or an unbuilt layer. Received: head={head!r}."
            )
    elif not isinstance(head, keras.layers.Layer):
        raise TypeError(
            f"`head` must be one of {allowed}, or an unbuilt layer. Received: head={head!r}."
        )
    elif head.built and head.weights:
        raise ValueError(
            f"`head` is copied for every stage below the last, so it must not be built. Received: "
            f"{head.name}, which has weights. Give an unbuilt one."
        )


def head_units(stage: StagePlace, method: Any, head: Any) -> int:
    """Give the number of units of the head that was given.

    Raises:
        ValueError: it has none.
    """
    if stage.units is None:
        raise ValueError(
            f"{type(method).__name__} makes stage {stage.depth} a head with as many units as the "
            f"head that is given. Received: {head.name} of type {type(head).__name__}, which has "
            "no `units`. Give one that has, such as `heads.LinearHead(10)`."
        )
    return stage.units


def make_head(wanted: Any, names: Makers, stage: StagePlace, method: Any, given: Any) -> Any:
    """Give a stage below the last its head.

    Args:
        wanted: name, or unbuilt layer to copy.
        names: what the names mean.
        stage: `StagePlace`, where the stage stands.
        method: the method that asks.
        given: the head that was given.

    Raises:
        ValueError: the given head has no `units`, or the copied one gives no `(batch, units)`.
    """
    if isinstance(wanted, str):
        return names[wanted](head_units(stage, method, given))
    head = copy_layer(wanted, f"{wanted.name}_{stage.depth}")
    shape = output_shape(head, stage.feature_shape)
    if len(shape) != 2:
        raise ValueError(
            f"`head` of {type(method).__name__} must give (batch, units). Received, at stage "
            f"{stage.depth}: {wanted.name}, which gives {shape} for features "
            f"{stage.feature_shape}. Flatten or pool in it, as `heads.LinearHead` does."
        )
    return head


def head_config(head: Any) -> Any:
    """Give what a configuration holds of a head."""
    return head if isinstance(head, str) else keras.saving.serialize_keras_object(head)


def head_of(config: Any) -> Any:
    """Give the head of `head_config`'s result."""
    return keras.saving.deserialize_keras_object(config) if isinstance(config, dict) else config
