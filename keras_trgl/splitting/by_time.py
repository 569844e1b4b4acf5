"""Stages of equal time."""

from typing import Any

from keras_trgl.registration import public
from keras_trgl.splitting.partition import check_split, min_max_partition
from keras_trgl.splitting.profile import Profile, profile
from keras_trgl.splitting.units import units_of
from keras_trgl.types import Shape


@public
def by_time(
    blocks: Any,
    num_stages: int,
    batch: Any = 32,
    head: Any = None,
    input_shape: Shape | None = None,
    verbose: Any = "auto",
) -> list[int]:
    """Give stage sizes whose largest time is least.

    A stage's time is that of its blocks and its head, forward and backward, measured by
    `profile`. The partition is exact; the measurement is not, so a cut may move by a block from
    one run to the next. For stages on devices of their own, where the slowest sets the pace.

    Args:
        blocks: list of layers, built or not, or a `keras.Model` that `from_model` takes, whose
            units are its blocks.
        num_stages: int, K, 1 to the number of blocks.
        batch: array of data `(batch, …)`, a number of examples, or a `Profile` of these blocks,
            which serves for several K. Defaults to `32`.
        head: unbuilt layer that every stage gets a copy of, or `None` to leave heads out; not
            with a `Profile`. Defaults to `None`.
        input_shape: tuple without the batch axis. `None` asks the first block. Defaults to
            `None`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        List of K ints that sum to the number of blocks.

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
    count = len(units_of(blocks))
    check_split(count, num_stages)
    costs = batch
    if not isinstance(costs, Profile):
        costs = profile(blocks, batch, head, input_shape, verbose=verbose)
    elif head is not None:
        raise ValueError(
            "A `Profile` holds the head's times. Received: a head beside it. Leave it out."
        )
    if len(costs.block_seconds) != count:
        raise ValueError(
            "The `Profile` must be of these blocks. Received: one of "
            f"{len(costs.block_seconds)} blocks for {count}."
        )
    return min_max_partition(count, num_stages, costs.stage_seconds)
