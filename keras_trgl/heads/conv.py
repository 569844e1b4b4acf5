"""The head of the published runs: one convolution, pool, batch norm, one dense layer."""

from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.heads.head import Head
from keras_trgl.layers.batch_normalization import BatchNormalization
from keras_trgl.registration import public
from keras_trgl.seeds import derive_seed
from keras_trgl.types import Shape

POOLS = (16, 8, 4, 2, 1)


@public
class ConvHead(Head):
    """3x3 convolution, ReLU, average pool, batch normalization, flatten, dense.

    The published `1CNN`: the convolution keeps the channels and has no bias, batch
    normalization comes after the pool. Parameters: `9c² + 2c + c·(rows/pool)·(columns/pool)·units
    + units` for c channels.

    Args:
        units: int > 0. Numbers in a prediction.
        pool: int > 0 or `None`. Window and stride of the average pool, in pixels; must divide
            both sides of the features. `None` takes the largest of 16, 8, 4, 2, 1 that divides
            them (8 for a side of 16). Defaults to `None`.
        gain: float > 0. Gain of the orthogonal kernels, dense included; 1 keeps norms. Defaults
            to `0.1`.
        weight_decay: float ≥ 0. PyTorch-style coupled decay of every parameter: adds
            `weight_decay / 2` times its squared norm to the losses. Defaults to `0.0`.
        seed: int ≥ 0 or `None`. Seed of the kernels; `None` lets `GreedyModel` derive one, or
            draws one. Defaults to `None`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `units` or `pool` is below 1; another word for `data_format`; at build,
            features that are no `(batch, height, width, channels)` or a pool that does not
            divide their sides.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import ConvHead
        >>> ConvHead(units=10)(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023: `1CNN` of its code.
    """

    def __init__(
        self,
        units: int,
        pool: int | None = None,
        gain: float = 0.1,
        weight_decay: float = 0.0,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        if pool is not None:
            check_integer("pool", pool, 1)
        self.pool = pool
        self.gain = float(gain)
        self.weight_decay = float(weight_decay)
        self.seed = seed

    def _sides(self, input_shape: Shape) -> Shape:
        return input_shape[2:] if self.channel_axis == 1 else input_shape[1:3]

    def _side_pool(self, input_shape: Shape) -> int:
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                "`ConvHead` takes features (batch, height, width, channels) of known size. "
                f"Received: {input_shape}. Use `LinearHead` for other features."
            )
        sides = [int(side or 0) for side in self._sides(input_shape)]
        if self.pool is None:
            # A side of 16 would leave a single position: the published runs pool 16 to 2 there.
            fitting = [p for p in POOLS if all(side % p == 0 for side in sides)]
            return 8 if sides == [16, 16] else fitting[0]
        if any(side % self.pool for side in sides):
            raise ValueError(
                f"`pool` must divide the sides of the features. Received: pool={self.pool}, "
                f"features {input_shape}. Leave `pool` out to have one chosen."
            )
        return self.pool

    def make_layers(self, input_shape: Shape) -> list[keras.layers.Layer]:
        """Give the head's six layers.

        Args:
            input_shape: tuple, `(batch, height, width, channels)`.

        Returns:
            List of layers, in the order of the class's description.

        Raises:
            ValueError: another rank, an open side, or a side that `pool` does not divide.
        """
        pool = self._side_pool(input_shape)
        dtype = self.dtype_policy
        # Two kernels, two seeds: from one they would be drawn alike where shapes allow.
        seeds = [None if self.seed is None else derive_seed(self.seed, i) for i in range(2)]
        decay = keras.regularizers.L2(self.weight_decay / 2) if self.weight_decay else None
        return [
            keras.layers.Conv2D(
                input_shape[self.channel_axis],
                3,
                data_format=self.data_format,
                padding="same",
                use_bias=False,
                kernel_initializer=keras.initializers.Orthogonal(self.gain, seed=seeds[0]),
                kernel_regularizer=decay,
                dtype=dtype,
            ),
            keras.layers.ReLU(dtype=dtype),
            keras.layers.AveragePooling2D(pool, data_format=self.data_format, dtype=dtype),
            BatchNormalization(
                axis=self.channel_axis,
                momentum=0.9,
                epsilon=1e-5,
                gamma_regularizer=decay,
                beta_regularizer=decay,
                dtype=dtype,
            ),
            keras.layers.Flatten(data_format=self.data_format, dtype=dtype),
            keras.layers.Dense(
                self.units,
                kernel_initializer=keras.initializers.Orthogonal(self.gain, seed=seeds[1]),
                kernel_regularizer=decay,
                bias_regularizer=decay,
                dtype=dtype,
            ),
        ]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "pool": self.pool,
            "gain": self.gain,
            "weight_decay": self.weight_decay,
            "seed": self.seed,
        }
