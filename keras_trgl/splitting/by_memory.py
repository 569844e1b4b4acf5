"""Stages of equal memory."""

import math
from collections.abc import Sequence
from typing import Any

from keras_trgl.checks import check_integer
from keras_trgl.registration import public
from keras_trgl.splitting.activation_bytes import Counter
from keras_trgl.splitting.partition import min_max_partition
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
        ValueError: `num_stages` is not 1 to the number of blocks, or the shape of the data is
            not known.

    Example:
        >>> from keras_trgl.architectures import resnet
        >>> from keras_trgl.splitting import by_memory
        >>> by_memory(resnet(depth=20, input_shape=(32, 32, 3)), num_stages=3)
        [2, 2, 5]
    """
    check_integer("num_stages", num_stages, 1)
    blocks = list(blocks)
    if not blocks:
        raise ValueError("A split needs blocks. Received: blocks=[].")
    expected = input_shape or getattr(blocks[0], "expected_input_shape", None)
    if expected is None:
        raise ValueError(
            "The shape of the data must be known to count bytes. Received: input_shape=None and "
            "a first block that does not tell. Pass `input_shape=(rows, columns, channels)`."
        )
    shape: Shape = (None, *expected)
    kept, inputs, largest, heads = [], [], [], []
    for position, block in enumerate(blocks):
        inputs.append(4 * math.prod(int(side or 1) for side in shape[1:]))
        counter = Counter(shape, counted=position > 0)
        counter.walk([block])
        kept.append(counter.bytes)
        largest.append(counter.largest)
        shape = counter.shape
        heads.append(_head_bytes(head, shape, counter.counted))

    def cost(start: int, end: int) -> float:
        first = inputs[start] if start else 0
        return first + sum(kept[start:end]) + heads[end - 1] + IN_FLIGHT * max(largest[start:end])

    return min_max_partition(len(blocks), num_stages, cost)


def _head_bytes(head: Any, features: Shape, counted: bool) -> int:
    if head is None:
        return 0
    copy = type(head).from_config(head.get_config())
    if not copy.built:
        copy.build(features)
    counter = Counter(features, counted)
    counter.walk([copy])
    return counter.bytes
