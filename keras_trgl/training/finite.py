"""Finite or stopped: what a step checks before it changes a weight."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.network.staged_network import StagePart
from keras_trgl.types import Tensor

NOT_FINITE = "is not finite. Received:"
"""What every check of this file says; the way out is looked up by it."""


class FiniteCheck:
    """The checks of one step of one stage: task loss, objective and gradients.

    Made before the forward pass: what the pass itself moves, such as the moving averages of a
    batch normalization, is put back before a check stops the step.

    Args:
        part: `StagePart`, T_k, F_k and the method's layers.
        depth: int. k, counted from 1.
        optimizer: the stage's Keras optimizer. Under a loss scale the gradients are its business:
            it leaves the step out and halves the scale.
        puts_back: bool. Whether what moved may be put back; replicas hold shares of a variable,
            which no branch may assign.
    """

    def __init__(self, part: StagePart, depth: int, optimizer: Any, puts_back: bool) -> None:
        self.depth = depth
        self.takes_gradients = not isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        self._moved = _moved_by_calls(part) if puts_back else []
        self._before = [tf.identity(variable.value) for variable in self._moved]

    def ops(
        self,
        task: Tensor,
        energy: Tensor | None,
        objective: Tensor,
        gradients: Sequence[Any],
        examples: Tensor,
    ) -> list[Any]:
        """Give the checks as operations that updates wait for.

        Args:
            task: scalar tensor, the task loss.
            energy: scalar tensor, the stage's plain energy, or `None`.
            objective: scalar tensor, the sum that was differentiated.
            gradients: list of tensors, `IndexedSlices` or `None`, one per trained variable.
            examples: scalar tensor, int32, rows of this replica's batch.

        Returns:
            List of operations; empty when run eagerly, where a check has raised by now.
        """
        task_is = tf.math.is_finite(task)
        # A replica without an example has no mean, and gives nothing to the sum of gradients.
        objective_is = tf.math.is_finite(objective) | tf.equal(examples, 0)
        # Each speaks only where those before it do not: the first cause is told.
        values = [task_is, objective_is | ~task_is]
        if self.takes_gradients:
            values.append(all_finite(gradients) | ~(task_is & objective_is))
        more = [] if energy is None else ["with an energy of", energy]
        said: list[list[Any]] = [
            ["the task loss", task],
            ["the objective", objective, "from a task loss of", task, *more],
            ["a gradient", "NaN or infinity, from an objective of", objective],
        ]
        with tf.control_dependencies(self._put_back(tf.reduce_all(tf.stack(values)))):
            made = [
                tf.debugging.Assert(value, [f"Stage {self.depth}: {what} {NOT_FINITE}", *rest])
                for value, (what, *rest) in zip(values, said, strict=False)
            ]
        return [op for op in made if op is not None]

    def _put_back(self, finite: Tensor) -> list[Any]:
        if not self._moved:
            return []

        def put_back() -> Tensor:
            for variable, value in zip(self._moved, self._before, strict=True):
                variable.assign(value)
            return tf.constant(False)

        return [tf.cond(finite, lambda: tf.constant(True), put_back)]


def _moved_by_calls(part: StagePart) -> list[Any]:
    """Give the variables with a fraction that training calls move and gradients do not."""
    trained = {id(variable) for variable in part.trainable_variables}
    energy = {id(variable) for variable in getattr(part.stage.regularizer, "variables", [])}
    return [
        variable
        for variable in part.variables
        if id(variable) not in trained | energy
        and keras.backend.is_float_dtype(variable.dtype)
        and not variable.trainable
    ]


def all_finite(gradients: Sequence[Any]) -> Tensor:
    """Give a bool tensor: whether no gradient has a NaN or an infinity."""
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    found = [tf.reduce_all(tf.math.is_finite(one)) for one in values if one is not None]
    return tf.reduce_all(tf.stack(found)) if found else tf.constant(True)
