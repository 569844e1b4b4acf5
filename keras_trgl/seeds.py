"""Seeds as a function of (seed, position), so that weights depend on neither splits nor heads."""

from typing import Any

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


def fill_seeds(config: Any, seed: int, *position: int) -> Any:
    """Give a copy of a configuration in which every open seed is filled.

    An open seed is an entry `"seed": None`, as initializers and random layers write it. Seeds
    that the user gave stay.

    Args:
        config: nested dicts and lists, as `keras.saving.serialize_keras_object` gives them.
        seed: int ≥ 0. The model's seed.
        *position: int ≥ 0. Where the configured object stands in the model.

    Returns:
        The copy.
    """
    count = 0

    def walk(value: Any) -> Any:
        nonlocal count
        if isinstance(value, dict):
            filled = {}
            for key, entry in value.items():
                if key == "seed" and entry is None:
                    filled[key] = derive_seed(seed, *position, count)
                    count += 1
                else:
                    filled[key] = walk(entry)
            return filled
        if isinstance(value, (list, tuple)):
            return type(value)(walk(entry) for entry in value)
        return value

    return walk(config)
