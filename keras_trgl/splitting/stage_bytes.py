"""What a stage costs in bytes, counted from shapes and types."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.layers.chain import build_layer
from keras_trgl.layers.copying import copy_layer
from keras_trgl.splitting.activation_bytes import Counter, Held, bytes_of
from keras_trgl.types import Shape

IN_FLIGHT = 2
"""Tensors of the largest size that the backward pass holds beside what the forward pass kept."""


def check_layers(blocks: Sequence[Any], head: Any) -> None:
    """Raise unless blocks and head are Keras layers.

    Raises:
        TypeError: one is not.
    """
    for layer in (*blocks, *([] if head is None else [head])):
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                "`blocks` must be Keras layers, and `head` one, which every stage gets a copy "
                f"of. Received: {layer!r}. Pass the largest of several heads."
            )


def stage_bytes(blocks: Sequence[Any], head: Any, shape: Shape) -> Callable[[int, int], int]:
    """Give the function that tells what a stage costs.

    Args:
        blocks: list of layers, built or not.
        head: unbuilt layer, or `None`.
        shape: tuple, the data's shape, batch axis included.

    Returns:
        Function of (start, end): bytes per example of a stage of blocks start to end − 1.
    """
    held = Held(shape, counted=True)
    inputs, alone, inside, largest, heads = [], [], [], [], []
    for block in blocks:
        # `inside` a stage a block keeps its input unless the block before did; as the first of
        # a stage it does not count it, since the stage's input is held in any case.
        size, before = bytes_of(block, held.shape), held.counted
        counter = Counter()
        output = counter.walk([block], held)
        inputs.append(size)
        inside.append(counter.bytes)
        alone.append(counter.bytes - (size if held.counted and not before else 0))
        largest.append(counter.largest)
        heads.append(_head_bytes(head, output))
        held = output

    def cost(start: int, end: int) -> int:
        kept = inputs[start] + alone[start] + sum(inside[start + 1 : end])
        return kept + heads[end - 1] + IN_FLIGHT * max(largest[start:end])

    return cost


def data_shape(first: Any, input_shape: Shape | None) -> Shape:
    """Give the shape of the data without the batch axis, as given or as the first block tells.

    Raises:
        TypeError: a side is no integer.
        ValueError: neither tells it, or a side is below 1.
    """
    expected = input_shape
    if expected is None:
        expected = getattr(first, "expected_input_shape", None)
    if expected is None:
        raise ValueError(
            "The shape of the data must be known to count bytes. Received: input_shape=None and "
            "a first block that does not tell. Pass `input_shape=(rows, columns, channels)`."
        )
    hint = "Every side but the batch must be known to count bytes, as in `(32, 32, 3)`."
    for side in expected:
        check_integer("input_shape", side, 1, hint)
    return tuple(expected)


def _head_bytes(head: Any, features: Held) -> int:
    if head is None:
        return 0
    copy = copy_layer(head)
    build_layer(copy, features.shape)
    counter = Counter()
    # What the head keeps of the features is the head's, and not the next block's.
    counter.walk([copy], Held(features.shape, features.counted))
    return counter.bytes
