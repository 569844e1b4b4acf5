"""Which points of a path of thresholds keep a risk under a bound, with stated confidence.

Learn then test (Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test: Calibrating
Predictive Algorithms to Achieve Risk Control", 2021, section 3): each point has the null
hypothesis that its risk is above the bound, with a binomial p-value; the path is tested in a fixed
order, slowest first, up to the first that is not rejected (fixed-sequence testing), which keeps
the chance of any wrong rejection at most 1 − confidence. Conformal risk control bounds the
expected risk alone, and needs a risk that only grows along the path, which this one need not do.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf


def p_values(wrong: Any, rows: int, risk: float) -> Any:
    """Give P(Binomial(rows, risk) ≤ wrong), the p-value of "the risk is above `risk`".

    Args:
        wrong: int array: rows that were wrong.
        rows: int ≥ 1.
        risk: float, 0 to 1.
    """
    wrong = np.asarray(wrong, "float64")
    below = np.minimum(wrong, rows - 1)
    # The binomial distribution as an incomplete beta function (Abramowitz and Stegun, 26.5.24).
    found = tf.math.betainc(rows - below, below + 1.0, np.full_like(below, 1.0 - risk)).numpy()
    return np.where(wrong >= rows, 1.0, found)


def last_safe(wrong: Any, rows: int, risk: float, confidence: float) -> int:
    """Give how many points of the path, from its beginning, may be used.

    Args:
        wrong: int array: for each point, rows that were wrong; the points in an order that these
            rows had no part in.
        rows: int ≥ 1.
        risk: float, 0 to 1: the bound.
        confidence: float, 0 to 1.
    """
    kept = p_values(wrong, rows, risk) <= 1.0 - confidence
    return len(kept) if kept.all() else int(np.argmin(kept))


def check_enough(rows: int, risk: float, confidence: float) -> None:
    """Raise where so few rows show nothing, even without one that is wrong.

    Raises:
        ValueError: they are too few.
    """
    least = math.ceil(math.log(1.0 - confidence) / math.log(1.0 - risk))
    if rows < least:
        raise ValueError(
            f"A risk of {risk:g} with confidence {confidence:g} takes at least {least} rows that "
            f"no threshold was fitted on. Received: {rows}. Give more held-out rows, or a "
            "smaller `fit_share`."
        )
