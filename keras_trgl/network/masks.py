"""Keras's masks, which are attributes of tensors, where a tensor crosses a traced function.

Keras has no public name for them (3.15): they stand in this file alone.
"""

from typing import Any


def mask_of(x: Any) -> Any:
    """Give the mask that goes with a tensor, `(batch, time)` of bool, or `None`."""
    return getattr(x, "_keras_mask", None)


def with_mask(x: Any, mask: Any) -> Any:
    """Give a tensor with a mask, or as it is where there is none."""
    if mask is not None:
        x._keras_mask = mask
    return x
