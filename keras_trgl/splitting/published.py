"""Stage sizes that papers used, by name."""

from keras_trgl.registration import public

SIZES: dict[str, dict[int, list[int]]] = {
    "trgl_resnet110": {
        2: [27, 27],
        4: [14, 14, 13, 13],
        8: [7, 7, 7, 7, 8, 6, 6, 6],
        16: [4] * 6 + [3] * 10,
    },
    "trgl_resnet110_balanced": {2: [14, 40], 4: [6, 8, 12, 28]},
    "infopro_resnet110": {
        2: [27, 27],
        3: [18, 18, 18],
        4: [12, 14, 14, 14],
        8: [5] + [7] * 7,
        16: [2] + [3] * 8 + [4] * 7,
    },
    "infopro_resnet110_balanced": {2: [15, 39], 3: [9, 11, 34], 4: [7, 8, 12, 27]},
}
"""Blocks per stage; ResNet-110 has 54, and the stem goes with the first."""


@public
def published(name: str, num_stages: int) -> list[int]:
    """Give the stage sizes of a published experiment.

    Args:
        name: str. `"trgl_resnet110"` (equal depth), `"trgl_resnet110_balanced"` (by weight),
            `"infopro_resnet110"`, `"infopro_resnet110_balanced"` (by weight).
        num_stages: int, K.

    Returns:
        List of K ints that sum to the network's number of blocks.

    Raises:
        ValueError: no such name, or no such K under it.

    Example:
        >>> from keras_trgl.splitting import published
        >>> published("trgl_resnet110_balanced", num_stages=4)
        [6, 8, 12, 28]

    Reference:
        Karkar et al., NeurIPS 2023, and Wang et al., "InfoPro", ICLR 2021: their code.
    """
    if name not in SIZES:
        raise ValueError(
            f"`name` must be one of {', '.join(map(repr, SIZES))}. Received: name={name!r}."
        )
    if num_stages not in SIZES[name]:
        raise ValueError(
            f"{name!r} was published for num_stages of {', '.join(map(str, SIZES[name]))}. "
            f"Received: num_stages={num_stages}. Use `by_depth` or `by_memory` for others."
        )
    return list(SIZES[name][num_stages])
