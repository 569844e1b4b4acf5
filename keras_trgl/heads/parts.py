"""The layers that heads are made of: one type, one place of the channels, one start of kernels."""

from typing import Any

import keras

from keras_trgl.heads.head import Head
from keras_trgl.layers.batch_normalization import BatchNormalization

Layers = list[keras.layers.Layer]


class Parts:
    """Makes layers for a head.

    Args:
        head: `Head` whose `data_format` is settled.
        kernel_initializer: initializer of the kernels. Every kernel gets a copy, which draws
            numbers of its own; from one they would be alike where shapes allow.
    """

    def __init__(self, head: Head, kernel_initializer: Any) -> None:
        self._dtype = head.dtype_policy
        self._format = head.data_format
        self._axis = head.channel_axis
        self._initializer = kernel_initializer

    def conv(self, channels: int, size: int, stride: int = 1) -> Layers:
        """Give a convolution without bias, batch normalization and ReLU."""
        conv = keras.layers.Conv2D(
            channels, size, use_bias=False, kernel_initializer=self._kernel(), **self._at(stride)
        )
        return [*self._pad(stride), conv, self.norm(), self.relu()]

    def depthwise(self, stride: int) -> Layers:
        """Give a 3x3 convolution of every channel by itself, batch normalization and ReLU."""
        conv = keras.layers.DepthwiseConv2D(
            3, use_bias=False, depthwise_initializer=self._kernel(), **self._at(stride)
        )
        return [*self._pad(stride), conv, self.norm(), self.relu()]

    def _at(self, stride: int) -> dict[str, Any]:
        padding = "valid" if stride > 1 else "same"
        form = {"data_format": self._format, "dtype": self._dtype}
        return {"strides": stride, "padding": padding, **form}

    def _pad(self, stride: int) -> Layers:
        # At stride 2 Keras's `same` pads right and bottom only.
        if stride == 1:
            return []
        return [keras.layers.ZeroPadding2D(1, data_format=self._format, dtype=self._dtype)]

    def norm(self) -> keras.layers.Layer:
        """Give a batch normalization over the channels."""
        return BatchNormalization(axis=self._axis, momentum=0.9, epsilon=1e-5, dtype=self._dtype)

    def vector_norm(self) -> keras.layers.Layer:
        """Give a batch normalization of flat features."""
        return BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self._dtype)

    def relu(self) -> keras.layers.Layer:
        """Give a ReLU."""
        return keras.layers.ReLU(dtype=self._dtype)

    def dense(self, units: int) -> keras.layers.Layer:
        """Give a dense layer."""
        return keras.layers.Dense(units, kernel_initializer=self._kernel(), dtype=self._dtype)

    def flat(self) -> keras.layers.Layer:
        """Give what makes vectors of images."""
        return keras.layers.Flatten(data_format=self._format, dtype=self._dtype)

    def average(self, sides: tuple[int, int], wanted: tuple[int, int]) -> Layers:
        """Give what averages images of one size to another, as adaptive pooling does."""
        options = {"data_format": self._format, "dtype": self._dtype}
        row: Layers = []
        uneven = [side > 1 and side % to > 0 for side, to in zip(sides, wanted, strict=True)]
        # In a graph Keras's adaptive pool (3.15, TensorFlow) wants windows and sides of two pixels
        # at least, so it gets the uneven sides alone.
        least = 2 if any(uneven) else 1
        times = tuple(
            max(to, least) if one == 1 else 1 for one, to in zip(sides, wanted, strict=True)
        )
        if times != (1, 1):
            row.append(keras.layers.UpSampling2D(times, **options))
        now = [side * by for side, by in zip(sides, times, strict=True)]
        if any(uneven):
            now = [to if odd else side for side, to, odd in zip(now, wanted, uneven, strict=True)]
            row.append(keras.layers.AdaptiveAveragePooling2D(tuple(now), **options))
        windows = tuple(side // to for side, to in zip(now, wanted, strict=True))
        if windows != (1, 1):
            row.append(keras.layers.AveragePooling2D(windows, **options))
        return row

    def _kernel(self) -> Any:
        return self._initializer.clone()


def image_sides(head: Head, shape: Any) -> tuple[int, int, int]:
    """Give height, width and channels of images.

    Raises:
        ValueError: the features are no images of known size.
    """
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            f"`{type(head).__name__}` takes features (batch, height, width, channels) of known "
            f"size. Received: {tuple(shape)}. Use `LinearHead` for other features."
        )
    sides = shape[2:] if head.channel_axis == 1 else shape[1:3]
    return int(sides[0]), int(sides[1]), int(shape[head.channel_axis])
