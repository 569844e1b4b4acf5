"""A block that is several layers in a row."""

from collections.abc import Sequence
from typing import Any

import keras


def row(layers: Sequence[Any], input_shape: Sequence[int] | None = None) -> keras.Sequential:
    """Give an unbuilt block of layers in a row; residual units among them count for the energy.

    Args:
        layers: sequence of layers.
        input_shape: tuple of int without the batch axis, or `None`. Lets a model be built before
            it sees data. Defaults to `None`.
    """
    block = keras.Sequential(list(layers))
    if input_shape is not None:
        # An input inside would have Keras build the block, with weights that no model's seed
        # gives. A block made again from its configuration is built by its first data.
        block.expected_input_shape = tuple(int(side) for side in input_shape)
    return block
