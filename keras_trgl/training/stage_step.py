"""One update of one stage: the only tape, and the place where gradients stop.

A step is traced once as a function that is not inlined. Its features are handed on only when the
whole function, gradients included, is done: so stage k+1 cannot begin before stage k has freed
its activations, and every schedule that shares the function gives the same numbers bit for bit.
Under a strategy with replicas the update may not sit in such a function; there the features wait
for the gradients by a control dependency. Under a strategy that places stages the function runs on
its stage's device.
"""

import contextlib
import functools
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.feeding.batch_forms import open_spec
from keras_trgl.layers.masks import keeping_mask
from keras_trgl.methods.method import LocalMethod
from keras_trgl.network.passing import apart, cut, main, together
from keras_trgl.network.staged_network import StagePart
from keras_trgl.training.finite import FiniteCheck
from keras_trgl.training.micro_batches import LossFactor, MicroBatches, Pass
from keras_trgl.training.optimizers import settle_average
from keras_trgl.training.plain_errors import plain_errors
from keras_trgl.training.remat import Remat
from keras_trgl.training.shared_function import SharedFunction
from keras_trgl.training.stage_objective import (
    Batch,
    MultiplierScheme,
    StageObjective,
    Terms,
    rows,
)
from keras_trgl.training.subclass_hooks import SubclassHooks
from keras_trgl.training.update import apply_gradients
from keras_trgl.types import Tensor


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
        part: `StagePart`, T_k, F_k and the method's layers.
        exit_model: compiled `Exit`.
        optimizer: Keras optimizer of this stage.
        method: what the stage minimises.
        hooks: what a subclass of the model overrides.
        device: str, the device that the step runs on, or `None` for any. Defaults to `None`.
        micro_batches: int ≥ 1. Parts that a batch is trained in. Defaults to `1`.
        remat: what makes activations anew in the backward pass, or `None`. Defaults to `None`.

    Attributes:
        raise_on_nan: bool. Whether a loss that is not finite stops the step before its update.
        has_objective: bool. Whether what the stage minimises is a number to be logged.
    """

    has_objective = True

    def __init__(
        self,
        depth: int,
        part: StagePart,
        exit_model: Exit,
        optimizer: Any,
        method: LocalMethod,
        hooks: SubclassHooks,
        device: str | None = None,
        micro_batches: int = 1,
        remat: Remat | None = None,
    ) -> None:
        self.depth = depth
        self.part = part
        self.exit = exit_model
        self.optimizer = optimizer
        self.method = method
        self.hooks = hooks
        self.device = device
        self.raise_on_nan = True
        self.objective = StageObjective(part, method)
        self.objective_tracker = keras.metrics.Mean(name="objective")
        has_energy = part.stage.energy_reduction is not None
        self.energy_tracker = keras.metrics.Mean(name="energy") if has_energy else None
        self.loss_trackers: dict[str, Any] = {}
        self.staleness_tracker: Any = None
        self.micro_batches = micro_batches
        self.remat = remat
        self.prediction: Any = None
        self.retrace()

    @property
    def stage(self) -> Any:
        """T_k."""
        return self.part.stage

    @property
    def head(self) -> Any:
        """F_k, the one in use."""
        return self.part.head

    def on_device(self) -> Any:
        """Give the context that the step's arithmetic is put into."""
        return contextlib.nullcontext() if self.device is None else tf.device(self.device)

    @property
    def trainable_variables(self) -> list[Any]:
        """What this stage trains, and no other does."""
        return self.part.trainable_variables

    @property
    def metrics(self) -> list[Any]:
        """Trackers and compiled metrics."""
        more = [one for one in (self.energy_tracker, self.staleness_tracker) if one is not None]
        more += [self.objective_tracker] if self.has_objective else []
        return [*self.exit.metrics, *more, *self.loss_trackers.values()]

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

    def _exit_results(self, idle: bool) -> dict[str, Any]:
        if not self.part.predicts:
            return {}
        try:
            return dict(self.exit.get_metrics_result())
        except ValueError:
            if not idle:
                raise
            return {"loss": self.exit.loss_tracker.result()}

    def _results(self, training: bool, idle: bool) -> dict[str, Any]:
        results = self._exit_results(idle)
        if not training:
            return results
        if self.has_objective:
            results["objective"] = self.objective_tracker.result()
        if self.energy_tracker is not None:
            # A user's metric may have the name; it is theirs.
            name = "kinetic_energy" if "energy" in results else "energy"
            results[name] = self.energy_tracker.result()
        for name, tracker in self.loss_trackers.items():
            results[name] = tracker.result()
        if self.staleness_tracker is not None:
            results["staleness"] = self.staleness_tracker.result()
        if self.multiplier is not None:
            multiplier = tf.convert_to_tensor(self.regularizer.multiplier)
            results["multiplier"], results["tau"] = multiplier, multiplier / 2
        return results

    @property
    def multiplier(self) -> MultiplierScheme | None:
        """How the weight of the energy moves, if it does."""
        return self.objective.multiplier

    @multiplier.setter
    def multiplier(self, scheme: MultiplierScheme | None) -> None:
        self.objective.multiplier = scheme

    def train(self, batch: Batch, hands_on: bool = True) -> Tensor | None:
        """Update the stage on one batch.

        Args:
            batch: inputs (output of the stage before, or the data); targets, as `compile`'s loss
                takes them; weights `(batch,)` of the task loss or `None`; the network's data,
                where the method needs them, or `None`.
            hands_on: bool. Whether a stage after this one wants the features; if not, they are
                freed before the backward pass ends. Defaults to `True`.

        Returns:
            Tensor: the stage's features before this update, without a gradient; or `None`.
        """
        with self.on_device():
            if self._runs_inline:
                features, gradients, self.prediction, _ = self._update(batch, not hands_on)
                features, masks = apart(features)
                with tf.control_dependencies([g for g in gradients if g is not None]):
                    features = keras.tree.map_structure(tf.identity, features)
                return cut(together((features, masks)))
            inputs, *rest = batch
            if not hands_on:
                self.prediction = self._train_last(apart(inputs), *rest)
                return None
            return cut(together(self._train(apart(inputs), *rest)))

    @property
    def _runs_inline(self) -> bool:
        """Whether the update may not sit in a function of its own."""
        return tf.executing_eagerly() or self._has_replicas

    @property
    def _has_replicas(self) -> bool:
        """Whether the strategy in force is one of replicas, which may be one."""
        return bool(tf.distribute.has_strategy()) and self.device is None

    def retrace(self) -> None:
        """Forget the traced functions, as after a change of what they hold."""

        # Two functions: as an output, features nobody takes would live through the backward pass.
        def train(sides: Any, *rest: Any) -> Any:
            return apart(self._update((together(sides), *rest), speaks=False)[0])

        def train_last(sides: Any, *rest: Any) -> Any:
            return self._update((together(sides), *rest), speaks=True)[2]

        def pass_on(sides: Any, training: bool) -> Any:
            return apart(self._features(together(sides), training))

        self._train, self._train_last = SharedFunction(train), SharedFunction(train_last)
        self._pass_on = {
            training: SharedFunction(functools.partial(pass_on, training=training))
            for training in (False, True)
        }
        self._parts: MicroBatches | None = None
        if self.micro_batches > 1:
            loss = None if self.hooks.overrides_loss else self.exit.loss
            self._parts = MicroBatches(
                self.micro_batches, self.part, self.objective, loss, self._pass
            )
        self.prediction = None

    def crossing(self, sides: Any) -> Any:
        """Give the specs of what this stage hands on, found by a trace.

        Args:
            sides: structure of `tf.TensorSpec`, as `apart` gives what the stage gets.
        """
        traced = tf.function(
            lambda sides: apart(self._features(together(sides), training=True)), autograph=False
        ).get_concrete_function(tf.nest.map_structure(open_spec, sides))
        return tf.nest.map_structure(open_spec, traced.structured_outputs)

    def _features(self, x: Tensor, training: bool) -> Tensor:
        # A function's own graph does not know the device that it is called on.
        with self.on_device():
            return self.stage(x, training=training)

    def _update(self, batch: Batch, speaks: bool) -> tuple[Tensor, list[Any], Tensor, list[Any]]:
        """Give features, gradients, prediction (its loss, where nobody asks), and input gradients.

        Args:
            batch: as in `train`.
            speaks: bool. Whether the batch's metrics are this stage's to tell, by a subclass's
                `compute_metrics` where there is one.
        """
        with self.on_device():
            inputs, y, sample_weight, _ = batch
            variables = self.trainable_variables
            check = self._finite_check()
            told = speaks and self.hooks.overrides_metrics
            found = self._passed(batch, not speaks, told)
            self._track(inputs, found.task, found.energy, found.terms)
            if self.part.predicts and not told:
                self.exit.compute_metrics(inputs, y, found.prediction, sample_weight)
            gradients = found.gradients()
            # Only the updates wait for the checks: held back from the gradients on, memory grew
            # by a fifth, as the executor then takes them in another order.
            objective, task, energy = found.terms.objective, found.task, found.energy
            checks = (
                [] if check is None else check.ops(task, energy, objective, gradients, rows(inputs))
            )
            with tf.control_dependencies(checks):
                for move in found.terms.moves:
                    move()
                gradients = [None if g is None else tf.identity(g) for g in gradients]
            back = self._apply(gradients, variables)
            return found.features, gradients, found.prediction if told else task, back

    def _apply(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        """Change the weights, and give the gradients for what came in, where they are asked for."""
        if variables:
            apply_gradients(self.optimizer, gradients, variables)
        return []

    def _sends_back(self, inputs: Tensor) -> list[Tensor]:
        """Give what comes in and has a gradient that somebody asks for."""
        del inputs
        return []

    def _passed(self, batch: Batch, hands_on: bool, told: bool) -> Pass:
        """Run the batch forward, whole or in parts."""
        if self._parts is None:
            return self._pass(batch)
        # Metrics see the whole batch, so its predictions are kept where there are any.
        has_metrics = told or len(self.exit.metrics) > 1
        return self._parts(batch, hands_on or tf.executing_eagerly(), has_metrics)

    def _pass(self, batch: Batch, share: Tensor | None = None, *settled: Any) -> Pass:
        """Run a batch forward, ready for its gradients.

        Args:
            batch: as in `train`, or a part of it.
            share: scalar tensor, what the part's objective counts for, or `None` for a whole
                batch. Defaults to `None`.
            *settled: what the whole batch settles, as `_forward` takes it.
        """
        with self.on_device():
            variables = self.trainable_variables
            # Only variables are watched, where the input carries no gradient back.
            back = self._sends_back(batch[0])
            with tf.GradientTape() as tape:
                tape.watch(back)
                found = self._forward(batch, *settled)
                objective = found[-1].objective
                # Inside the tape: a loss scale must be in the gradients that it is taken out of,
                # and a share too, as larger ones of half types would overflow.
                scaled = self.optimizer.scale_loss(
                    objective if share is None else objective * tf.cast(share, objective.dtype)
                )
            sources = [*variables, *back]
            return Pass(*found, lambda: tape.gradient(scaled, sources) if sources else [])

    def _forward(
        self, batch: Batch, factor: LossFactor | None = None, multiplier: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Terms]:
        """Give features, prediction, this replica's task loss, plain energy, and the objective."""
        with self.stage.run_by(self.remat):
            features = self.stage(batch[0], training=True)
        # Now: where replicas wait for each other, the next one's call puts its own there.
        energy = self.stage.energy
        prediction, task = self._predict(batch, features, training=True)
        task = task if factor is None or not self.part.predicts else factor(prediction, task)
        terms = self.objective.terms(batch, features, prediction, task, energy, multiplier)
        return features, prediction, task, energy, terms

    def _predict(self, batch: Batch, features: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """Give prediction and task loss: none and zero where the stage predicts nothing."""
        inputs, y, sample_weight, data = batch
        if not self.part.predicts:
            return None, tf.zeros([], keras.config.floatx())
        prediction = keeping_mask(lambda x: self.head(x, training=training), main(features))
        x = inputs if data is None else data
        task = self.hooks.loss(self.exit, x, y, prediction, sample_weight, training=training)
        return prediction, task

    def settle_average(self) -> None:
        """Give the weights their moving average, where the optimizer has one."""
        settle_average(self.optimizer, self.trainable_variables)

    def find_loss_names(self, batch: Any) -> None:
        """Make the trackers of the method's further terms, by a symbolic run on one batch.

        Made inside a traced step they would come too late for a backup to fill them.

        Args:
            batch: as in `train`, of symbolic Keras tensors.
        """
        if self.method.loss_names is not None:
            self._trackers_of(self.method.loss_names)
            return
        structure = keras.tree.map_structure(lambda leaf: leaf is not None, batch)
        leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
        step = self

        class Probe(keras.layers.Layer):
            def call(self, leaves: Any) -> Any:
                left = iter(leaves)
                full = keras.tree.map_structure(lambda is_: next(left) if is_ else None, structure)
                step._trackers_of(step._forward(full)[-1].further)
                return tf.zeros([1])

        with self.on_device(), plain_errors():
            Probe(autocast=False)(leaves)

    def _trackers_of(self, names: Any) -> dict[str, Any]:
        missing = [name for name in names if name not in self.loss_trackers]
        if missing:
            with tf.init_scope(), self.on_device():
                for name in missing:
                    self.loss_trackers[name] = keras.metrics.Mean(name=name)
        return self.loss_trackers

    def _track(self, inputs: Any, task: Tensor, energy: Tensor | None, terms: Terms) -> None:
        batch, replicas = rows(inputs), tf.distribute.get_strategy().num_replicas_in_sync
        # Keras divides a replica's loss by the number of replicas, so that their sum is the mean.
        if self.part.predicts:
            self.exit.loss_tracker.update_state(task * replicas, sample_weight=batch)
        if self.has_objective:
            self.objective_tracker.update_state(terms.objective * replicas, sample_weight=batch)
        if self.energy_tracker is not None:
            self.energy_tracker.update_state(energy, sample_weight=batch)
        trackers = self._trackers_of(terms.further)
        for name, loss in terms.further.items():
            trackers[name].update_state(loss, sample_weight=batch)

    def _finite_check(self) -> FiniteCheck | None:
        if not self.raise_on_nan:
            return None
        puts_back = not self._has_replicas
        return FiniteCheck(self.part, self.depth, self.optimizer, puts_back)

    def pass_on(self, features: Tensor, training: bool = False) -> Tensor:
        """Give the features of a stage that does not step, without a gradient.

        Args:
            features: tensor, output of the stage before.
            training: bool. Whether it normalizes by the batch and drops units. Defaults to
                `False`.
        """
        with self.on_device():
            if self._has_replicas:
                return cut(self._features(features, training))
            return cut(together(self._pass_on[training](apart(features))))

    def evaluate(self, batch: Batch, speaks: bool = False) -> Tensor:
        """Update the metrics on one batch in inference mode, and give the features.

        Args:
            batch: as in `train`.
            speaks: bool. Whether a subclass's `compute_metrics` tells the batch's metrics, for
                this stage's `prediction`. Defaults to `False`.
        """
        inputs, y, sample_weight, _ = batch
        with self.on_device():
            # Not through a shared function: nothing is differentiated, so nothing is to be freed.
            features = self.stage(inputs, training=False)
            self.prediction, task = self._predict(batch, features, training=False)
            if not self.part.predicts:
                return features
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            self.exit.loss_tracker.update_state(task * replicas, sample_weight=rows(inputs))
            if not (speaks and self.hooks.overrides_metrics):
                self.exit.compute_metrics(inputs, y, self.prediction, sample_weight)
            return features
