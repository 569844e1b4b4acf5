"""The head of transformers: a normalization, one vector per example or per token, a dense layer."""

from typing import Any

import keras

from keras_trgl.checks import check_choice
from keras_trgl.heads.head import Head
from keras_trgl.registration import public
from keras_trgl.types import Shape

POOLS = ("mean", "first", None)


@public
class NormHead(Head):
    """Layer normalization, mean over positions or the first one, dense layer.

    The head of Swin (mean) and of ViT (its class token, which comes first); with `pool=None` that
    of language models and segmentation, a prediction per position, `(batch, …, units)`, with the
    features' mask. Parameters: `2c + c·units + units` for c channels.

    Args:
        units: int > 0. Numbers in a prediction.
        pool: `"mean"`: over all axes but batch and channels. `"first"`: the first position of a
            sequence. `None`: every position has a prediction. Defaults to `"mean"`.
        epsilon: float > 0. ε of the normalization; ViT has 1e-6. Defaults to `1e-5`.
        kernel_initializer: `keras.initializers.Initializer` of the dense kernel, or its name.
            `None` is the published one, a truncated normal of 0.02. Defaults to `None`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `units` is below 1; another word for `pool` or `data_format`; at build,
            features that are neither a sequence nor a grid, no sequence of known length for
            `pool="first"`, or channels that do not come last for `pool=None`.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import NormHead
        >>> NormHead(units=10)(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Liu et al., "Swin Transformer", 2021, and Dosovitskiy et al., "An Image is Worth 16x16
        Words", 2021, equation 4.
    """

    def __init__(
        self,
        units: int,
        pool: str | None = "mean",
        epsilon: float = 1e-5,
        kernel_initializer: Any = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        check_choice("pool", pool, POOLS)
        self.pool = pool
        self.epsilon = float(epsilon)
        self.kernel_initializer = keras.initializers.get(
            keras.initializers.TruncatedNormal(stddev=0.02)
            if kernel_initializer is None
            else kernel_initializer
        )

    def make_layers(self, input_shape: Shape) -> list[keras.layers.Layer]:
        """Give the normalization, the pooling and the dense layer.

        Args:
            input_shape: tuple, the features' shape, batch axis included, rank 3 or 4.

        Returns:
            List of layers.

        Raises:
            ValueError: another rank, an open length for `pool="first"`, or channels that do not
                come last for `pool=None`.
        """
        rank = len(input_shape)
        if rank not in (3, 4) or (self.pool == "first" and (rank == 4 or input_shape[1] is None)):
            wanted = "a sequence of known length" if self.pool == "first" else "rank 3 or 4"
            raise ValueError(
                f"`NormHead` with pool={self.pool!r} takes features of {wanted}. Received: "
                f"{input_shape}. Use `LinearHead`, or another `pool`, for other features."
            )
        if self.pool is None and rank == 4 and self.channel_axis == 1:
            raise ValueError(
                "`NormHead` with pool=None takes features with channels last. Received: "
                f"{input_shape} with channels first. Use another `pool`."
            )
        dtype = self.dtype_policy
        # A sequence has its positions before its channels, whatever the format of images.
        axis = self.channel_axis if rank == 4 else -1
        form = self.data_format if rank == 4 else "channels_last"
        norm = keras.layers.LayerNormalization(axis=axis, epsilon=self.epsilon, dtype=dtype)
        dense = keras.layers.Dense(
            self.units, kernel_initializer=self.kernel_initializer, dtype=dtype
        )
        if self.pool == "first":
            # Positions are normalized one by one, so the others need not be.
            others = int(input_shape[1] or 1) - 1
            crop = keras.layers.Cropping1D((0, others), dtype=dtype)
            return [crop, keras.layers.Flatten(data_format=form, dtype=dtype), norm, dense]
        return [norm, *([] if self.pool is None else self.mean(rank)), dense]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give `(batch, units)`, or a prediction for every position."""
        between = input_shape[1:-1] if self.pool is None else ()
        return (input_shape[0], *between, self.units)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "pool": self.pool,
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
