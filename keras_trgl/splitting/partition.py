"""The partition problem on numbers: consecutive parts whose worst cost is least."""

from collections.abc import Callable

from keras_trgl.checks import check_integer


def min_max_partition(
    num_items: int, num_parts: int, cost: Callable[[int, int], float]
) -> list[int]:
    """Cut items in a row into parts so that the largest cost of a part is least.

    Exact, by dynamic programming over (parts, end). Among cuts with the same largest cost it
    takes the one with the least sum of squared costs, that is, the most even one.

    Args:
        num_items: int ≥ 1.
        num_parts: int, 1 to `num_items`. No part is empty.
        cost: function of (start, end), the cost ≥ 0 of the part that holds items start to
            end − 1.

    Returns:
        List of `num_parts` ints that sum to `num_items`: the parts' sizes.

    Raises:
        ValueError: `num_parts` is not 1 to `num_items`, or a cost is negative or NaN.
    """
    check_integer("num_items", num_items, 1)
    check_integer("num_parts", num_parts, 1)
    if num_parts > num_items:
        raise ValueError(
            f"There can be at most as many stages as blocks, {num_items}. "
            f"Received: {num_parts} stages. Use fewer stages or a deeper network."
        )
    costs = {
        (start, end): float(cost(start, end))
        for start in range(num_items)
        for end in range(start + 1, num_items + 1)
    }
    if not all(value >= 0 for value in costs.values()):
        raise ValueError("Costs must be numbers of at least 0. Received: a negative one or NaN.")
    worst = _least_worst(num_items, num_parts, costs)
    return _most_even(num_items, num_parts, costs, worst)


def _least_worst(items: int, parts: int, costs: dict[tuple[int, int], float]) -> float:
    best = [costs[0, end] if end else float("inf") for end in range(items + 1)]
    for _ in range(parts - 1):
        best = [
            min(
                (max(best[cut], costs[cut, end]) for cut in range(1, end)),
                default=float("inf"),
            )
            for end in range(items + 1)
        ]
    return best[items]


def _most_even(
    items: int, parts: int, costs: dict[tuple[int, int], float], worst: float
) -> list[int]:
    infinite = float("inf")
    # Of (parts so far, end): the least sum of squares with no part above `worst`, and its cut.
    sums = [[infinite] * (items + 1) for _ in range(parts + 1)]
    cuts = [[0] * (items + 1) for _ in range(parts + 1)]
    sums[0][0] = 0.0
    for part in range(1, parts + 1):
        for end in range(part, items + 1):
            for cut in range(part - 1, end):
                if costs[cut, end] > worst or sums[part - 1][cut] == infinite:
                    continue
                total = sums[part - 1][cut] + costs[cut, end] ** 2
                if total < sums[part][end]:
                    sums[part][end], cuts[part][end] = total, cut
    sizes, end = [], items
    for part in range(parts, 0, -1):
        sizes.append(end - cuts[part][end])
        end = cuts[part][end]
    return sizes[::-1]
