"""The classifier of VGG: dense layers on flat features."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer, check_list
from keras_trgl.heads.head import Head
from keras_trgl.heads.parts import Parts
from keras_trgl.registration import public
from keras_trgl.types import Shape


@public
class DenseHead(Head):
    """Max pool, flatten, then dense layers: hidden ones with activation and dropout, and the last.

    The defaults are the classifier of VGG after its last pool. `hidden=()` without a pool is the
    published `1LIN`; `hidden=(10 * units,), activation="sigmoid", dropout=0.0` is `2LIN`.

    Args:
        units: int > 0. Numbers in a prediction.
        hidden: sequence of int ≥ 1. Units of the hidden layers. Defaults to `(4096, 4096)`.
        pool: int ≥ 1. Window and stride of a max pool of images, in pixels; 1 is none. Defaults
            to `1`.
        activation: function, a Keras activation, its name, or `None`. After hidden layers.
            Defaults to `"relu"`.
        dropout: float in [0, 1). Share of hidden units that are dropped in training. Defaults to
            `0.5`.
        kernel_initializer: `keras.initializers.Initializer` of the kernels, or its name. Defaults
            to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        TypeError: `hidden` is no sequence of integers, or `pool` no integer.
        ValueError: `units`, an entry of `hidden` or `pool` is below 1; `dropout` is out of range;
            another word for `data_format`; at build, features with an open side, or a pool on
            what are no images.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import DenseHead
        >>> DenseHead(units=10, hidden=(32,), pool=2)(np.ones((2, 4, 4, 8), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
        Recognition", 2015, table 1; `1LIN`, `2LIN`: code of Karkar et al., NeurIPS 2023.
    """

    def __init__(
        self,
        units: int,
        hidden: Sequence[int] = (4096, 4096),
        pool: int = 1,
        activation: Any = "relu",
        dropout: float = 0.5,
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        check_list("hidden", hidden, "ints", "Without hidden layers give `()`.")
        for count in hidden:
            check_integer("hidden", count, 1)
        check_integer("pool", pool, 1)
        if not 0 <= dropout < 1:
            raise ValueError(
                f"`dropout` must be at least 0 and below 1. Received: dropout={dropout}. The "
                "published one is 0.5."
            )
        self.hidden = tuple(int(count) for count in hidden)
        self.pool = int(pool)
        self.activation = keras.activations.get(activation)
        self.dropout = float(dropout)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def make_layers(self, input_shape: Shape) -> list[keras.layers.Layer]:
        """Give the head's layers.

        Args:
            input_shape: tuple, the features' shape, batch axis included, every other side known.

        Returns:
            List of layers.

        Raises:
            ValueError: an open side, or a pool on what are no images.
        """
        if None in input_shape[1:] or (self.pool > 1 and len(input_shape) != 4):
            raise ValueError(
                "`DenseHead` takes features of known sides, and pools images alone. Received: "
                f"{input_shape}, pool={self.pool}. Use `LinearHead` for other features."
            )
        dtype = self.dtype_policy
        make, row = Parts(self, self.kernel_initializer), []
        if self.pool > 1:
            row.append(
                keras.layers.MaxPooling2D(self.pool, data_format=self.data_format, dtype=dtype)
            )
        row.append(make.flat())
        for count in self.hidden:
            row += [make.dense(count), keras.layers.Activation(self.activation, dtype=dtype)]
            if self.dropout:
                row.append(keras.layers.Dropout(self.dropout, dtype=dtype))
        return [*row, make.dense(self.units)]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "hidden": list(self.hidden),
            "pool": self.pool,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
