"""Similarity matching: features of examples should be as alike as their labels are."""

from typing import Any

import keras
from keras import ops

from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Tensor

SAFE = 1e-8
"""Added to a row's norm, as in the published code."""

LEAST = 1e-12
"""A sum of squares below it counts as none: a root's gradient there is 0/0, or beyond float16."""


def _root(squares: Tensor) -> tuple[Tensor, Tensor]:
    """Give the root where there is something to take it of, else 1; and where there is."""
    alive = squares > LEAST
    return ops.sqrt(ops.where(alive, squares, ops.ones_like(squares))), alive


def similarity(x: Tensor) -> Tensor:
    """Give the adjusted cosine similarity of a batch's examples.

    Features with positions, `(batch, rows, columns, channels)` of more than three channels and
    more than one row, are first turned into the unbiased standard deviation of each channel over
    its positions; others are flattened. Then each row less its mean, divided by its norm.

    Args:
        x: tensor, `(batch, …)`, of any floating type.

    Returns:
        Tensor of `floatx`, `(batch, batch)`, symmetric, entries −1 to 1.
    """
    x = ops.cast(x, keras.config.floatx())
    if len(x.shape) == 4 and x.shape[-1] > 3 and x.shape[1] > 1:
        positions = x.shape[1] * x.shape[2]
        spread = ops.var(x, axis=(1, 2)) * (positions / (positions - 1))
        root, alive = _root(spread)
        x = ops.where(alive, root, ops.zeros_like(root))
    else:
        x = ops.reshape(x, (ops.shape(x)[0], -1))
    x = x - ops.mean(x, axis=1, keepdims=True)
    norm, _ = _root(ops.sum(ops.square(x), axis=1, keepdims=True))
    x = x / (SAFE + norm)
    return ops.clip(ops.matmul(x, ops.transpose(x)), -1.0, 1.0)


@public
class SimilarityMatching(Recorded, keras.losses.Loss):
    """Mean squared difference of the similarities of features and of labels.

    Per example i: the mean over j of `(R(features)_ij − R(labels)_ij)²`, R the adjusted cosine
    similarity within the batch. No gradient goes through the labels' side.

    Args:
        reduction: as in `keras.losses.Loss`. Defaults to `"sum_over_batch_size"`, the mean over
            all pairs.
        name: str. Defaults to `"similarity_matching"`.
        dtype: as in `keras.losses.Loss`. Defaults to `None`.

    Called on one-hot labels `(batch, classes)`, not smoothed, and features `(batch, …)`.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.losses import SimilarityMatching
        >>> labels = np.eye(3, dtype="float32")
        >>> round(float(SimilarityMatching()(labels, labels)), 6)
        0.0

    Reference:
        Nøkland and Eidnes, "Training Neural Networks with Local Error Signals", 2019, equation 1.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "similarity_matching",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Give each example's loss, `(batch,)`.

        Args:
            y_true: tensor, one-hot labels, `(batch, classes)`.
            y_pred: tensor, features, `(batch, …)`.
        """
        wanted = ops.stop_gradient(similarity(y_true))
        return ops.mean(ops.square(similarity(y_pred) - wanted), axis=1)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return dict(super().get_config())
