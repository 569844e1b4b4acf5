"""Seeds as a function of (seed, position), so that weights depend on neither splits nor heads."""

import numpy as np

BLOCK, HEAD, DATA, PICKS, METHOD_LAYER = 0, 1, 2, 3, 4
"""First word of a position: a block's index, a head's, the order of the data, of the stages, or a
layer that a method has for a stage."""


def derive_seed(seed: int, *position: int) -> int:
    """Give a seed for one position; other positions get independent ones.

    Args:
        seed: int ≥ 0. The model's seed.
        *position: int ≥ 0. Where the seed is used: kind, index, and so on.

    Returns:
        int in [0, 2³¹).
    """
    state = np.random.SeedSequence([seed, *position]).generate_state(1)[0]
    return int(state >> 1)
