"""The auxiliary nets that SEDONA chooses among."""

from typing import Any

import keras

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.heads.head import Head
from keras_trgl.heads.parts import Layers, Parts, image_sides
from keras_trgl.layers.residual_block import ResidualBlock
from keras_trgl.registration import public
from keras_trgl.types import Shape

EXPANSION = 4

DEPTHS: dict[str, dict[int, tuple[int, ...]]] = {
    "vgg19": {2: (4,), 3: (4, 1), 4: (4, 1, 1)},
    "resnet50": {2: (4,), 3: (4, 4), 4: (4, 4, 4)},
    "resnet101": {2: (4,), 3: (4, 4), 4: (4, 4, 4)},
    "resnet152": {2: (4,), 3: (4, 4), 4: (4, 4, 4)},
}
"""Depths at the cuts of `splitting.published("sedona_…")`, by network and number of stages."""


@public
class SedonaHead(Head):
    """A light network of inverted residuals, as deep as SEDONA's search found it.

    With p a quarter of the channels: 1x1 convolution to p; 3x3 convolution of stride 2, every
    channel by itself; `depth - 1` inverted residuals of expansion 4, every second one with stride
    2, where something is left to halve, and p/2 channels more; 1x1 convolution to `width`; mean
    over positions; dense layer. Batch normalization and ReLU follow all convolutions but the last
    of an inverted residual, which has no ReLU. Its sums count for no energy. Published with the
    splits of `splitting.published`: see `SedonaHead.published`; the last stage has the network's
    own classifier.

    Args:
        units: int > 0. Numbers in a prediction.
        depth: int ≥ 1. Convolutions of stride 1 or 2, the first one included. Defaults to `4`.
        width: int ≥ 1. Channels before the mean: 2048 for TinyImageNet, 512 for CIFAR. Defaults
            to `2048`.
        kernel_initializer: `keras.initializers.Initializer` of the kernels, or its name. Defaults
            to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        TypeError: `depth` or `width` is no integer.
        ValueError: `units`, `depth` or `width` is below 1; another word for `data_format`; at
            build, features that are no images of known size, or have less than four channels.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import SedonaHead
        >>> SedonaHead(units=10, width=32)(np.ones((2, 8, 8, 16), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Pyeon et al., "SEDONA: Search for Decoupled Neural Networks", ICLR 2021, and its code.
    """

    def __init__(
        self,
        units: int,
        depth: int = 4,
        width: int = 2048,
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        check_integer("depth", depth, 1)
        check_integer("width", width, 1)
        self.depth = int(depth)
        self.width = int(width)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    @classmethod
    def published(
        cls, network: str, num_stages: int, units: int, **kwargs: Any
    ) -> list["SedonaHead"]:
        """Give the heads below the last stage that were published with a split.

        Args:
            network: `"vgg19"`, `"resnet50"`, `"resnet101"` or `"resnet152"`; the sizes of its
                stages are `splitting.published(f"sedona_{network}", num_stages)`.
            num_stages: int, 2 to 4 stages.
            units: int > 0. Numbers in a prediction.
            **kwargs: further arguments of each head, such as `width`.

        Returns:
            List of `num_stages − 1` unbuilt heads.

        Raises:
            ValueError: another network or number of stages.
        """
        check_choice("network", network, tuple(DEPTHS))
        check_choice("num_stages", num_stages, tuple(DEPTHS[network]))
        return [cls(units, depth, **kwargs) for depth in DEPTHS[network][num_stages]]

    def make_layers(self, input_shape: Shape) -> list[keras.layers.Layer]:
        """Give the head's layers.

        Args:
            input_shape: tuple, `(batch, height, width, channels)`.

        Returns:
            List of layers.

        Raises:
            ValueError: features that are no images of known size, or of less than four channels.
        """
        height, _, channels = image_sides(self, input_shape)
        if channels < 4:
            raise ValueError(
                f"`SedonaHead` takes features of at least 4 channels. Received: {input_shape}. "
                "Use `ConvHead`."
            )
        make = Parts(self, self.kernel_initializer)
        before = base = channels // 4
        row = [*make.conv(base, 1), *make.depthwise(2)]
        side = height // 2
        for position in range(self.depth - 1):
            halves = position % 2 == 1 and side >= 2
            after = before + base // 2 if halves else before
            inner: Layers = [
                *make.conv(EXPANSION * before, 1),
                *make.depthwise(2 if halves else 1),
                *make.conv(after, 1)[:-1],
            ]
            row += inner if halves else [ResidualBlock(inner, dtype=self.dtype_policy)]
            before, side = after, side // 2 if halves else side
        return [
            *row,
            *make.conv(self.width, 1),
            *self.mean(len(input_shape)),
            make.dense(self.units),
        ]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "depth": self.depth,
            "width": self.width,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
