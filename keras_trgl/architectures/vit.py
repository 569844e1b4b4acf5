"""The vision transformer as a flat list of blocks."""

import keras

from keras_trgl.architectures.attention_block import (
    attention_block,
    check_patches,
    drop_paths,
    patches,
    small_normal,
)
from keras_trgl.checks import check_integer
from keras_trgl.layers.position_embedding import PositionEmbedding
from keras_trgl.layers.self_attention import SelfAttention
from keras_trgl.registration import public


@public
def vit(
    input_shape: tuple[int, int, int],
    patch_size: int = 16,
    width: int = 768,
    depth: int = 12,
    num_heads: int = 12,
    mlp_ratio: int = 4,
    class_token: bool = True,
    drop_path: float = 0.0,
) -> list[keras.Sequential]:
    """Give a vision transformer as blocks of two residual units, on a sequence of patches.

    A block is attention over all patches, then two dense layers with an exact GELU; each unit
    begins with a layer normalization, ends with stochastic depth where there is some, and has
    nothing after its sum. Patches with their learned positions are the entry of the first block.
    The last normalization belongs to the head: `heads.NormHead(units, pool="first")` reads the
    class token, `heads.NormHead(units)` the mean. The defaults are ViT-B/16; ViT-S/16 has a width
    of 384 and 6 heads, ViT-Ti/16 192 and 3. Dense layers start as a truncated normal of 0.02.

    Args:
        input_shape: tuple of int `(height, width, channels)`, in pixels.
        patch_size: int ≥ 1. Side of a patch, in pixels; must divide the sides. Defaults to `16`.
        width: int ≥ 1. Channels. Defaults to `768`.
        depth: int ≥ 1. Number of blocks. Defaults to `12`.
        num_heads: int ≥ 1. Must divide `width`. Defaults to `12`.
        mlp_ratio: int ≥ 1. Channels between the dense layers, a number of times `width`. Defaults
            to `4`.
        class_token: bool. Whether a learned token goes before the patches. Defaults to `True`.
        drop_path: float in [0, 1). Rate of the last block's stochastic depth; it rises linearly
            from 0 at the first. Defaults to `0.0`.

    Returns:
        List of `keras.Sequential`, one per block, each with two `ResidualBlock`.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size or `drop_path` is out of range; patches do not divide the sides, or
            heads the channels.

    Example:
        >>> from keras_trgl.architectures import vit
        >>> len(vit(input_shape=(32, 32, 3), patch_size=4, width=64, num_heads=4))
        12

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, table 1; smaller ones in Touvron
        et al., "Training Data-Efficient Image Transformers", 2021, table 1.
    """
    sizes = {"patch_size": patch_size, "width": width, "depth": depth, "num_heads": num_heads}
    for name, value in (*sizes.items(), ("mlp_ratio", mlp_ratio)):
        check_integer(name, value, 1)
    check_patches(input_shape, patch_size)
    if width % num_heads:
        raise ValueError(
            f"`num_heads` must divide `width`. Received: num_heads={num_heads}, width={width}."
        )
    entry = [
        patches(width, patch_size),
        keras.layers.Reshape((-1, width)),
        PositionEmbedding(class_token, small_normal()),
    ]
    return [
        attention_block(
            SelfAttention(num_heads, small_normal()),
            width,
            mlp_ratio,
            rate,
            1e-6,
            entry=() if position else entry,
            input_shape=None if position else input_shape,
        )
        for position, rate in enumerate(drop_paths(drop_path, depth))
    ]
