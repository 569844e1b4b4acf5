"""The Swin transformer as a flat list of blocks."""

import keras

from keras_trgl.architectures.attention_block import (
    attention_block,
    check_patches,
    drop_paths,
    patches,
    small_normal,
)
from keras_trgl.checks import check_integer
from keras_trgl.layers.patch_merging import PatchMerging
from keras_trgl.layers.window_attention import WindowAttention
from keras_trgl.registration import public

EPSILON = 1e-5


@public
def swin_tiny(
    input_shape: tuple[int, int, int],
    patch_size: int = 4,
    window: int = 7,
    width: int = 96,
    depths: tuple[int, ...] = (2, 2, 6, 2),
    num_heads: tuple[int, ...] = (3, 6, 12, 24),
    mlp_ratio: int = 4,
    drop_path: float = 0.1,
) -> list[keras.Sequential]:
    """Give Swin-Tiny as 12 blocks of two residual units, on grids with channels last.

    A block is attention in windows, then two dense layers with an exact GELU; each unit begins
    with a layer normalization, ends with stochastic depth, and has nothing after its sum. Every
    second block shifts its windows by half. The patches, normalized, are the entry of the first
    block. The merging of patches after each layer but the last is at the end of the block before
    it, so that a head there sees merged patches. The last normalization belongs to the head:
    `heads.NormHead`. Dense layers start as a truncated normal of 0.02.

    Args:
        input_shape: tuple of int `(height, width, channels)`, in pixels.
        patch_size: int ≥ 1. Side of a patch, in pixels; must divide the sides. Published: 4, and
            2 fits 32x32. Defaults to `4`.
        window: int ≥ 1. Side of a window, in patches; must divide every grid that is larger.
            Published: 7 for 224x224, 6 for 96x96; 4 fits 32x32. Defaults to `7`.
        width: int ≥ 1. Channels of the first layer; each layer doubles them. Defaults to `96`.
        depths: tuple of int. Number of blocks of each layer. Defaults to `(2, 2, 6, 2)`.
        num_heads: tuple of int. Heads of each layer; must divide its channels. Defaults to
            `(3, 6, 12, 24)`.
        mlp_ratio: int ≥ 1. Channels between the dense layers, a number of times the block's.
            Defaults to `4`.
        drop_path: float in [0, 1). Rate of the last block's stochastic depth; it rises linearly
            from 0 at the first. Defaults to `0.1`.

    Returns:
        List of `keras.Sequential`, one per block, each with two `ResidualBlock`.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size is out of range; `depths` and `num_heads` differ in length; patches,
            windows or heads do not divide what they must.

    Example:
        >>> from keras_trgl.architectures import swin_tiny
        >>> len(swin_tiny(input_shape=(96, 96, 3), window=6))
        12

    Reference:
        Liu et al., "Swin Transformer", 2021, section 3.3; split as in Karkar et al., "Module-wise
        Training of Neural Networks via the Minimizing Movement Scheme", NeurIPS 2023.
    """
    if len(depths) != len(num_heads) or not depths:
        raise ValueError(
            "`depths` and `num_heads` must be of one length, an entry per layer. Received: "
            f"depths={depths}, num_heads={num_heads}."
        )
    for name, value in (("patch_size", patch_size), ("window", window), ("width", width)):
        check_integer(name, value, 1)
    check_integer("mlp_ratio", mlp_ratio, 1)
    for depth in depths:
        check_integer("depths", depth, 1)
    _check_grids(input_shape, patch_size, window, len(depths))
    for layer, heads in enumerate(num_heads):
        _check_heads(width * 2**layer, heads)
    rates = drop_paths(drop_path, sum(depths))
    blocks: list[keras.Sequential] = []
    for layer, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        for position in range(depth):
            first = not blocks
            merges = position == depth - 1 and layer < len(depths) - 1
            blocks.append(
                attention_block(
                    WindowAttention(heads, window, window // 2 * (position % 2), small_normal()),
                    width * 2**layer,
                    mlp_ratio,
                    rates[len(blocks)],
                    EPSILON,
                    entry=[
                        patches(width, patch_size),
                        keras.layers.LayerNormalization(epsilon=EPSILON),
                    ]
                    if first
                    else (),
                    after=[PatchMerging(small_normal())] if merges else (),
                    input_shape=input_shape if first else None,
                )
            )
    return blocks


def _check_heads(channels: int, heads: int) -> None:
    check_integer("num_heads", heads, 1)
    if channels % heads:
        raise ValueError(
            "`num_heads` must divide the channels of every layer. Received: "
            f"{heads} heads for {channels} channels."
        )


def _check_grids(
    input_shape: tuple[int, int, int], patch_size: int, window: int, layers: int
) -> None:
    """Raise unless patches divide the sides, and windows and merging every grid."""
    check_patches(input_shape, patch_size)
    grids = [[side // patch_size / 2**layer for side in input_shape[:2]] for layer in range(layers)]
    if any(side % 1 for grid in grids for side in grid):
        raise ValueError(
            f"{layers} layers halve the grid of patches {layers - 1} times. Received: a grid of "
            f"{grids[0][0]:g}x{grids[0][1]:g}, from input_shape={tuple(input_shape)} and "
            f"patch_size={patch_size}. Use other images, smaller patches or fewer layers."
        )
    fits = [
        m
        for m in range(1, window + 1)
        if all(side % min(m, *grid) == 0 for grid in grids for side in grid)
    ]
    if window not in fits:
        raise ValueError(
            "Windows must divide every grid of patches that is larger. Received: "
            f"window={window}, grids of side {', '.join(f'{min(grid):g}' for grid in grids)}. "
            f"Use window={fits[-1]}."
        )
