"""Stages of equal memory."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.registration import public
from keras_trgl.splitting.activation_bytes import Counter, Held, bytes_of
from keras_trgl.splitting.partition import check_split, min_max_partition
from keras_trgl.types import Shape

IN_FLIGHT = 2
"""Tensors of the largest size that the backward pass holds beside what the forward pass kept."""


@public
def by_memory(
    blocks: Sequence[Any],
    num_stages: int,
    head: Any = None,
    input_shape: Shape | None = None,
) -> list[int]:
    """Give stage sizes whose largest memory is least.

    A stage's memory, per example: the activations that its blocks and its head keep for
    backpropagation, its input, and two tensors of its largest size, the gradients in flight.
    Counted from shapes and types; parameters and what kernels use inside are left out, as they
    are small beside activations. The partition is exact.

    Args:
        blocks: list of layers, built or not.
        num_stages: int, K, 1 to `len(blocks)`.
        head: unbuilt layer that every stage gets a copy of, or `None` to leave heads out.
            Defaults to `None`.
        input_shape: tuple without the batch axis. `None` asks the first block, which blocks of
            `architectures` answer. Defaults to `None`.

    Returns:
        List of K ints that sum to `len(blocks)`.

    Raises:
        TypeError: a block or the head is no Keras layer.
        ValueError: `num_stages` is not 1 to the number of blocks, or the shape of the data is
            not known.

    Example:
        >>> from keras_trgl.architectures import resnet
        >>> from keras_trgl.splitting import by_memory
        >>> by_memory(resnet(depth=20, input_shape=(32, 32, 3)), num_stages=3)
        [2, 2, 5]
    """
    blocks = list(blocks)
    check_split(len(blocks), num_stages)
    for layer in (*blocks, *([] if head is None else [head])):
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                "`blocks` must be Keras layers, and `head` one, which every stage gets a copy "
                f"of. Received: {layer!r}. Pass the largest of several heads."
            )
    shape: Shape = (None, *_data_shape(blocks[0], input_shape))
    return min_max_partition(len(blocks), num_stages, stage_bytes(blocks, head, shape))


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


def _data_shape(first: Any, input_shape: Shape | None) -> Shape:
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
    copy = type(head).from_config(head.get_config())
    if not copy.built:
        copy.build(features.shape)
    counter = Counter()
    # What the head keeps of the features is the head's, and not the next block's.
    counter.walk([copy], Held(features.shape, features.counted))
    return counter.bytes
