"""Stages of equal time."""

from collections.abc import Sequence
from typing import Any

from keras_trgl.checks import NO_BLOCKS, check_list
from keras_trgl.registration import public
from keras_trgl.splitting.partition import check_split, min_max_partition
from keras_trgl.splitting.profile import Profile, profile
from keras_trgl.types import Shape


@public
def by_time(
    blocks: Sequence[Any],
    num_stages: int,
    batch: Any = 32,
    head: Any = None,
    input_shape: Shape | None = None,
) -> list[int]:
    """Give stage sizes whose largest time is least.

    A stage's time is that of its blocks and its head, forward and backward, measured by
    `profile`. The partition is exact; the measurement is not, so a cut may move by a block from
    one run to the next. For stages on devices of their own, where the slowest sets the pace.

    Args:
        blocks: list of layers, built or not.
        num_stages: int, K, 1 to `len(blocks)`.
        batch: array of data `(batch, …)`, a number of examples, or a `Profile` of these blocks,
            which serves for several K. Defaults to `32`.
        head: unbuilt layer that every stage gets a copy of, or `None` to leave heads out; not
            with a `Profile`. Defaults to `None`.
        input_shape: tuple without the batch axis. `None` asks the first block. Defaults to
            `None`.

    Returns:
        List of K ints that sum to `len(blocks)`.

    Raises:
        TypeError: a block or the head is no Keras layer.
        ValueError: `num_stages` is not 1 to the number of blocks; the shape of the data is not
            known; a `Profile` of another number of blocks, or one beside a head.

    Example:
        >>> from keras_trgl.splitting import Profile, by_time
        >>> costs = Profile((3.0, 1.0, 1.0), (0.0,) * 3, (0,) * 3, (0,) * 3, lambda *ends: 0)
        >>> by_time(range(3), num_stages=2, batch=costs)
        [1, 2]
    """
    check_list("blocks", blocks, "layers", NO_BLOCKS)
    check_split(len(blocks), num_stages)
    costs = batch
    if not isinstance(costs, Profile):
        costs = profile(blocks, batch, head, input_shape)
    elif head is not None:
        raise ValueError(
            "A `Profile` holds the head's times. Received: a head beside it. Leave it out."
        )
    if len(costs.block_seconds) != len(blocks):
        raise ValueError(
            "The `Profile` must be of these blocks. Received: one of "
            f"{len(costs.block_seconds)} blocks for {len(blocks)}."
        )
    return min_max_partition(len(blocks), num_stages, costs.stage_seconds)
