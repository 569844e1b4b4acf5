"""Stages of equal memory."""

from collections.abc import Sequence
from typing import Any

from keras_trgl.checks import NO_BLOCKS, check_list
from keras_trgl.registration import public
from keras_trgl.splitting.partition import check_split, min_max_partition
from keras_trgl.splitting.stage_bytes import check_layers, data_shape, stage_bytes
from keras_trgl.types import Shape


@public
def by_memory(
    blocks: Sequence[Any],
    num_stages: int,
    head: Any = None,
    input_shape: Shape | None = None,
    method: Any = None,
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
        method: `LocalMethod` whose heads and nets are counted with the stages that get them, or
            `None`. Defaults to `None`.

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
    check_list("blocks", blocks, "layers", NO_BLOCKS)
    blocks = list(blocks)
    check_split(len(blocks), num_stages)
    check_layers(blocks, head)
    shape: Shape = (None, *data_shape(blocks[0], input_shape))
    costs = stage_bytes(blocks, head, shape, method, num_stages)
    return min_max_partition(len(blocks), num_stages, costs)
