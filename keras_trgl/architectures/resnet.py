"""Residual networks of small images as flat lists of blocks, with the published shapes."""

from collections.abc import Callable
from typing import Any

import keras

from keras_trgl.architectures.convolutions import FORMAT, Layers, Maker, relu
from keras_trgl.checks import check_choice, check_integer
from keras_trgl.layers.batch_normalization import BatchNormalization
from keras_trgl.layers.pad_shortcut import PadShortcut
from keras_trgl.layers.residual_block import ResidualBlock
from keras_trgl.registration import public


@public
def resnet(
    depth: int,
    input_shape: tuple[int, int, int],
    widths: tuple[int, ...] = (16, 32, 64),
    shortcut: str = "pad",
    gain: float = 0.1,
    weight_decay: float = 0.0,
    normalization: Callable[..., Any] = BatchNormalization,
) -> list[ResidualBlock]:
    """Give a ResNet of depth 6n + 2 for small images as (depth − 2)/2 basic blocks.

    A block is conv-BN-ReLU-conv-BN, sum, ReLU; its residual is the branch after the second BN.
    The stem (3x3 convolution, BN, ReLU) is the entry of the first block. Each width after the
    first begins with stride 2.

    Args:
        depth: int ≥ 4, layers: 20, 32, 56, 110 and so on: `2 * len(widths) * n + 2`.
        input_shape: tuple of int `(height, width, channels)`, in pixels.
        widths: tuple of int. Channels of each group of n blocks. Defaults to `(16, 32, 64)`.
        shortcut: `"pad"`: every second pixel, zeros as upper channels (option A). `"conv"`: 1x1
            convolution and BN (option B). Defaults to `"pad"`.
        gain: float > 0. Gain of the orthogonal kernels; 1 keeps norms. Defaults to `0.1`.
        weight_decay: float ≥ 0. PyTorch-style coupled decay of every parameter. Defaults to `0.0`.
        normalization: class or function that makes a batch normalization from `momentum` and
            `epsilon`. Defaults to `BatchNormalization`.

    Returns:
        List of `ResidualBlock`.

    Raises:
        ValueError: `depth` is no `2 * len(widths) * n + 2`, or `shortcut` is another word.

    Example:
        >>> from keras_trgl.architectures import resnet
        >>> len(resnet(depth=110, input_shape=(32, 32, 3)))
        54

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2.
    """
    check_integer("depth", depth, 1)
    check_choice("shortcut", shortcut, ("pad", "conv"))
    step = 2 * len(widths)
    if (depth - 2) % step or depth < step + 2:
        raise ValueError(
            f"`depth` must be {step}n + 2 for {len(widths)} widths. Received: depth={depth}. "
            f"Near it: {max(depth - 2, step) // step * step + 2}."
        )
    make = Maker(gain, weight_decay, normalization)
    blocks: list[ResidualBlock] = []
    before = widths[0]
    for width in widths:
        for position in range((depth - 2) // step):
            first = not blocks
            stride = 2 if position == 0 and not first else 1
            skip: Layers = []
            if stride == 2 or before != width:
                if shortcut == "pad":
                    skip = [PadShortcut(width, stride, FORMAT)]
                else:
                    skip = [*make.conv(width, 1, stride), make.norm()]
            branch = [*make.conv(width, 3, stride), make.norm(), relu()]
            branch += [*make.conv(width, 3), make.norm()]
            blocks.append(
                ResidualBlock(
                    branch,
                    shortcut=skip,
                    activation="relu",
                    entry=[*make.conv(width, 3), make.norm(), relu()] if first else None,
                    input_shape=input_shape if first else None,
                )
            )
            before = width
    return blocks


@public
def blockwise_resnet(
    input_shape: tuple[int, int, int],
    num_blocks: int = 10,
    width: int = 256,
    gain: float = 0.05,
    weight_decay: float = 0.0,
    normalization: Callable[..., Any] = BatchNormalization,
    encoder: str = "wide",
    separate_encoder: bool = False,
) -> list[keras.layers.Layer]:
    """Give the pre-activation ResNet of the block-wise experiments ('10-1').

    An encoder (3x3 convolution to `width / 2`, BN, ReLU, 5x5 convolution of stride 2 to `width`,
    BN, ReLU) is the entry of the first block. Blocks are BN-ReLU-conv-BN-ReLU-conv with nothing
    after the sum; the first one and the one after the midpoint begin with their convolution.
    At the midpoint a 1x1 convolution of stride 2 doubles the width.

    Args:
        input_shape: tuple of int `(height, width, channels)`, in pixels.
        num_blocks: int ≥ 2. Residual blocks. Defaults to `10`.
        width: int ≥ 2, even. Channels of the first half. Defaults to `256`.
        gain: float > 0. Gain of the orthogonal kernels; 1 keeps norms. Defaults to `0.05`.
        weight_decay: float ≥ 0. PyTorch-style coupled decay of every parameter. Defaults to `0.0`.
        normalization: class or function that makes a batch normalization from `momentum` and
            `epsilon`. Defaults to `BatchNormalization`.
        encoder: `"wide"`: the two convolutions above. `"simple"`: one 5x5 convolution of stride 2
            to `width`, BN, ReLU (a published variant). Defaults to `"wide"`.
        separate_encoder: bool. Whether the encoder is a block of its own, without energy, before
            the others, as in the published sequential runs; the model is then built by its first
            data. Defaults to `False`.

    Returns:
        List of `ResidualBlock`, with `separate_encoder` after a `keras.Sequential`.

    Raises:
        ValueError: `num_blocks` or `width` is below 2, `width` is odd, or `encoder` is another
            word.

    Example:
        >>> from keras_trgl.architectures import blockwise_resnet
        >>> len(blockwise_resnet(input_shape=(28, 28, 1), width=32))
        10

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, section 4 ('10-1 ResNet').
    """
    check_integer("num_blocks", num_blocks, 2)
    check_integer("width", width, 2)
    if width % 2:
        raise ValueError(f"`width` must be even. Received: width={width}.")
    check_choice("encoder", encoder, ("wide", "simple"))
    make = Maker(gain, weight_decay, normalization)
    stem = [*make.conv(width // 2, 3, bias=True), make.norm(), relu()] if encoder == "wide" else []
    stem += [*make.conv(width, 5, 2, bias=True), make.norm(), relu()]
    blocks = []
    for position in range(num_blocks):
        middle = position == num_blocks // 2
        channels = width if position < num_blocks // 2 else 2 * width
        fresh = position == 0 or middle
        branch = [] if fresh else [make.norm(), relu()]
        branch += [*make.conv(channels, 3), make.norm(), relu(), *make.conv(channels, 3)]
        first = position == 0 and not separate_encoder
        entry = stem if first else (make.conv(channels, 1, 2) if middle else None)
        blocks.append(
            ResidualBlock(branch, entry=entry, input_shape=input_shape if first else None)
        )
    if separate_encoder:
        return [keras.Sequential(stem), *blocks]
    return blocks
