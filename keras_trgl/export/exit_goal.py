"""What a choice of an exit is after: one goal, within the range where it means something."""

import math

RANGES = {
    "max_drop": (0, 1),
    "max_latency": (0, math.inf),
    "max_depth": (1, math.inf),
    "target": (0, 1),
    "risk": (0, 1),
}
"""The goals, and what they may be."""


def the_goal(*given: float | None) -> tuple[str, float]:
    """Give the name of the one goal that was given, and its bound.

    Args:
        *given: a number or `None` for each of `RANGES`, in their order.

    Raises:
        ValueError: none or several were given, or a number out of range.
    """
    wanted = [(name, value) for name, value in zip(RANGES, given, strict=True) if value is not None]
    if len(wanted) != 1:
        raise ValueError(
            f"Exactly one of {', '.join(f'`{name}`' for name in RANGES)} must be given. Received: "
            f"{dict(wanted) or 'none'}. `max_drop=0.01` allows one point."
        )
    name, bound = wanted[0][0], float(wanted[0][1])
    low, high = RANGES[name]
    inside = low < bound < high if name == "risk" else low <= bound <= high
    if not inside:
        ends = f"lie between {low} and {high}" if high == 1 else f"be at least {low}"
        way_out = " 0.01 is one row in a hundred." if high == 1 else ""
        raise ValueError(f"`{name}` must {ends}. Received: {name}={bound}.{way_out}")
    return name, bound
