"""Updates of stages that hand gradients on to each other, or all at once, through the loss scales.

A gradient that crosses a cut, or waits, is without a loss scale: each stage has its own, and it
moves. In half types that could not hold it, it is float32.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.layers.stage import Stage
from keras_trgl.network.passing import apart, cut, together
from keras_trgl.network.staged_network import StagePart
from keras_trgl.training.finite import all_finite
from keras_trgl.training.micro_batches import Pass
from keras_trgl.training.shared_function import SharedFunction
from keras_trgl.training.stage_objective import Batch
from keras_trgl.training.stage_step import StageStep
from keras_trgl.training.update import apply_gradients
from keras_trgl.types import Tensor


def carries(one: Any) -> bool:
    """Tell whether a tensor, or its spec, can have a gradient."""
    return one is not None and bool(one.dtype.is_floating)


def carried_type(dtype: tf.DType) -> tf.DType:
    """Give the type in which gradients of such tensors wait, without a loss scale."""
    return tf.float32 if dtype == tf.float16 else dtype


def scale_of(optimizer: Any) -> Tensor | None:
    """Give what an optimizer multiplies its loss by now, and divides gradients by, or `None`."""
    one = tf.ones([], tf.float32)
    scaled = optimizer.scale_loss(one)
    return None if scaled is one else tf.cast(scaled, tf.float32)


def unscaled(gradient: Tensor, scale: Tensor | None) -> Tensor:
    """Give a gradient as it waits."""
    wanted = carried_type(gradient.dtype)
    if scale is None:
        return tf.cast(gradient, wanted)
    precise = tf.cast(gradient, tf.float64 if wanted == tf.float64 else tf.float32)
    return tf.cast(precise / tf.cast(scale, precise.dtype), wanted)


def skips(optimizer: Any) -> bool:
    """Tell whether an optimizer leaves out a step whose gradients are not finite."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def poisoned(gradients: Sequence[Any], sound: Tensor) -> list[Any]:
    """Give gradients that are NaN where something that belongs to them is not sound.

    Args:
        gradients: list of tensors, `IndexedSlices` or `None`.
        sound: scalar bool tensor.
    """

    def one(gradient: Any) -> Any:
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        values = values + tf.where(
            sound, tf.zeros([], values.dtype), values.dtype.as_numpy_dtype("nan")
        )
        if isinstance(gradient, tf.IndexedSlices):
            return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
        return values

    return [None if gradient is None else one(gradient) for gradient in gradients]


