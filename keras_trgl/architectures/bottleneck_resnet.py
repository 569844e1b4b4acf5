"""Residual networks of bottleneck blocks: ResNet-50, -101 and -152."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_trgl.architectures.convolutions import FORMAT, Layers, Maker
from keras_trgl.checks import check_choice, check_integer
from keras_trgl.layers.batch_normalization import BatchNormalization
from keras_trgl.layers.residual_block import ResidualBlock
from keras_trgl.registration import public

STEMS = ("imagenet", "tiny_imagenet", "cifar")
EXPANSION = 4


@public
def resnet50(
    input_shape: tuple[int, int, int],
    stem: str = "imagenet",
    width: int = 64,
    gain: float = 0.1,
    weight_decay: float = 0.0,
    normalization: Callable[..., Any] = BatchNormalization,
) -> list[ResidualBlock]:
    """Give ResNet-50 as 16 bottleneck blocks, in groups of 3, 4, 6 and 3.

    A block is 1x1-BN-ReLU-3x3-BN-ReLU-1x1-BN, sum, ReLU; its residual is the branch after the
    third BN. A group's first block has the 1x1 convolution and BN as shortcut. The stride of 2
    that begins groups 2 to 4 is on the 3x3 convolution, as in the published code; He et al. and
    `keras.applications` have it on the first 1x1 convolution, with the same shapes and sizes. The
    stem is the entry of the first block.

    Args:
        input_shape: tuple of int `(height, width, channels)`, in pixels.
        stem: `"imagenet"`: 7x7 convolution of stride 2, BN, ReLU, 3x3 max pool of stride 2.
            `"tiny_imagenet"`: the same without the pool. `"cifar"`: 3x3 convolution, BN, ReLU.
            Defaults to `"imagenet"`.
        width: int ≥ 1. Channels of the stem, and inside the first group's blocks, which give four
            times as many; each group doubles them. Defaults to `64`.
        gain: float > 0. Gain of the orthogonal kernels; 1 keeps norms. Defaults to `0.1`.
        weight_decay: float ≥ 0. PyTorch-style coupled decay of every parameter. Defaults to `0.0`.
        normalization: class or function that makes a batch normalization from `momentum` and
            `epsilon`. Defaults to `BatchNormalization`.

    Returns:
        List of 16 `ResidualBlock`.

    Raises:
        TypeError: `width` is no integer.
        ValueError: `stem` is another word, or `width` is below 1.

    Example:
        >>> from keras_trgl.architectures import resnet50
        >>> blocks = resnet50(input_shape=(64, 64, 3), stem="tiny_imagenet")
        >>> len(blocks)
        16

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, table 1; Karkar et al.,
        "Module-wise Training of Neural Networks via the Minimizing Movement Scheme", NeurIPS 2023:
        stems of its code.
    """
    return _bottlenecks((3, 4, 6, 3), input_shape, stem, width, gain, weight_decay, normalization)


@public
def resnet101(
    input_shape: tuple[int, int, int], stem: str = "imagenet", width: int = 64, **options: Any
) -> list[ResidualBlock]:
    """Give ResNet-101 as 33 bottleneck blocks, in groups of 3, 4, 23 and 3.

    Args:
        input_shape: see `resnet50`.
        stem: see `resnet50`. Defaults to `"imagenet"`.
        width: see `resnet50`. Defaults to `64`.
        **options: see `resnet50`: `gain`, `weight_decay`, `normalization`.

    Returns:
        List of 33 `ResidualBlock`.

    Raises:
        TypeError: `width` is no integer.
        ValueError: `stem` is another word, or `width` is below 1.

    Example:
        >>> from keras_trgl.architectures import resnet101
        >>> len(resnet101(input_shape=(32, 32, 3), stem="cifar"))
        33

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, table 1.
    """
    return _bottlenecks((3, 4, 23, 3), input_shape, stem, width, **options)


@public
def resnet152(
    input_shape: tuple[int, int, int], stem: str = "imagenet", width: int = 64, **options: Any
) -> list[ResidualBlock]:
    """Give ResNet-152 as 50 bottleneck blocks, in groups of 3, 8, 36 and 3.

    Args:
        input_shape: see `resnet50`.
        stem: see `resnet50`. Defaults to `"imagenet"`.
        width: see `resnet50`. Defaults to `64`.
        **options: see `resnet50`: `gain`, `weight_decay`, `normalization`.

    Returns:
        List of 50 `ResidualBlock`.

    Raises:
        TypeError: `width` is no integer.
        ValueError: `stem` is another word, or `width` is below 1.

    Example:
        >>> from keras_trgl.architectures import resnet152
        >>> len(resnet152(input_shape=(64, 64, 3), stem="tiny_imagenet"))
        50

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, table 1.
    """
    return _bottlenecks((3, 8, 36, 3), input_shape, stem, width, **options)


def _bottlenecks(
    groups: Sequence[int],
    input_shape: tuple[int, int, int],
    stem: str,
    width: int,
    gain: float = 0.1,
    weight_decay: float = 0.0,
    normalization: Callable[..., Any] = BatchNormalization,
) -> list[ResidualBlock]:
    """Give the blocks of a network with so many in each group."""
    check_choice("stem", stem, STEMS)
    check_integer("width", width, 1)
    make = Maker(gain, weight_decay, normalization)
    blocks: list[ResidualBlock] = []
    for group, count in enumerate(groups):
        inner = width * 2**group
        for position in range(count):
            first = not blocks
            stride = 2 if position == 0 and not first else 1
            skip: Layers = []
            if position == 0:
                skip = [*make.conv(EXPANSION * inner, 1, stride), make.norm()]
            branch = make.conv_norm_relu(inner, 1) + make.conv_norm_relu(inner, 3, stride)
            branch += [*make.conv(EXPANSION * inner, 1), make.norm()]
            blocks.append(
                ResidualBlock(
                    branch,
                    shortcut=skip,
                    activation="relu",
                    entry=_stem(stem, width, make) if first else None,
                    input_shape=input_shape if first else None,
                )
            )
    return blocks


def _stem(kind: str, width: int, make: Maker) -> Layers:
    if kind == "cifar":
        return make.conv_norm_relu(width, 3)
    layers = make.conv_norm_relu(width, 7, 2)
    if kind == "imagenet":
        # Zeros stand for the −∞ that a pool pads with: after a ReLU nothing is below them.
        layers.append(keras.layers.ZeroPadding2D(1, FORMAT))
        layers.append(keras.layers.MaxPooling2D(3, 2, data_format=FORMAT))
    return layers
