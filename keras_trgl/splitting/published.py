"""Stage sizes that papers used, by name."""

from typing import Any

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.registration import public
from keras_trgl.splitting.units import units_of

SIZES: dict[str, dict[int, list[int]]] = {
    "trgl_resnet110": {
        2: [27, 27],
        4: [14, 14, 13, 13],
        8: [7, 7, 7, 7, 8, 6, 6, 6],
        16: [4] * 6 + [3] * 10,
    },
    "trgl_resnet110_balanced": {2: [14, 40], 4: [6, 8, 12, 28]},
    "trgl_resnet50": {4: [3, 4, 6, 3]},
    "trgl_resnet101": {2: [17, 16], 4: [7, 9, 9, 8]},
    "trgl_resnet152": {2: [25, 25], 4: [11, 13, 13, 13]},
    "trgl_vgg19": {4: [4, 4, 4, 4]},
    "trgl_swin_tiny": {4: [2, 2, 6, 2]},
    "infopro_resnet110": {
        2: [27, 27],
        3: [18, 18, 18],
        4: [12, 14, 14, 14],
        8: [5] + [7] * 7,
        16: [2] + [3] * 8 + [4] * 7,
    },
    "infopro_resnet110_balanced": {2: [15, 39], 3: [9, 11, 34], 4: [7, 8, 12, 27]},
    "infopro_resnet32": {2: [7, 8], 4: [3, 4, 4, 4], 8: [1] + [2] * 7},
    "dgl_vgg19": {4: [4, 4, 4, 4]},
    "dgl_resnet50": {4: [4, 4, 4, 4]},
    "dgl_resnet101": {4: [8, 8, 8, 9]},
    "dgl_resnet152": {4: [12, 13, 12, 13]},
    "ddg_resnet110": {2: [26, 28], 4: [12, 15, 15, 12]},
    "sedona_vgg19": {2: [6, 10], 3: [6, 7, 3], 4: [6, 7, 1, 2]},
    "sedona_resnet50": {2: [10, 6], 3: [10, 2, 4], 4: [10, 1, 1, 4]},
    "sedona_resnet101": {2: [7, 26], 3: [7, 4, 22], 4: [7, 4, 1, 21]},
    "sedona_resnet152": {2: [11, 39], 3: [11, 2, 37], 4: [11, 2, 4, 33]},
}
"""Blocks per stage; the stem goes with the first. For VGG: convolutions."""


@public
def published(name: str, num_stages: int, blocks: Any = None) -> list[int]:
    """Give the stage sizes of a published experiment.

    Args:
        name: str. `"trgl_resnet110"` (equal depth), `"trgl_resnet110_balanced"` (by weight),
            `"trgl_resnet50"`, `101`, `152`, `"trgl_vgg19"`, `"trgl_swin_tiny"`;
            `"infopro_resnet110"`, `"infopro_resnet110_balanced"` (by weight, STL-10),
            `"infopro_resnet32"`; `"dgl_vgg19"`, `"dgl_resnet50"`, `101`, `152`;
            `"ddg_resnet110"`; `"sedona_vgg19"` and `"sedona_resnet50"`, `101`, `152` (found by
            search). The network is `architectures`' function of that name: `resnet(110, …)`,
            `resnet50(…)`, `vgg(19, …)`, `swin_tiny(…)`.
        num_stages: int ≥ 1, K.
        blocks: list of layers, or a `keras.Model` that `from_model` takes, whose blocks or units
            must be as many; `None` is not looked at. Defaults to `None`.

    Returns:
        List of K ints that sum to the network's number of blocks.

    Raises:
        TypeError: `num_stages` is no integer.
        ValueError: no such name, or no such K under it; `blocks` are more or fewer.

    Example:
        >>> from keras_trgl.splitting import published
        >>> published("trgl_resnet110_balanced", num_stages=4)
        [6, 8, 12, 28]

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, and Wang et al., "Revisiting Locally Supervised Learning" (InfoPro),
        ICLR 2021: their code. Belilovsky et al., "Decoupled Greedy Learning of CNNs", 2020
        (uniform cuts). Huo et al., "Decoupled Parallel Backpropagation with Convergence
        Guarantee" (DDG), ICML 2018. Pyeon et al., "SEDONA: Search for Decoupled Neural Networks",
        ICLR 2021, by search.
    """
    check_choice("name", name, tuple(SIZES))
    check_integer("num_stages", num_stages, 1)
    if num_stages not in SIZES[name]:
        raise ValueError(
            f"{name!r} was published for num_stages of {', '.join(map(str, SIZES[name]))}. "
            f"Received: num_stages={num_stages}. Use `by_depth` or `by_memory` for others."
        )
    sizes = SIZES[name][num_stages]
    count = sum(sizes) if blocks is None else len(units_of(blocks))
    if count != sum(sizes):
        raise ValueError(
            f"{name!r} was published for a network of {sum(sizes)} blocks. Received: one of "
            f"{count}. Use `by_depth` or `by_memory`, or the network of that name."
        )
    return list(sizes)
