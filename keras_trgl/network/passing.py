"""What crosses a cut: tensors, each with its mask, and no gradient.

One tensor crosses as it is; several are a tuple, the main one first, which heads and methods read.
Data of several inputs have the structure that the user's model gives them.

Masks are attributes of tensors to Keras, and an attribute does not pass through a traced function,
a store or a file. Here they become tensors beside the others, and attributes again.
"""

from typing import Any

import keras

from keras_trgl.layers.masks import mask_of, with_mask


def main(x: Any) -> Any:
    """Give the tensor that heads read, of what crosses a cut.

    Args:
        x: tensor, or structure of them.
    """
    return keras.tree.flatten(x)[0] if isinstance(x, (tuple, list, dict)) else x


def apart(x: Any) -> tuple[Any, dict[str, Any]]:
    """Give tensors and masks side by side, as stores and traced functions take them.

    Args:
        x: tensor, or structure of them.

    Returns:
        The same, and a dict of masks by the places, from "0", of the tensors that have one.
    """
    leaves = keras.tree.flatten(x)
    masks = {str(place): mask_of(leaf) for place, leaf in enumerate(leaves)}
    return x, {place: mask for place, mask in masks.items() if mask is not None}


def together(sides: tuple[Any, dict[str, Any]]) -> Any:
    """Give the tensors that `apart` gave, with their masks."""
    x, masks = sides
    leaves = [
        with_mask(leaf, masks.get(str(place))) for place, leaf in enumerate(keras.tree.flatten(x))
    ]
    return keras.tree.pack_sequence_as(x, leaves)


def cut(x: Any) -> Any:
    """Give the tensors without a gradient, and with their masks."""
    return keras.tree.map_structure(
        lambda one: with_mask(keras.ops.stop_gradient(one), mask_of(one)), x
    )
