"""Stages of equal depth."""

from collections.abc import Sequence
from typing import Any

from keras_trgl.checks import NO_BLOCKS, check_list
from keras_trgl.registration import public
from keras_trgl.splitting.partition import check_split


@public
def by_depth(blocks: Sequence[Any], num_stages: int) -> list[int]:
    """Give stage sizes that differ by at most one block, larger ones first.

    Args:
        blocks: list of blocks; only their number counts.
        num_stages: int, K, 1 to `len(blocks)`.

    Returns:
        List of K ints that sum to `len(blocks)`.

    Raises:
        TypeError: `num_stages` is no integer.
        ValueError: there are no blocks, or `num_stages` is not 1 to the number of blocks.

    Example:
        >>> from keras_trgl.splitting import by_depth
        >>> by_depth(range(54), num_stages=4)
        [14, 14, 13, 13]

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, section 4: modules of equal depth.
    """
    check_list("blocks", blocks, "layers", NO_BLOCKS)
    check_split(len(blocks), num_stages)
    size, larger = divmod(len(blocks), num_stages)
    return [size + 1] * larger + [size] * (num_stages - larger)
