"""Self-attention over a sequence, as a layer of one input."""

from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Shape, Tensor


@public
class SelfAttention(Recorded, keras.layers.Layer):
    """Keras's `MultiHeadAttention` of a sequence to itself, so that it fits into a branch.

    Each head has channels / `num_heads` channels. Parameters: `4c² + 4c`.

    Args:
        num_heads: int ≥ 1. Must divide the channels.
        kernel_initializer: `keras.initializers.Initializer` of the four matrices, or its name.
            Defaults to `"glorot_uniform"`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        TypeError: `num_heads` is no integer.
        ValueError: `num_heads` is below 1; at build, for inputs of another rank than 3, or
            channels that `num_heads` does not divide.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.layers import SelfAttention
        >>> SelfAttention(num_heads=2)(np.ones((1, 5, 6), "float32")).shape
        TensorShape([1, 5, 6])

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017, section 3.2.
    """

    def __init__(
        self, num_heads: int, kernel_initializer: Any = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        check_integer("num_heads", num_heads, 1)
        self.num_heads = int(num_heads)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Shape) -> None:
        """Make the attention for inputs of this shape, batch axis included."""
        channels = int(input_shape[-1] or 0)
        if len(input_shape) != 3 or not channels or channels % self.num_heads:
            raise ValueError(
                f"{self.name} takes (batch, positions, channels), and `num_heads` must divide the "
                f"channels. Received: inputs {tuple(input_shape)}, num_heads={self.num_heads}."
            )
        self.attention = keras.layers.MultiHeadAttention(
            self.num_heads,
            channels // self.num_heads,
            kernel_initializer=self.kernel_initializer,
            name="attention",
            dtype=self.dtype_policy,
        )
        self.attention.build(tuple(input_shape), tuple(input_shape))

    def call(self, inputs: Tensor) -> Tensor:
        """Let every position attend to all.

        Args:
            inputs: tensor, `(batch, …, channels)` of rank 3.

        Returns:
            Tensor of the inputs' shape.
        """
        return self.attention(inputs, inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the inputs' shape."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
