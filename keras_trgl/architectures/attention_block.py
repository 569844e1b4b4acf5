"""What Swin and ViT have in common: an attention unit, then a unit of two dense layers."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.architectures.rows import row
from keras_trgl.layers.drop_path import DropPath
from keras_trgl.layers.residual_block import ResidualBlock


def small_normal() -> keras.initializers.Initializer:
    """Give the published start of dense layers: a truncated normal of 0.02."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


def patches(width: int, size: int) -> keras.layers.Layer:
    """Give the convolution that makes a vector of every patch."""
    return keras.layers.Conv2D(
        width,
        size,
        strides=size,
        data_format="channels_last",
        # PyTorch's start of a convolution, which the published code leaves as it is.
        kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
    )


def check_patches(input_shape: Sequence[int], patch_size: int) -> None:
    """Raise unless patches divide the images' sides.

    Raises:
        ValueError: they do not.
    """
    if any(side % patch_size for side in input_shape[:2]):
        raise ValueError(
            "`patch_size` must divide the images' sides. Received: "
            f"patch_size={patch_size}, input_shape={tuple(input_shape)}."
        )


def attention_block(
    attention: keras.layers.Layer,
    width: int,
    mlp_ratio: int,
    drop_path: float,
    epsilon: float,
    entry: Sequence[Any] = (),
    after: Sequence[Any] = (),
    input_shape: tuple[int, ...] | None = None,
) -> keras.Sequential:
    """Give a block with two residuals, each after its stochastic depth.

    Args:
        attention: layer, the attention.
        width: int ≥ 1. Channels.
        mlp_ratio: int ≥ 1. Channels between the two dense layers, in times of `width`.
        drop_path: float in [0, 1). Rate of the stochastic depth.
        epsilon: float > 0. ε of the layer normalizations.
        entry: sequence of layers before the first unit, without energy. Defaults to `()`.
        after: sequence of layers after the second unit, without energy. Defaults to `()`.
        input_shape: tuple of int without the batch axis, or `None`. Defaults to `None`.
    """

    def unit(layers: Sequence[Any], before: Sequence[Any]) -> ResidualBlock:
        norm = keras.layers.LayerNormalization(epsilon=epsilon)
        end = [DropPath(drop_path)] if drop_path else []
        return ResidualBlock([norm, *layers, *end], entry=list(before))

    # Keras's activation of this name is the exact one, unlike `keras.ops.gelu`.
    dense = [
        keras.layers.Dense(mlp_ratio * width, activation="gelu", kernel_initializer=small_normal()),
        keras.layers.Dense(width, kernel_initializer=small_normal()),
    ]
    return row([unit([attention], entry), unit(dense, ()), *after], input_shape)


def drop_paths(last: float, count: int) -> list[float]:
    """Give the rates of the blocks, which rise linearly from 0 to the last one.

    Args:
        last: float in [0, 1). Rate of the last block.
        count: int ≥ 1. Blocks.

    Raises:
        ValueError: `last` is out of range.
    """
    if not 0 <= last < 1:
        raise ValueError(
            f"`drop_path` must be at least 0 and below 1. Received: drop_path={last}. "
            "The published one is 0.1."
        )
    return [last * k / max(count - 1, 1) for k in range(count)]
