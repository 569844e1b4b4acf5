"""The partition problem on numbers: consecutive parts whose worst cost is least."""

import math
from collections.abc import Callable

from keras_trgl.checks import check_integer
from keras_trgl.registration import public


def check_split(num_blocks: int, num_stages: int) -> None:
    """Raise unless so many blocks can be cut into so many stages.

    Args:
        num_blocks: int. Blocks there are.
        num_stages: int. Stages asked for; each needs a block.

    Raises:
        TypeError: `num_stages` is no integer.
        ValueError: there are no blocks, or `num_stages` is not 1 to `num_blocks`.
    """
    check_integer("num_stages", num_stages, 1)
    if not num_blocks:
        raise ValueError("A split needs blocks. Received: blocks=[].")
    if num_stages > num_blocks:
        raise ValueError(
            f"There can be at most as many stages as blocks, {num_blocks}. "
            f"Received: num_stages={num_stages}. Use fewer stages or a deeper network."
        )


@public
def min_max_partition(
    num_items: int, num_parts: int, cost: Callable[[int, int], float]
) -> list[int]:
    """Cut items in a row into parts so that the largest cost of a part is least.

    Exact, by dynamic programming over (parts, end). Among cuts with the same largest cost it
    takes the one with the least sum of squared costs, that is, the most even one; if those tie
    too, the one whose last part is largest, then the one before it, and so on.

    Args:
        num_items: int ≥ 1.
        num_parts: int, 1 to `num_items`. No part is empty.
        cost: function of (start, end), the cost ≥ 0 of the part that holds items start to
            end − 1. Whole numbers stay exact.

    Returns:
        List of `num_parts` ints that sum to `num_items`: the parts' sizes.

    Raises:
        TypeError: `num_parts` is no integer.
        ValueError: `num_parts` is not 1 to `num_items`, or a cost is negative or not finite.

    Example:
        >>> from keras_trgl.splitting import min_max_partition
        >>> costs = [4, 1, 1, 2]
        >>> min_max_partition(4, 2, lambda start, end: sum(costs[start:end]))
        [1, 3]
    """
    check_split(num_items, num_parts)
    costs = {
        (start, end): cost(start, end)
        for start in range(num_items)
        for end in range(start + 1, num_items + 1)
    }
    for (start, end), value in costs.items():
        if not 0 <= value < math.inf:
            raise ValueError(
                "Costs must be finite numbers of at least 0. "
                f"Received: cost({start}, {end})={value}. Check what was measured or counted."
            )
    # Two passes: the best worst cost leaves many cuts, of which the most even one is taken.
    worst = _least_worst(num_items, num_parts, costs)
    return _most_even(num_items, num_parts, costs, worst)


def _least_worst(items: int, parts: int, costs: dict[tuple[int, int], float]) -> float:
    best = [costs[0, end] if end else math.inf for end in range(items + 1)]
    for _ in range(parts - 1):
        best = [
            min(
                (max(best[cut], costs[cut, end]) for cut in range(1, end)),
                default=math.inf,
            )
            for end in range(items + 1)
        ]
    return best[items]


def _most_even(
    items: int, parts: int, costs: dict[tuple[int, int], float], worst: float
) -> list[int]:
    # Of (parts so far, end): the least sum of squares with no part above `worst`, and its cut.
    sums: list[list[float]] = [[math.inf] * (items + 1) for _ in range(parts + 1)]
    cuts = [[0] * (items + 1) for _ in range(parts + 1)]
    sums[0][0] = 0
    for part in range(1, parts + 1):
        for end in range(part, items + 1):
            for cut in range(part - 1, end):
                if costs[cut, end] > worst or sums[part - 1][cut] == math.inf:
                    continue
                total = sums[part - 1][cut] + costs[cut, end] ** 2
                # `<`, not `<=`: the first of equal cuts has the largest last part.
                if total < sums[part][end]:
                    sums[part][end], cuts[part][end] = total, cut
    sizes, end = [], items
    for part in range(parts, 0, -1):
        sizes.append(end - cuts[part][end])
        end = cuts[part][end]
    return sizes[::-1]
