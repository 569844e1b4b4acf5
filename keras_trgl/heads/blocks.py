"""A head that goes on as the network would: blocks, a mean, a dense layer."""

from typing import Any

import keras

from keras_trgl.heads.head import Head
from keras_trgl.layers.batch_normalization import BatchNormalization
from keras_trgl.layers.chain import (
    as_layers,
    chain_output_shape,
    deserialize_chain,
    serialize_chain,
)
from keras_trgl.registration import public
from keras_trgl.types import Shape


@public
class BlocksHead(Head):
    """Blocks in a row, the mean over positions, maybe batch normalization, a dense layer.

    Blocks in a head add no energy.

    Args:
        units: int > 0. Numbers in a prediction.
        blocks: list of layers, unbuilt: what an architecture gives, or others.
        normalize: bool. Whether batch normalization comes before the dense layer. Defaults to
            `False`.
        kernel_initializer: `keras.initializers.Initializer` of the dense kernel, or its name.
            Defaults to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        TypeError: `blocks` holds something that is no layer.
        ValueError: `units` is below 1, or another word for `data_format`; at build, blocks that
            end in another rank than 2 to 5.

    Example:
        >>> import keras, numpy as np
        >>> from keras_trgl.heads import BlocksHead
        >>> block = keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu")
        >>> BlocksHead(units=10, blocks=[block])(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Ma et al., "Scaling Supervised Local Learning with Augmented Auxiliary Networks", ICLR
        2024, section 4.
    """

    def __init__(
        self,
        units: int,
        blocks: Any,
        normalize: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        self.blocks = as_layers("blocks", blocks)
        self.normalize = bool(normalize)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def make_layers(self, input_shape: Shape) -> list[keras.layers.Layer]:
        """Give the blocks and what follows them.

        Args:
            input_shape: tuple, the features' shape, batch axis included.

        Returns:
            List of layers.

        Raises:
            ValueError: the blocks end in another rank than 2 to 5.
        """
        dtype = self.dtype_policy
        shape = chain_output_shape(self.blocks, input_shape)
        if not 2 <= len(shape) <= 5:
            raise ValueError(
                "Blocks of a `BlocksHead` must end in features (batch, …, channels) of rank 2 to "
                f"5. Received: blocks that end in {shape}."
            )
        row = [*self.blocks, *self.mean(len(shape))]
        if self.normalize:
            row.append(BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype))
        kernel = self.kernel_initializer
        return [*row, keras.layers.Dense(self.units, kernel_initializer=kernel, dtype=dtype)]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration, blocks included."""
        return {
            **super().get_config(),
            "blocks": serialize_chain(self.blocks),
            "normalize": self.normalize,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BlocksHead":
        """Make the head from `get_config`'s result."""
        return cls(**{**config, "blocks": deserialize_chain(config["blocks"])})
