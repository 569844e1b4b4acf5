"""Learned positions of a sequence, and a token that stands for the whole of it."""

from typing import Any

import keras
from keras import ops

from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Shape, Tensor


@public
class PositionEmbedding(Recorded, keras.layers.Layer):
    """Adds a learned vector to every position, maybe after a learned class token was put first.

    Args:
        class_token: bool. Whether a learned token, zero at the start, goes before the others.
            Defaults to `False`.
        initializer: `keras.initializers.Initializer` of the positions, or its name. Defaults to
            `"zeros"`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: at build, for inputs of another rank than 3, or of unknown length.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.layers import PositionEmbedding
        >>> PositionEmbedding(class_token=True)(np.ones((1, 4, 6), "float32")).shape
        TensorShape([1, 5, 6])

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, equation 1.
    """

    def __init__(
        self, class_token: bool = False, initializer: Any = "zeros", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.class_token = bool(class_token)
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape: Shape) -> None:
        """Make the vectors for inputs of this shape, batch axis included."""
        if len(input_shape) != 3 or None in input_shape[1:]:
            raise ValueError(
                f"{self.name} takes (batch, positions, channels) of known length. Received: "
                f"inputs {tuple(input_shape)}. Give the data's sides."
            )
        shape = self.compute_output_shape(input_shape)[1:]
        self.positions = self.add_weight(
            name="positions", shape=shape, initializer=self.initializer
        )
        if self.class_token:
            self.token = self.add_weight(name="token", shape=(1, shape[1]), initializer="zeros")

    def call(self, inputs: Tensor) -> Tensor:
        """Give the sequence with its positions.

        Args:
            inputs: tensor, `(batch, …, channels)` of rank 3.

        Returns:
            Tensor of the inputs' shape, one longer with a class token.
        """
        if not self.class_token:
            return inputs + self.positions
        batch = ops.shape(inputs)[0]
        token = ops.broadcast_to(self.token, (batch, 1, inputs.shape[2]))
        return ops.concatenate([token, inputs], axis=1) + self.positions

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Give the inputs' mask; the class token is to be seen."""
        if previous_mask is None or not self.class_token:
            return previous_mask
        seen = ops.ones_like(previous_mask[:, :1])
        return ops.concatenate([seen, previous_mask], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the output's shape; needs nothing built."""
        batch, length, channels = input_shape
        longer = None if length is None else length + int(self.class_token)
        return (batch, longer, channels)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "class_token": self.class_token,
            "initializer": keras.initializers.serialize(self.initializer),
        }
