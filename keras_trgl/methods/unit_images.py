"""Images that a decoder rebuilds, checked inside the step: a cross-entropy wants 0 to 1."""

import tensorflow as tf

from keras_trgl.types import Tensor

OUTSIDE = "images to rebuild must lie between 0 and 1"
"""What the check inside a step says; the way out is looked up by it."""

LEEWAY = 0.01
"""What rounding may add, as a share of the whole range."""


def unit_images(images: Tensor, depth: int) -> Tensor:
    """Give images, checked inside the step to lie between 0 and 1.

    Outside, a cross-entropy has no least value, and the loss falls without end.

    Args:
        images: tensor of floats.
        depth: int ≥ 1. The stage, k.
    """
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    inside = (low >= -LEEWAY) & (high <= 1 + LEEWAY)
    # What is not finite is told by the check of losses.
    inside |= ~tf.math.is_finite(low + high) | tf.equal(tf.size(images), 0)
    said = f"Stage {depth}: the {OUTSIDE}. Received: from"
    check = tf.debugging.Assert(inside, [said, low, "to", high])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(images)
