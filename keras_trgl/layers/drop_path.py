"""Stochastic depth: a branch is left out for whole examples."""

from typing import Any

import keras

from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Tensor


@public
class DropPath(Recorded, keras.layers.Dropout):
    """Sets whole examples to zero in training, and divides the others by `1 - rate`.

    At the end of a branch it is stochastic depth: the residual of an example is left out with
    probability `rate`, and its mean is kept. It is Keras's `Dropout` with one draw per example.

    Args:
        rate: float in [0, 1). Share of examples that are set to zero.
        seed: int ≥ 0 or `None`. Seed of the draws; `None` lets `GreedyModel` derive one, or
            draws one. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `rate` is below 0, or 1 or more.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.layers import DropPath
        >>> DropPath(0.5)(np.ones((2, 3), "float32")).numpy().tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

    Reference:
        Huang et al., "Deep Networks with Stochastic Depth", 2016, equation 2, with the division
        of Larsson et al., "FractalNet", 2017.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        if not 0 <= rate < 1:
            raise ValueError(
                f"`rate` must be at least 0 and below 1. Received: rate={rate}. At 1 nothing "
                "would be left of the branch."
            )
        super().__init__(rate, seed=seed, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Drop examples in training mode; give the inputs as they are otherwise.

        Args:
            inputs: tensor, `(batch, …)`.
            training: bool. Whether to drop. Defaults to the caller's.

        Returns:
            Tensor of the inputs' shape.
        """
        if not training or not self.rate:
            return inputs
        each = (None, *[1] * (len(inputs.shape) - 1))
        return keras.random.dropout(inputs, self.rate, noise_shape=each, seed=self.seed_generator)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        config = dict(super().get_config())
        del config["noise_shape"]
        return config
