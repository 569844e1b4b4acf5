"""One update of one stage: the only tape, and the place where gradients stop.

A step is traced once as a function that is not inlined. Its features are handed on only when the
whole function, gradients included, is done: so stage k+1 cannot begin before stage k has freed
its activations, and every schedule that shares the function gives the same numbers bit for bit.
Under a strategy with replicas the update may not sit in such a function; there the features wait
for the gradients by a control dependency. Under a strategy that places stages the function runs on
its stage's device.
"""

import contextlib
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.methods.method import Method
from keras_trgl.training.update import apply_gradients
from keras_trgl.types import Tensor

Structure = Any
NOT_FINITE = "the task loss is not finite"
LABEL_RANGE = "labels are out of range"


class SharedFunction:
    """A function that is not inlined, traced once for all batches of the same structure.

    The batch axis is open, so that a short batch and every schedule run the very same graph.

    Args:
        function: Python function of tensors, nested structures of them, or `None`.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._traced: dict[Any, Any] = {}

    def __call__(self, *batch: Any) -> Any:
        """Call it."""
        tensors = [
            tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(batch) if leaf is not None
        ]
        specs = [tf.TensorSpec(_open_batch(tensor.shape), tensor.dtype) for tensor in tensors]
        structure = tf.nest.map_structure(lambda leaf: leaf is None, batch)
        key = repr((structure, specs))
        if key not in self._traced:

            def packed(*leaves: Any) -> Any:
                left = iter(leaves)
                return self._function(
                    *tf.nest.map_structure(lambda none: None if none else next(left), structure)
                )

            # TensorFlow warns of many functions of the same lines, unless each is traced by itself.
            self._traced[key] = tf.function(
                packed,
                input_signature=specs,
                autograph=False,
                experimental_attributes={"_noinline": True},
            ).get_concrete_function()
        return self._traced[key](*tensors)


def _open_batch(shape: Any) -> Any:
    return [None, *shape[1:]] if shape.rank else shape


@dataclasses.dataclass(frozen=True)
class MultiplierScheme:
    """How the weight of the energy moves inside the step.

    Attributes:
        h: float. Step of the multiplier.
        s: int. It moves at every s-th batch.
        scaling: `"energy"`: L + E/λ, or `"loss"`: λL + E.
        record: function of (batch counted from 1, loss, λ used), or `None`.
    """

    h: float
    s: int
    scaling: str = "energy"
    record: Any = None


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
        device: str, the device that the step runs on, or `None` for any. Defaults to `None`.

    Attributes:
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
        device: str | None = None,
    ) -> None:
        self.depth = depth
        self.stage = stage
        self.head = head
        self.exit = exit_model
        self.optimizer = optimizer
        self.method = method
        self.device = device
        self.raise_on_nan = True
        self.multiplier: MultiplierScheme | None = None
        self.objective_tracker = keras.metrics.Mean(name="objective")
        self.energy_tracker = keras.metrics.Mean(name="energy")
        self.staleness_tracker: Any = None
        self.retrace()

    def on_device(self) -> Any:
        """Give the context that the step's arithmetic is put into."""
        return contextlib.nullcontext() if self.device is None else tf.device(self.device)

    @property
    def trainable_variables(self) -> list[Any]:
        """What this stage trains, and no other does."""
        return [*self.stage.trainable_variables, *self.head.trainable_variables]

    @property
    def metrics(self) -> list[Any]:
        """Trackers and compiled metrics."""
        stale = [] if self.staleness_tracker is None else [self.staleness_tracker]
        return [*self.exit.metrics, self.objective_tracker, self.energy_tracker, *stale]

    @property
    def regularizer(self) -> Any:
        """What adds the stage's energy, or `None`."""
        return getattr(self.stage, "regularizer", None)

    def results(self, training: bool, idle: bool = False) -> dict[str, Any]:
        """Give the metrics' results; in training also objective, energy and what moves.

        Args:
            training: bool. Whether these are results of training.
            idle: bool. Whether the stage saw nothing, so that its metrics may not be made yet.
                Defaults to `False`.
        """
        with self.on_device():
            return self._results(training, idle)

    def _results(self, training: bool, idle: bool) -> dict[str, Any]:
        try:
            results = dict(self.exit.get_metrics_result())
        except ValueError:
            if not idle:
                raise
            results = {"loss": self.exit.loss_tracker.result()}
        if training:
            results["objective"] = self.objective_tracker.result()
            results["energy"] = self.energy_tracker.result()
            if self.staleness_tracker is not None:
                results["staleness"] = self.staleness_tracker.result()
            if self.multiplier is not None:
                multiplier = tf.convert_to_tensor(self.regularizer.multiplier)
                results["multiplier"], results["tau"] = multiplier, multiplier / 2
        return results

    def train(
        self, features: Tensor, y: Any, sample_weight: Any, hands_on: bool = True
    ) -> Tensor | None:
        """Update the stage on one batch.

        Args:
            features: tensor, output of the stage before (the data, for the first).
            y: targets, as `compile`'s loss takes them.
            sample_weight: tensor `(batch,)` or `None`; weighs the task loss only.
            hands_on: bool. Whether a stage after this one wants the features; if not, they are
                freed before the backward pass ends. Defaults to `True`.

        Returns:
            Tensor: the stage's features before this update, without a gradient; or `None`.
        """
        with self.on_device():
            if self._runs_inline:
                features, gradients, _ = self._forward_and_update(features, y, sample_weight)
                with tf.control_dependencies([g for g in gradients if g is not None]):
                    return tf.stop_gradient(tf.identity(features))
            if not hands_on:
                self._train_last(features, y, sample_weight)
                return None
            return tf.stop_gradient(self._train(features, y, sample_weight))

    @property
    def _runs_inline(self) -> bool:
        """Whether the update may not sit in a function of its own."""
        return tf.executing_eagerly() or (tf.distribute.has_strategy() and self.device is None)

    def retrace(self) -> None:
        """Forget the traced functions, as after a change of what they hold."""
        self._train = SharedFunction(lambda *batch: self._forward_and_update(*batch)[0])
        self._train_last = SharedFunction(lambda *batch: self._forward_and_update(*batch)[2])
        self._pass_on = {
            training: SharedFunction(lambda x, training=training: self._features(x, training))
            for training in (False, True)
        }

    def _features(self, x: Tensor, training: bool) -> Tensor:
        with self.on_device():
            return self.stage(x, training=training)

    def _forward_and_update(
        self, inputs: Tensor, y: Any, sample_weight: Any
    ) -> tuple[Tensor, list[Any], Tensor]:
        # A function's own graph does not know the device that it is called on.
        with self.on_device():
            return self._update(inputs, y, sample_weight)

    def _update(
        self, inputs: Tensor, y: Any, sample_weight: Any
    ) -> tuple[Tensor, list[Any], Tensor]:
        variables = self.trainable_variables
        # Only variables are watched: the input carries no gradient back.
        with tf.GradientTape() as tape:
            features = self.stage(inputs, training=True)
            # Now: where replicas wait for each other, the next one's call puts its own there.
            energy = getattr(self.regularizer, "energy", None)
            prediction = self.head(features, training=True)
            task = self.exit.compute_loss(
                x=inputs, y=y, y_pred=prediction, sample_weight=sample_weight, training=True
            )
            objective, moves = self._objective(inputs, task, energy)
            scaled = self.optimizer.scale_loss(objective)
        self._track(inputs, task, objective, energy)
        self.exit.compute_metrics(inputs, y, prediction, sample_weight)
        gradients = tape.gradient(scaled, variables) if variables else []
        # Only the updates wait for the checks: held back from the gradients on, memory grew by
        # a fifth, as the executor then takes them in another order.
        with tf.control_dependencies(self._checks(task)):
            for move in moves:
                move()
            gradients = [None if g is None else tf.identity(g) for g in gradients]
        if not variables:
            return features, [], task
        apply_gradients(self.optimizer, gradients, variables)
        return features, gradients, task

    def _objective(
        self, inputs: Tensor, task: Tensor, energy: Tensor | None
    ) -> tuple[Tensor, list[Any]]:
        """Give what the stage minimises, and what to do once the loss is known to be finite."""
        own = [*self.stage.losses, *self.head.losses]
        scheme, regularizer = self.multiplier, self.regularizer
        if scheme is None:
            return self.method.objective(task, [self._share(loss, task) for loss in own]), []
        # The energy's loss was added with the multiplier of the batch before.
        mine = {id(loss) for loss in regularizer.losses}
        terms = [self._share(loss, task) for loss in own if id(loss) not in mine]
        loss = self._global_mean(inputs, task)
        batch, multiplier = regularizer.next_multiplier(loss, scheme.h, scheme.s)
        energy = self._share(energy, task)
        used = tf.cast(multiplier, task.dtype)
        if scheme.scaling == "energy":
            objective = self.method.objective(task, [*terms, energy / used])
        else:
            objective = self.method.objective(used * task, [*terms, energy])
        moves = [lambda: regularizer.move_multiplier(batch, multiplier)]
        if scheme.record is not None and self._is_first_replica():
            moves.append(lambda: tf.numpy_function(scheme.record, [batch, loss, multiplier], []))
        return objective, moves

    @staticmethod
    def _is_first_replica() -> bool:
        """Tell whether this is the replica that speaks for all."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return bool(tf.get_static_value(tf.convert_to_tensor(replica)) == 0)

    def _global_mean(self, inputs: Tensor, task: Tensor) -> Tensor:
        """Give the task loss as the mean over the global batch, without a gradient."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas == 1:
            return tf.stop_gradient(task)
        count = tf.cast(tf.shape(tf.nest.flatten(inputs)[0])[0], task.dtype)
        context = tf.distribute.get_replica_context()
        total, count = context.all_reduce(
            tf.distribute.ReduceOp.SUM, [tf.stop_gradient(task) * replicas * count, count]
        )
        return total / count

    def _share(self, loss: Tensor, task: Tensor) -> Tensor:
        """Give this replica's share of a loss that a layer added."""
        loss = tf.cast(tf.reduce_sum(loss), task.dtype)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return loss / replicas if replicas > 1 else loss

    def _track(
        self, inputs: Tensor, task: Tensor, objective: Tensor, energy: Tensor | None
    ) -> None:
        batch = tf.shape(tf.nest.flatten(inputs)[0])[0]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.exit.loss_tracker.update_state(task * replicas, sample_weight=batch)
        self.objective_tracker.update_state(objective * replicas, sample_weight=batch)
        energy = tf.zeros_like(task) if energy is None else energy
        self.energy_tracker.update_state(energy, sample_weight=batch)

    def _checks(self, task: Tensor) -> list[Any]:
        if not self.raise_on_nan:
            return []
        said = f"Stage {self.depth}: {NOT_FINITE}. Received:"
        check = tf.debugging.Assert(tf.math.is_finite(task), [said, task])
        return [] if check is None else [check]

    def pass_on(self, features: Tensor, training: bool = False) -> Tensor:
        """Give the features of a stage that does not step, without a gradient.

        Args:
            features: tensor, output of the stage before.
            training: bool. Whether it normalizes by the batch and drops units. Defaults to
                `False`.
        """
        with self.on_device():
            if tf.distribute.has_strategy() and self.device is None:
                return tf.stop_gradient(self._features(features, training))
            return tf.stop_gradient(self._pass_on[training](features))

    def evaluate(self, inputs: Tensor, y: Any, sample_weight: Any) -> Tensor:
        """Update the metrics on one batch in inference mode, and give the features."""
        with self.on_device():
            return self._evaluate(inputs, y, sample_weight)

    def _evaluate(self, inputs: Tensor, y: Any, sample_weight: Any) -> Tensor:
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
