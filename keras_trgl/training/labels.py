"""What labels a step takes, told in one sentence where they do not fit the loss."""

from typing import Any

import tensorflow as tf

from keras_trgl.types import Tensor

LABEL_RANGE = "labels are out of range"
"""What the check inside a step says; the way out is looked up by it."""


def ignored_class(loss: Any) -> int | None:
    """Give the label that a loss leaves out, or `None`."""
    found = getattr(loss, "ignore_class", None)
    return None if found is None else int(found)


def check_form(y: Any, loss: Any, takes_indices: bool, units: int) -> None:
    """Raise where no loss of a single head takes such labels.

    Args:
        y: tensor or `tf.TensorSpec` of a batch of labels, or what the data have in its place.
        loss: the compiled loss.
        takes_indices: bool. Whether the loss takes class indices.
        units: int. Numbers in a prediction, 0 where it is not known.

    Raises:
        ValueError: there are none; a dict; text; no batch axis; one-hot rows for class indices.
    """
    if y is None:
        raise ValueError(
            "A stage learns from labels. Received: data without `y`. Pass `y`, or a dataset of "
            "(x, y)."
        )
    if isinstance(y, dict) and not isinstance(loss, dict):
        raise ValueError(
            "Labels must be one array, which every head learns. Received: a dict with the labels "
            f"{', '.join(map(repr, y))}. Give the array alone."
        )
    if not isinstance(y, (tf.Tensor, tf.TensorSpec)):
        return
    if y.dtype == tf.string:
        raise ValueError(
            "Labels must be numbers. Received: labels of text. Number the classes from 0, as by "
            "`keras.layers.StringLookup` or `numpy.unique(y, return_inverse=True)[1]`."
        )
    if y.shape.rank == 0:
        raise ValueError(
            "Data must come in batches. Received: labels without a batch axis. Call "
            "`dataset.batch(32)`."
        )
    if takes_indices and y.shape.rank == 2 and y.shape[-1] == units > 1:
        raise ValueError(
            "A sparse loss takes class indices, (batch,). Received: one-hot labels "
            f"{tuple(y.shape)}. Use `CategoricalCrossentropy`, or `y.argmax(-1)`."
        )


def in_range(y: Tensor, units: int, ignored: int | None = None) -> Tensor:
    """Give labels, checked inside the step to be class indices below `units`.

    Args:
        y: tensor of numbers, or of bool.
        units: int ≥ 1.
        ignored: int or `None`. A label that the loss leaves out. Defaults to `None`.
    """
    # Types of one byte do not hold the number of classes itself.
    wide = y if y.dtype.is_floating else tf.cast(y, tf.int64)
    y = wide if y.dtype == tf.bool else y
    if ignored is not None:
        wide = tf.where(wide == tf.cast(ignored, wide.dtype), tf.zeros_like(wide), wide)
    inside = tf.reduce_all((wide >= 0) & (wide < units))
    said = f"The {LABEL_RANGE}: they must be 0 to {units - 1}. Received:"
    check = tf.debugging.Assert(inside, [said, tf.reduce_min(wide), tf.reduce_max(wide)])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(y)