class LinkedStep(StageStep):
    """A stage's step that may pass the gradient of the last head's loss down to the stage before.

    Below the last stage the targets of a batch are a `FromAbove`.

    Attributes:
        sends_back: bool. Whether the gradient for what comes in is found.
    """

    sends_back = False

    @property
    def has_objective(self) -> bool:  # type: ignore[override]
        """Whether what the stage minimises is a number to be logged, and not a late gradient's."""
        return self.part.predicts

    @property
    def draws(self) -> list[Any]:
        """States of the stage's random layers."""
        stage = self.part.stage
        known = {id(variable) for variable in stage.weights}
        return [variable for variable in stage.variables if id(variable) not in known]

    def retrace(self) -> None:
        """Forget the traced functions, as after a change of what they hold."""
        super().retrace()
        self._train_back = SharedFunction(self._update_back)

    def find_loss_names(self, batch: Any) -> None:
        """Make the trackers of the method's further terms, which stages below the last have.

        Args:
            batch: not used.
        """
        if not self.part.predicts:
            super().find_loss_names(batch)

    def first_pass(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Give the features in training mode, without a gradient, for a `train_back` to come.

        Args:
            features: tensor, output of the stage before, or the data.

        Returns:
            Tuple of the features, and of the states of random layers before the pass.
        """
        with self.on_device():
            found = [tf.identity(variable.value) for variable in self.draws]
            if self._parts is None:
                return self.pass_on(features, training=True), found
            return cut(self._parts.features(features)), found

    def train_back(self, batch: Batch, found: Any = None) -> list[Tensor]:
        """Update the stage on one batch, and give the gradients for what came in.

        Args:
            batch: as in `train`; below the last stage with a `FromAbove` as targets.
            found: list of tensors, what `first_pass` gave beside the batch's features, or `None`
                for a batch that had no pass yet. Defaults to `None`.

        Returns:
            List of tensors, one for each input that can have a gradient; none where `sends_back`
            is `False`.
        """
        with self.on_device():
            run = self._update_back if self._runs_inline else self._train_back
            self.prediction, back = run(apart(batch[0]), found, *batch[1:])
            return list(back)

    def _update_back(self, sides: Any, found: Any, *rest: Any) -> tuple[Tensor, list[Tensor]]:
        with self.on_device(), self._as_drawn(found):
            batch: Any = (together(sides), *rest)
            *_, prediction, back = self._update(batch, speaks=True)
            return prediction, back

    @contextlib.contextmanager
    def _as_drawn(self, found: Any) -> Iterator[None]:
        """Let random layers draw what they drew before; leave statistics and states of now."""
        if found is None:
            yield
            return
        trained = {id(variable) for variable in self.trainable_variables}
        states = [one for one in self.part.variables if id(one) not in trained]
        now = [tf.identity(variable.value) for variable in states]
        for variable, value in zip(self.draws, found, strict=True):
            variable.assign(value)
        yield
        for variable, value in zip(states, now, strict=True):
            variable.assign(value)

    def _sends_back(self, inputs: Tensor) -> list[Tensor]:
        return (
            [one for one in keras.tree.flatten(inputs) if carries(one)] if self.sends_back else []
        )

    def _pass(self, batch: Batch, share: Tensor | None = None, *settled: Any) -> Pass:
        if share is not None and not self.part.predicts:
            # A part's loss counts for its share, and these gradients are those of the whole one's.
            inputs, targets, *rest = batch
            gradients = keras.tree.map_structure(
                lambda one: None if one is None else one / tf.cast(share, one.dtype),
                targets.gradients,
            )
            batch = (inputs, targets._replace(gradients=gradients), *rest)  # type: ignore[assignment]
        return super()._pass(batch, share, *settled)

    def _apply(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        # Before the update, which may move the scale.
        scale = scale_of(self.optimizer)
        own, back = gradients[: len(variables)], gradients[len(variables) :]
        if back and skips(self.optimizer):
            # Also where its own gradients hold: else the scale stayed, and stages below waited
            # for ever.
            own = poisoned(own, all_finite(gradients))
        if variables:
            apply_gradients(self.optimizer, own, variables)
        return [unscaled(one, scale) for one in back]


class JoinedStep(StageStep):
    """The step of all stages as one, as end to end, whose gradients are another's to apply.

    Args:
        steps: list of K `StageStep`; metrics, loss and loss scale are the last one's.
        deliver: function of (gradients, variables), which changes the weights.
    """

    def __init__(
        self, steps: Sequence[StageStep], deliver: Callable[[list[Any], list[Any]], None]
    ) -> None:
        self._steps = list(steps)
        self._deliver = deliver
        first, last = steps[0], steps[-1]
        blocks = [block for step in steps for block in step.stage.blocks]
        # Named as no stage is; of the first one's type, in which inputs come.
        stage = Stage(blocks, name="joined", dtype=first.stage.dtype_policy)
        if first.part.place is not None:
            stage.build(first.part.place.input_shape)
        part = StagePart(stage, last.part.given_head, last.part.head, last.part.layers)
        part.place = last.part.place
        super().__init__(
            *(last.depth, part, last.exit, last.optimizer, last.method, last.hooks, last.device),
            micro_batches=last.micro_batches,
            remat=last.remat,
        )
        # Of the links of a pass over several devices it is the last.
        last.sends_back = self._is_spread  # type: ignore[attr-defined]
        self.objective_tracker = last.objective_tracker
        self.raise_on_nan = last.raise_on_nan

    @property
    def _runs_inline(self) -> bool:
        # No function of its own, which would be one device's.
        return super()._runs_inline or self._is_spread

    def _apply(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        self._deliver(gradients, variables)
        return []

    def train(self, batch: Batch, hands_on: bool = False) -> None:
        """Run one batch end to end, and deliver its gradients; nobody takes its features.

        Args:
            batch: as in `StageStep.train`.
            hands_on: as there; not used. Defaults to `False`.
        """
        del hands_on
        with self.on_device():
            if self._runs_inline:
                self.prediction = self._update(batch, speaks=True)[2]
                return
            self.prediction = self._train_last(apart(batch[0]), *batch[1:])

    @property
    def _is_spread(self) -> bool:
        """Whether stages live on several devices."""
        return len({step.device for step in self._steps}) > 1

    def _pass(self, batch: Batch, share: Tensor | None = None, *settled: Any) -> Pass:
        if not self._is_spread:
            return super()._pass(batch, share, *settled)
        # A tape would put all of its gradients on one device: here each stage has its own.
        features, links = batch[0], []
        for step in self._steps[:-1]:
            links.append(_Link(step, features))
            features = links[-1].features
        # Its inputs' gradients come last.
        last: Any = self._steps[-1]
        found = last._pass((features, *batch[1:]), share, *settled)
        objective = sum((link.loss for link in links), found.terms.objective)

        def gradients() -> list[Any]:
            left = found.gradients()
            count = len(last.trainable_variables)
            own, back = left[:count], left[count:]
            for link in reversed(links):
                scale = self.optimizer.scale_loss(tf.ones([], link.loss.dtype))
                scale = scale if share is None else scale * tf.cast(share, scale.dtype)
                more, back = link.gradients(back, scale)
                own = [*more, *own]
            return own

        terms = dataclasses.replace(found.terms, objective=objective)
        return dataclasses.replace(found, terms=terms, gradients=gradients)


class _Link:
    """One stage's part in a pass end to end, on its device.

    Args:
        step: the stage's `StageStep`.
        inputs: tensor, the output of the stage before, or the data.

    Attributes:
        features: tensor, without a gradient.
        loss: scalar tensor, what layers added.
    """

    def __init__(self, step: StageStep, inputs: Tensor) -> None:
        self._step = step
        self._inputs = [one for one in keras.tree.flatten(inputs) if carries(one)]
        with step.on_device(), tf.GradientTape() as self._tape:
            self._tape.watch(self._inputs)
            with step.stage.run_by(step.remat):
                features = step.stage(inputs, training=True)
            losses = [tf.cast(tf.reduce_sum(one), tf.float32) for one in step.stage.losses]
            self.loss = tf.cast(sum(losses, tf.zeros([])), keras.config.floatx())
        self._left = [one for one in keras.tree.flatten(features) if carries(one)]
        self.features = cut(features)

    def gradients(self, back: Sequence[Any], scale: Tensor) -> tuple[list[Any], list[Any]]:
        """Give the gradients for the stage's weights, and for its inputs.

        Args:
            back: list of tensors, the gradients for its features.
            scale: scalar tensor, what its own loss counts for.
        """
        variables = self._step.trainable_variables
        back = [
            tf.zeros_like(one) if gradient is None else gradient
            for one, gradient in zip(self._left, back, strict=True)
        ]
        with self._step.on_device():
            found = self._tape.gradient(
                [*self._left, self.loss],
                [*variables, *self._inputs],
                output_gradients=[*back, scale],
            )
        return found[: len(variables)], found[len(variables) :]
