"""The small net that rebuilds what a stage was made from, out of its features."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_trgl.layers.batch_normalization import BatchNormalization
from keras_trgl.layers.chain import build_chain
from keras_trgl.types import Shape, Tensor

WIDTH = 12
"""Channels between the two convolutions, as published."""


def aligned_matrix(size: int, wanted: int) -> Any:
    """Give the matrix of linear interpolation with aligned corners, `(wanted, size)`.

    The first and the last position stay where they are, as in PyTorch's `align_corners=True`;
    Keras's own resizing has half-pixel centres.

    Args:
        size: int ≥ 1. Positions there are.
        wanted: int ≥ 1. Positions to give.
    """
    places = np.linspace(0.0, size - 1.0, wanted) if wanted > 1 else np.zeros(1)
    left = np.minimum(np.floor(places).astype(int), max(size - 2, 0))
    matrix = np.zeros((wanted, size))
    rows, share = np.arange(wanted), places - left
    matrix[rows, left] += 1.0 - share
    matrix[rows, np.minimum(left + 1, size - 1)] += share
    return matrix


def grids(target: Shape, features: Shape, first: bool = False) -> Any:
    """Give the positions of what is rebuilt and of the features: rows and columns, or tokens.

    Args:
        target: tuple, shape of what is to be rebuilt, batch axis included.
        features: tuple, shape of the features, batch axis included.
        first: bool. Whether images have their channels first. Defaults to `False`.

    Returns:
        Pair of tuples of int, as long as each other; `None` where nothing fits.
    """
    wanted, there = (_grid(tuple(shape)[1:], first) for shape in (target, features))
    if wanted is None or there is None:
        return None
    if len(wanted) == len(there):
        return [wanted, there]
    # One of two rows of tokens is a square: both are rows. An image has no row.
    rows = len(target) == len(features) == 3
    return [(int(target[1] or 0),), (int(features[1] or 0),)] if rows else None


def _grid(shape: Shape, first: bool) -> tuple[int, ...] | None:
    if len(shape) not in (2, 3) or None in shape:
        return None
    known = [int(side or 0) for side in shape]
    if len(known) == 3:
        return (known[1], known[2]) if first else (known[0], known[1])
    side = round(known[0] ** 0.5)
    return (side, side) if side * side == known[0] else (known[0],)


class Decoder(keras.layers.Layer):
    """Resize with aligned corners, 3x3 convolution to 12 channels, BN, ReLU, 3x3 convolution.

    Rows of tokens are taken as the square grid that they are, where they are one, else as a row.

    Args:
        target_shape: tuple of int, the shape to give, without the batch axis: that of an image
            in `data_format`, or `(tokens, channels)`.
        width: int ≥ 1. Channels between the convolutions.
        data_format: `"channels_last"` or `"channels_first"`, or `None` for Keras's. Defaults to
            `None`.
        **kwargs: `name` and the like.
    """

    def __init__(
        self, target_shape: Shape, width: int, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)
        self.width = int(width)
        self.data_format = data_format
        self._row: list[keras.layers.Layer] = []

    def build(self, input_shape: Shape) -> None:
        """Make the convolutions for features of this shape, batch axis included."""
        is_image = len(self.target_shape) == 3
        form = self.data_format or keras.config.image_data_format()
        form = form if is_image else "channels_last"
        first = form == "channels_first"
        sizes = grids((None, *self.target_shape), input_shape, first)
        if sizes is None:
            raise ValueError(
                f"A decoder gives images or tokens. Received: {self.target_shape} to be made "
                f"from features {tuple(input_shape)}."
            )
        self._to, self._from = sizes
        self._letters = "bhc" if len(self._to) == 1 else ("bchw" if first else "bhwc")
        conv: Any = keras.layers.Conv1D if len(self._to) == 1 else keras.layers.Conv2D
        options = {"padding": "same", "data_format": form, "dtype": self.dtype_policy}
        norm = BatchNormalization(
            axis=self.channel_axis, momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy
        )
        relu = keras.layers.ReLU(dtype=self.dtype_policy)
        channels = self.target_shape[0 if first else -1]
        self._row = [conv(self.width, 3, **options), norm, relu, conv(channels, 3, **options)]
        self._matrices = [aligned_matrix(*pair) for pair in zip(self._from, self._to, strict=True)]
        # Tokens have their channels last, whatever the format of images.
        depth = input_shape[1 if first and len(input_shape) == 4 else -1]
        shape = (None, depth, *self._to) if first else (None, *self._to, depth)
        build_chain(self._row, shape)

    @property
    def channel_axis(self) -> int:
        """Axis of the channels of what it gives."""
        return 1 if self._letters == "bchw" else -1

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        """Give what is rebuilt, before any last function.

        Args:
            features: tensor, `(batch, …)`.
            training: bool. Whether to normalize by the batch. Defaults to the caller's.

        Returns:
            Tensor, `(batch, *target_shape)`.
        """
        x = features
        if "w" in self._letters and len(x.shape) == 3:
            x = ops.reshape(x, (-1, *self._from, x.shape[-1]))
            x = ops.moveaxis(x, -1, 1) if self.channel_axis == 1 else x
        for axis, matrix in zip("hw", self._matrices, strict=False):
            if matrix.shape[0] != matrix.shape[1]:
                to = self._letters.replace(axis, axis.upper())
                kept = ops.convert_to_tensor(matrix, dtype=x.dtype)
                x = ops.einsum(f"{axis.upper()}{axis},{self._letters}->{to}", kept, x)
        for layer in self._row:
            x = layer(x, training=training) if isinstance(layer, BatchNormalization) else layer(x)
        return ops.reshape(x, (-1, *self.target_shape))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the target's shape."""
        return (input_shape[0], *self.target_shape)
