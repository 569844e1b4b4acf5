"""Stages of equal memory."""

from typing import Any

from keras_trgl.registration import public
from keras_trgl.splitting.network_bytes import NetworkBytes
from keras_trgl.splitting.partition import check_split, min_max_partition
from keras_trgl.splitting.stage_bytes import check_layers, data_shape, stage_bytes
from keras_trgl.splitting.units import units_of
from keras_trgl.types import Shape

EXAMPLES = 32
"""In the batch that a model's units are counted for, beside gradients of weights."""


@public
def by_memory(
    blocks: Any,
    num_stages: int,
    head: Any = None,
    input_shape: Shape | None = None,
    method: Any = None,
) -> list[int]:
    """Give stage sizes whose largest memory is least.

    A stage's memory, per example: the activations that its blocks and its head keep for
    backpropagation, its input, and two tensors of its largest size, the gradients in flight.
    Counted from shapes and types; parameters and what kernels use inside are left out, as they
    are small beside activations. Units of a model are counted from their traced passes instead, for
    32 examples, with gradients: rules by kinds of layers do not know what is inside. The partition
    is exact.

    Args:
        blocks: list of layers, built or not, or a `keras.Model` that `from_model` takes, whose
            units are its blocks.
        num_stages: int, K, 1 to the number of blocks.
        head: unbuilt layer that every stage gets a copy of, or `None` to leave heads out.
            Defaults to `None`.
        input_shape: tuple without the batch axis. `None` asks the first block, which blocks of
            `architectures` and models answer. Defaults to `None`.
        method: `LocalMethod` whose heads and nets are counted with the stages that get them, or
            `None`. Defaults to `None`.

    Returns:
        List of K ints that sum to the number of blocks.

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
    units = units_of(blocks)
    check_split(len(units), num_stages)
    check_layers(units.layers, head)
    data = data_shape(units.layers[0], units.shape if input_shape is None else input_shape)
    if units.is_model:
        options = (units.layers, head, data, EXAMPLES, None, None, units.dtype)
        counted = NetworkBytes(*options, method=method)
        return min_max_partition(len(units), num_stages, counted.stage)
    costs = stage_bytes(units.layers, head, (None, *data), method, num_stages)
    return min_max_partition(len(units), num_stages, costs)
