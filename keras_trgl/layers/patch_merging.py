"""Fewer positions, more channels, between the layers of a Swin transformer."""

from typing import Any

import keras
from keras import ops

from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Shape, Tensor


@public
class PatchMerging(Recorded, keras.layers.Layer):
    """Joins 2x2 neighbours into one position: their 4c channels normalized, then 2c by a matrix.

    The four come column by column: upper left, lower left, upper right, lower right. Channels are
    last, whatever Keras's default. Parameters: `8c + 8c²`.

    Args:
        kernel_initializer: `keras.initializers.Initializer` of the matrix, or its name. Defaults
            to `"glorot_uniform"`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: at build, for inputs that are no `(batch, height, width, channels)` of known,
            even sides.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.layers import PatchMerging
        >>> PatchMerging()(np.ones((1, 8, 8, 6), "float32")).shape
        TensorShape([1, 4, 4, 12])

    Reference:
        Liu et al., "Swin Transformer", 2021, section 3.1, and its code for the order.
    """

    data_format = "channels_last"

    def __init__(self, kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Shape) -> None:
        """Make the normalization and the matrix for inputs of this shape, batch axis included."""
        sides = input_shape[1:3]
        if len(input_shape) != 4 or None in input_shape[1:] or any(int(s or 0) % 2 for s in sides):
            raise ValueError(
                f"{self.name} joins 2x2 neighbours of a grid with known, even sides. Received: "
                f"inputs {tuple(input_shape)}. Use images whose side in patches is even, or fewer "
                "layers."
            )
        channels = int(input_shape[3] or 0)
        self.norm = keras.layers.LayerNormalization(
            epsilon=1e-5, name="norm", dtype=self.dtype_policy
        )
        self.norm.build((*input_shape[:3], 4 * channels))
        self.reduction = keras.layers.Dense(
            2 * channels,
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            name="reduction",
            dtype=self.dtype_policy,
        )
        self.reduction.build((*input_shape[:3], 4 * channels))

    def call(self, inputs: Tensor) -> Tensor:
        """Give the merged positions.

        Args:
            inputs: tensor, `(batch, height, width, channels)`.

        Returns:
            Tensor, half as high and wide, with twice the channels.
        """
        height, width, channels = inputs.shape[1:]
        x = ops.reshape(inputs, (-1, height // 2, 2, width // 2, 2, channels))
        x = ops.transpose(x, (0, 1, 3, 4, 2, 5))
        x = ops.reshape(x, (-1, height // 2, width // 2, 4 * channels))
        return self.reduction(self.norm(x))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the output's shape; needs nothing built."""
        batch, height, width, channels = input_shape
        halves = [None if side is None else side // 2 for side in (height, width)]
        return (batch, *halves, None if channels is None else 2 * channels)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
