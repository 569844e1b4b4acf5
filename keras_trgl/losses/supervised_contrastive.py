"""Supervised contrast: embeddings of one class near each other, all others away."""

from typing import Any

import keras
from keras import ops

from keras_trgl.checks import check_positive
from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Tensor

BASE_TEMPERATURE = 0.07
"""The published code multiplies by temperature/0.07."""

ABSENT = -1e9
"""In place of the similarity to oneself: its exponential is zero in every floating type."""


def unit_rows(x: Tensor) -> Tensor:
    """Divide each row by its L2 norm; a row of zeros stays one, and gets no gradient.

    Args:
        x: tensor, `(batch, features)`.

    Returns:
        Tensor, `(batch, features)`.
    """
    # By its largest entry first, so that neither tiny nor huge rows leave the type's range. As
    # the norm is divided out next, nothing depends on it.
    largest = ops.stop_gradient(ops.max(ops.abs(x), axis=1, keepdims=True))
    x = x / ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(x), axis=1, keepdims=True)
    return x / ops.sqrt(ops.where(squares > 0, squares, ops.ones_like(squares)))


@public
class SupervisedContrastive(Recorded, keras.losses.Loss):
    """Each embedding should be nearer to those of its class than to the others of the batch.

    With rows z of norm one, which the loss makes itself, and s_ij = z_i·z_j / temperature, per
    anchor i: −mean over the j ≠ i of the same class of `s_ij − log Σ_{a≠i} exp(s_ia)`, times
    temperature/0.07 as in the published code. An anchor without another of its class gives 0, and
    counts in the mean.

    Args:
        temperature: float > 0. Small looks at the nearest neighbours alone. Defaults to `0.07`.
        reduction: as in `keras.losses.Loss`. Defaults to `"sum_over_batch_size"`, the mean over
            all anchors.
        name: str. Defaults to `"supervised_contrastive"`.
        dtype: as in `keras.losses.Loss`. Defaults to `None`.

    Called on labels, class indices `(batch,)` or one-hot `(batch, classes)`, and embeddings
    `(batch, …)`.

    Raises:
        TypeError: `temperature` is no number.
        ValueError: `temperature` is not above zero.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.losses import SupervisedContrastive
        >>> z = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-0.8, 0.6]])
        >>> round(float(SupervisedContrastive()(np.array([0, 0, 1, 1]), z)), 4)
        1.4566

    Reference:
        Khosla et al., "Supervised Contrastive Learning", 2020, equation 2.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        reduction: str = "sum_over_batch_size",
        name: str = "supervised_contrastive",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_positive("temperature", temperature, "The published value is 0.07.")
        self.temperature = float(temperature)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Give each anchor's loss, `(batch,)`.

        Args:
            y_true: tensor, class indices `(batch,)`, or one-hot labels `(batch, classes)`.
            y_pred: tensor, embeddings, `(batch, …)`.
        """
        size = ops.shape(y_pred)[0]
        z = unit_rows(ops.reshape(ops.cast(y_pred, keras.config.floatx()), (size, -1)))
        if len(y_true.shape) > 1 and y_true.shape[-1] != 1:
            y_true = ops.argmax(y_true, axis=-1)
        y_true = ops.reshape(y_true, (-1, 1))
        oneself = ops.eye(size, dtype="bool")
        alike = ops.logical_and(ops.equal(y_true, ops.transpose(y_true)), ~oneself)
        alike = ops.cast(alike, z.dtype)
        near = ops.matmul(z, ops.transpose(z)) / self.temperature
        near = ops.where(oneself, ops.full_like(near, ABSENT), near)
        count = ops.sum(alike, axis=1)
        total = ops.sum(alike * near, axis=1) - count * ops.logsumexp(near, axis=1)
        return -total / ops.maximum(count, 1.0) * (self.temperature / BASE_TEMPERATURE)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {**super().get_config(), "temperature": self.temperature}
