"""Layers of convolutional networks, with the shapes of the published code.

Every convolution pads one pixel on each side for a 3x3 kernel. At stride 2 that takes a layer of
its own, since Keras's `same` pads right and bottom only; at stride 1 `same` does it without a copy.
Batch normalization uses momentum 0.9 and ε 1e-5. Channels come last, whatever Keras's default.
"""

from collections.abc import Callable
from typing import Any

import keras

Layers = list[keras.layers.Layer]
FORMAT = "channels_last"


class Maker:
    """Makes the layers of one network: one gain, one decay, one kind of normalization.

    Args:
        gain: float > 0. Gain of the orthogonal kernels.
        weight_decay: float ≥ 0. PyTorch-style coupled decay of every parameter.
        normalization: class or function that makes a batch normalization.
    """

    def __init__(self, gain: float, weight_decay: float, normalization: Callable[..., Any]) -> None:
        self.gain = gain
        self.weight_decay = weight_decay
        self.normalization = normalization

    def _decay(self, *names: str) -> dict[str, Any]:
        if not self.weight_decay:
            return {}
        # L2 adds c·w², gradient 2c·w: half the coupled decay of the published code.
        return {
            f"{name}_regularizer": keras.regularizers.L2(self.weight_decay / 2) for name in names
        }

    def conv(self, channels: int, size: int, stride: int = 1, bias: bool = False) -> Layers:
        """Give the padding, where one is needed, and the convolution."""
        pad = [keras.layers.ZeroPadding2D(size // 2, FORMAT)] if size > 1 and stride > 1 else []
        conv = keras.layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="valid" if pad or size == 1 else "same",
            use_bias=bias,
            data_format=FORMAT,
            kernel_initializer=keras.initializers.Orthogonal(self.gain),
            **self._decay("kernel", *(["bias"] if bias else [])),
        )
        return [*pad, conv]

    def norm(self) -> keras.layers.Layer:
        """Give a batch normalization."""
        return self.normalization(momentum=0.9, epsilon=1e-5, **self._decay("gamma", "beta"))

    def conv_norm_relu(
        self, channels: int, size: int, stride: int = 1, bias: bool = False
    ) -> Layers:
        """Give a convolution, batch normalization and ReLU."""
        return [*self.conv(channels, size, stride, bias), self.norm(), relu()]


def relu() -> keras.layers.Layer:
    """Give a ReLU."""
    return keras.layers.ReLU()
