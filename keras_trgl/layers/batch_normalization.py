"""Batch normalization by TensorFlow's fused kernel, and the energy of its output for nothing.

Keras's own layer runs unfused on TensorFlow without XLA.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_trgl.layers.kernels import (
    batch_normalize,
    batch_normalize_with_energy,
    kept_apart,
    normalize,
)
from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Tensor

FUSED_TYPES = ("float16", "bfloat16", "float32")


@public
class BatchNormalization(Recorded, keras.layers.BatchNormalization):
    """Keras's batch normalization, by the fused kernel where the kernel applies.

    Weights, configuration and moving statistics are those of `keras.layers.BatchNormalization`.
    The kernel takes inputs `(batch, height, width, channels)` normalized over the last axis, in
    float16, bfloat16 or float32, without mask, renormalization or synchronized replicas;
    anything else (float64, for one) takes Keras's own path.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.layers import BatchNormalization
        >>> layer = BatchNormalization(momentum=0.9, epsilon=1e-5)
        >>> layer(np.ones((2, 4, 4, 3), "float32"), training=True).shape
        TensorShape([2, 4, 4, 3])

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1.
    """

    always_shown = ("momentum", "epsilon")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recording = False
        self._mean_square: Tensor | None = None

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Normalize by the batch's statistics (training) or the moving ones.

        Args:
            inputs: tensor, `(batch, height, width, channels)` for the fused path.
            training: bool. Whether to use and move the batch's statistics. Defaults to the
                caller's.
            mask: as in Keras; takes Keras's path.

        Returns:
            Tensor of the inputs' shape and the layer's compute type.
        """
        self._mean_square = None
        if not self._takes_kernel(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        scale = self._vector(self.gamma, 1.0)
        offset = self._vector(self.beta, 0.0)
        if not (training and self.trainable):
            mean, variance = self._vector(self.moving_mean), self._vector(self.moving_variance)
            return kept_apart(normalize(inputs, scale, offset, mean, variance, self.epsilon))
        if self._recording:
            outputs, mean, variance, self._mean_square = batch_normalize_with_energy(
                inputs, scale, offset, self.epsilon
            )
        else:
            outputs, mean, variance = batch_normalize(inputs, scale, offset, self.epsilon)
        # Keras's own terms in Keras's own order, for the same last bits.
        kept, new = self.momentum, 1.0 - self.momentum
        self.moving_mean.assign(self.moving_mean * kept + mean * new)
        self.moving_variance.assign(self.moving_variance * kept + variance * new)
        return outputs

    def record(self, on: bool) -> None:
        """Begin or end finding the mean square of the outputs along with them.

        Args:
            on: bool. Whether to begin.
        """
        self._recording = on
        self._mean_square = None

    @property
    def mean_square(self) -> Tensor | None:
        """Mean over all axes of the latest outputs' square, or `None` where it costs something.

        In training mode it has a closed form: per channel `gamma² σ²/(σ²+ε) + beta²`, with the
        biased batch variance σ². `None` unless the latest call was recorded, in training mode
        and by the kernel. Float32 scalar tensor, squared feature units.
        """
        return self._mean_square

    def get_config(self) -> dict[str, Any]:
        """Give the configuration, Keras's own."""
        return dict(super().get_config())

    def _takes_kernel(self, inputs: Tensor, mask: Any) -> bool:
        return (
            isinstance(inputs, tf.Tensor)
            and inputs.shape.rank == 4
            and self.axis in (-1, 3)
            and mask is None
            and not self.renorm
            and not self.synchronized
            # The kernel takes half types only with float32 statistics, and casts nothing itself.
            and inputs.dtype.name in FUSED_TYPES
            and inputs.dtype.name == self.compute_dtype
            and self.variable_dtype == "float32"
        )

    def _vector(self, variable: Any, without: float = 0.0) -> Tensor:
        if variable is None:
            return tf.fill(self.moving_mean.shape, without)
        return tf.convert_to_tensor(variable)
