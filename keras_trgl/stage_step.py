"""One update of one stage: the only tape, and the place where gradients stop.

A step is traced once as a function that is not inlined. Its features are handed on only when the
whole function, gradients included, is done: so stage k+1 cannot begin before stage k has freed
its activations, and every schedule that shares the function gives the same numbers bit for bit.
Under a strategy with replicas the update may not sit in such a function; there the features wait
for the gradients by a control dependency.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_trgl.methods.method import Method
from keras_trgl.types import Tensor

NOT_FINITE = "the task loss is not finite"
LABEL_RANGE = "labels are out of range"


class Exit(keras.Model):
    """The compiled loss and metrics of one head; a model without layers or losses of its own."""

    @property
    def loss_tracker(self) -> Any:
        """Mean of the task loss."""
        return self.metrics[0]


class StageStep:
    """What trains and evaluates stage k: its layers, optimizer, loss and metrics.

    Args:
        depth: int. k, counted from 1.
        stage: `Stage`, T_k.
        head: layer, F_k.
        exit_model: compiled `Exit`.
        optimizer: Keras optimizer of this stage.
        method: `Method` whose `objective` the stage minimises.
        raise_on_nan: bool. Whether a loss that is not finite stops the step before its update.
    """

    def __init__(
        self,
        depth: int,
        stage: Any,
        head: Any,
        exit_model: Exit,
        optimizer: Any,
        method: Method,
        raise_on_nan: bool = True,
    ) -> None:
        self.depth = depth
        self.stage = stage
        self.head = head
        self.exit = exit_model
        self.optimizer = optimizer
        self.method = method
        self.raise_on_nan = raise_on_nan
        self.objective_tracker = keras.metrics.Mean(name="objective")
        self.energy_tracker = keras.metrics.Mean(name="energy")
        self._function: Any = None

    @property
    def trainable_variables(self) -> list[Any]:
        """What this stage trains, and no other does."""
        return [*self.stage.trainable_variables, *self.head.trainable_variables]

    @property
    def metrics(self) -> list[Any]:
        """Trackers and compiled metrics."""
        return [*self.exit.metrics, self.objective_tracker, self.energy_tracker]

    def results(self, training: bool) -> dict[str, Any]:
        """Give the metrics' results; in training also objective and energy."""
        results = dict(self.exit.get_metrics_result())
        if training:
            results["objective"] = self.objective_tracker.result()
            results["energy"] = self.energy_tracker.result()
        return results

    def train(self, features: Tensor, y: Any, sample_weight: Any) -> Tensor:
        """Update the stage on one batch.

        Args:
            features: tensor, output of the stage before (the data, for the first).
            y: targets, as `compile`'s loss takes them.
            sample_weight: tensor `(batch,)` or `None`; weighs the task loss only.

        Returns:
            Tensor: the stage's features before this update, without a gradient.
        """
        if tf.executing_eagerly() or tf.distribute.has_strategy():
            features, gradients = self._forward_and_update(features, y, sample_weight)
            with tf.control_dependencies([g for g in gradients if g is not None]):
                return tf.stop_gradient(tf.identity(features))
        if self._function is None:
            self._function = tf.function(
                lambda *batch: self._forward_and_update(*batch)[0],
                autograph=False,
                reduce_retracing=True,
                experimental_attributes={"_noinline": True},
            )
        return tf.stop_gradient(self._function(features, y, sample_weight))

    def retrace(self) -> None:
        """Forget the traced function, as after a change of what it holds."""
        self._function = None

    def _forward_and_update(
        self, inputs: Tensor, y: Any, sample_weight: Any
    ) -> tuple[Tensor, list[Any]]:
        variables = self.trainable_variables
        # Only variables are watched: the input carries no gradient back.
        with tf.GradientTape() as tape:
            features = self.stage(inputs, training=True)
            prediction = self.head(features, training=True)
            task = self.exit.compute_loss(
                x=inputs, y=y, y_pred=prediction, sample_weight=sample_weight, training=True
            )
            own = [*self.stage.losses, *self.head.losses]
            objective = self.method.objective(task, [self._share(loss, task) for loss in own])
            scaled = self.optimizer.scale_loss(objective)
        self._track(inputs, task, objective)
        self.exit.compute_metrics(inputs, y, prediction, sample_weight)
        if not variables:
            return features, []
        gradients = tape.gradient(scaled, variables)
        # Only the updates wait for the checks: held back from the gradients on, memory grew by
        # a fifth, as the executor then takes them in another order.
        with tf.control_dependencies(self._checks(task)):
            gradients = [None if g is None else tf.identity(g) for g in gradients]
        self.optimizer.apply(gradients, variables)
        return features, gradients

    def _share(self, loss: Tensor, task: Tensor) -> Tensor:
        """Give this replica's share of a loss that a layer added."""
        loss = tf.cast(tf.reduce_sum(loss), task.dtype)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return loss / replicas if replicas > 1 else loss

    def _track(self, inputs: Tensor, task: Tensor, objective: Tensor) -> None:
        batch = tf.shape(tf.nest.flatten(inputs)[0])[0]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.exit.loss_tracker.update_state(task * replicas, sample_weight=batch)
        self.objective_tracker.update_state(objective * replicas, sample_weight=batch)
        regularizer = getattr(self.stage, "regularizer", None)
        if regularizer is not None and regularizer.losses:
            energy = tf.add_n(regularizer.losses) / tf.convert_to_tensor(regularizer.weight)
        else:
            energy = tf.zeros_like(task)
        self.energy_tracker.update_state(energy, sample_weight=batch)

    def _checks(self, task: Tensor) -> list[Any]:
        if not self.raise_on_nan:
            return []
        said = f"Stage {self.depth}: {NOT_FINITE}. Received:"
        check = tf.debugging.Assert(tf.math.is_finite(task), [said, task])
        return [] if check is None else [check]

    def pass_on(self, features: Tensor) -> Tensor:
        """Give the features of a stage that does not step, in inference mode."""
        return tf.stop_gradient(self.stage(features, training=False))

    def evaluate(self, inputs: Tensor, y: Any, sample_weight: Any) -> Tensor:
        """Update the metrics on one batch in inference mode, and give the features."""
        features = self.stage(inputs, training=False)
        prediction = self.head(features, training=False)
        task = self.exit.compute_loss(
            x=inputs, y=y, y_pred=prediction, sample_weight=sample_weight, training=False
        )
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.exit.loss_tracker.update_state(
            task * replicas, sample_weight=tf.shape(tf.nest.flatten(inputs)[0])[0]
        )
        self.exit.compute_metrics(inputs, y, prediction, sample_weight)
        return features


def check_label_range(y: Tensor, units: int) -> Tensor:
    """Give `y`, checked inside the step to be class indices below `units`."""
    inside = tf.reduce_all((y >= 0) & (y < units))
    said = f"The {LABEL_RANGE}: they must be 0 to {units - 1}. Received:"
    check = tf.debugging.Assert(inside, [said, tf.reduce_min(y), tf.reduce_max(y)])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(y)
