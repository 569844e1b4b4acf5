"""The smallest head: an average over positions and one dense layer."""

from typing import Any

import keras

from keras_trgl.heads.head import Head
from keras_trgl.registration import public
from keras_trgl.types import Shape


@public
class LinearHead(Head):
    """Mean over all axes but batch and channels, then a dense layer.

    Args:
        units: int > 0. Numbers in a prediction: classes, or 1.
        kernel_initializer: `keras.initializers.Initializer` of the dense kernel, or its name.
            Defaults to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `units` is below 1, or another word for `data_format`.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import LinearHead
        >>> LinearHead(units=10)(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023: `ALIN` of its code.
    """

    def __init__(
        self,
        units: int,
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def make_layers(self, input_shape: Shape) -> list[keras.layers.Layer]:
        """Give the pooling, where there are positions, and the dense layer.

        Args:
            input_shape: tuple, the features' shape, batch axis included, rank 2 to 5.

        Returns:
            List of layers.

        Raises:
            ValueError: another rank.
        """
        if not 2 <= len(input_shape) <= 5:
            raise ValueError(
                "`LinearHead` takes features (batch, …, channels) of rank 2 to 5. "
                f"Received: {input_shape}."
            )
        dense = keras.layers.Dense(
            self.units, kernel_initializer=self.kernel_initializer, dtype=self.dtype_policy
        )
        return [*self.mean(len(input_shape)), dense]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
