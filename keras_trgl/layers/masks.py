"""Keras's masks, which are attributes of tensors.

Keras has no public name for the attribute (3.15): it stands in this file alone.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def mask_of(x: Any) -> Any:
    """Give the mask that goes with a tensor, `(batch, time)` of bool, or `None`."""
    return getattr(x, "_keras_mask", None)


def with_mask(x: Any, mask: Any) -> Any:
    """Give a tensor with a mask, or as it is where there is none."""
    if mask is not None:
        x._keras_mask = mask
    return x


def hands_on(layer: Any, inputs: Any, previous_mask: Any) -> None:
    """Be the `compute_mask` of a layer whose output has the mask that was put on it inside.

    Keras takes that one where this gives none.
    """
    del layer, inputs, previous_mask


def makes_masks(layers: Any) -> bool:
    """Tell whether one of these layers may give its output a mask that its input had not.

    Args:
        layers: list of layers, those inside them among them.
    """
    passing = (keras.layers.Layer.compute_mask, hands_on)
    return any(type(layer).compute_mask not in passing for layer in layers)


def keeping_mask(call: Callable[[Any], Any], x: Any) -> Any:
    """Call a layer on a tensor that others take after it.

    Keras's `MultiHeadAttention` takes the mask off the tensor it is called on.
    """
    mask = mask_of(x)
    result = call(x)
    with_mask(x, mask)
    return result


def mask_of_sum(one: Any, other: Any) -> Any:
    """Give the mask of a sum, as `keras.layers.Add` does: where both are to be seen."""
    if one is None or other is None:
        return None
    return ops.logical_and(one, other)
