"""VGG with batch normalization as a flat list of its convolutions."""

from collections.abc import Callable
from typing import Any

import keras

from keras_trgl.architectures.convolutions import FORMAT, Maker
from keras_trgl.architectures.rows import row
from keras_trgl.checks import check_choice, check_integer
from keras_trgl.layers.batch_normalization import BatchNormalization
from keras_trgl.registration import public

GROUPS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions of each group, by depth; three dense layers follow in the original network."""


@public
def vgg(
    depth: int,
    input_shape: tuple[int, int, int],
    width: int = 64,
    bias: bool = False,
    gain: float = 0.1,
    weight_decay: float = 0.0,
    normalization: Callable[..., Any] = BatchNormalization,
) -> list[keras.Sequential]:
    """Give VGG as its convolutions, each with batch normalization and ReLU, and no residual.

    The 2x2 max pool between two groups is at the start of the block that follows it; the last one
    belongs to the head, as by `heads.DenseHead(units, pool=2)`. Blocks have no residual, so that
    a model made of them has no energy: train it by `VanGL`.

    Args:
        depth: int, number of layers with weights, three dense ones included: 11, 13, 16 or 19.
        input_shape: tuple of int `(height, width, channels)`, in pixels.
        width: int ≥ 1. Channels of the first group; groups 2, 3 and 4 double them. Defaults to
            `64`.
        bias: bool. Whether convolutions have a bias, as some published code has them before batch
            normalization. Defaults to `False`.
        gain: float > 0. Gain of the orthogonal kernels; 1 keeps norms. Defaults to `0.1`.
        weight_decay: float ≥ 0. PyTorch-style coupled decay of every parameter. Defaults to `0.0`.
        normalization: class or function that makes a batch normalization from `momentum` and
            `epsilon`. Defaults to `BatchNormalization`.

    Returns:
        List of `depth - 3` `keras.Sequential`.

    Raises:
        TypeError: `width` is no integer.
        ValueError: another `depth`, or `width` is below 1.

    Example:
        >>> from keras_trgl.architectures import vgg
        >>> len(vgg(depth=19, input_shape=(64, 64, 3)))
        16

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
        Recognition", 2015, table 1 (columns A, B, D, E).
    """
    check_choice("depth", depth, tuple(GROUPS))
    check_integer("width", width, 1)
    make = Maker(gain, weight_decay, normalization)
    blocks: list[keras.Sequential] = []
    for group, count in enumerate(GROUPS[depth]):
        for position in range(count):
            pooled = group > 0 and position == 0
            pool = [keras.layers.MaxPooling2D(2, data_format=FORMAT)] if pooled else []
            unit = make.conv_norm_relu(width * 2 ** min(group, 3), 3, bias=bias)
            blocks.append(row([*pool, *unit], None if blocks else input_shape))
    return blocks
