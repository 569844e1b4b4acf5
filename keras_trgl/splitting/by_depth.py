"""Stages of equal depth."""

from typing import Any

from keras_trgl.registration import public
from keras_trgl.splitting.partition import check_split
from keras_trgl.splitting.units import units_of


@public
def by_depth(blocks: Any, num_stages: int) -> list[int]:
    """Give stage sizes that differ by at most one block, larger ones first.

    Args:
        blocks: list of blocks, or a `keras.Model` that `from_model` takes; only the number of
            blocks, or of the model's units, counts.
        num_stages: int, K, 1 to that number.

    Returns:
        List of K ints that sum to that number.

    Raises:
        TypeError: `num_stages` is no integer; `blocks` is neither.
        ValueError: there are no blocks, or `num_stages` is not 1 to the number of blocks.

    Example:
        >>> from keras_trgl.splitting import by_depth
        >>> by_depth(range(54), num_stages=4)
        [14, 14, 13, 13]

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, section 4: modules of equal depth.
    """
    count = len(units_of(blocks))
    check_split(count, num_stages)
    size, larger = divmod(count, num_stages)
    return [size + 1] * larger + [size] * (num_stages - larger)
