"""One optimizer's update inside a traced step, which leaves nothing behind."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.types import Tensor


def apply_gradients(
    optimizer: Any, gradients: Sequence[Tensor | None], variables: Sequence[Any]
) -> None:
    """Let an optimizer apply gradients as `optimizer.apply` does.

    Keras adds up gradients over replicas first, by a function that TensorFlow keeps for ever with
    its graph, one per stage. Without a strategy there is nothing to add up, and in the context
    across replicas Keras leaves it out. What it would have done beside stays: all gradients are
    there before the first variable moves.

    Args:
        optimizer: built Keras optimizer.
        gradients: tensors, slices or `None`, one per variable.
        variables: what they belong to.
    """
    there = [g for g in gradients if g is not None]
    if not (there and _is_alone(optimizer)):
        # What needs no gradient, as the decay of weights, waits for the checks of all gradients.
        with tf.control_dependencies(there):
            optimizer.apply(gradients, variables)
        return
    # Those of tables are slices: two or three tensors each.
    joined = tf.identity_n(tf.nest.flatten(there, expand_composites=True))
    whole = iter(tf.nest.pack_sequence_as(there, joined, expand_composites=True))
    gradients = [None if g is None else next(whole) for g in gradients]

    def update(strategy: Any) -> None:
        del strategy
        # Momentum times velocity would else be made at the step's start, and lie there through
        # its backward pass: as many bytes as all weights.
        with tf.control_dependencies(joined):
            optimizer.apply(gradients, variables)

    context = tf.distribute.get_replica_context()
    context.merge_call(tf.autograph.experimental.do_not_convert(update))


def _is_alone(optimizer: Any) -> bool:
    """Whether the update is in a graph, without a strategy, of an optimizer that allows it."""
    return not (
        tf.executing_eagerly()
        or tf.distribute.has_strategy()
        # It refuses the context across replicas.
        or isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    )
