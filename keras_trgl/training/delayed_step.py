"""Steps of all stages by late gradients of the last head's loss.

Calls of one step, three stages; `k:b` is an update of stage k by batch b, `(k:b)` batch b on its
way through stage k alone:

    (1:0) (2:0) 3:0  |  (1:1) (2:1) 2:0 3:1  |  (1:2) 1:0 (2:2) 2:1 3:2  |  …

What is in flight is part of a run: it is kept between its epochs, and never used up at their end.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.feeding.batch_forms import filled, leaves_of
from keras_trgl.methods.delayed import DelayedMethod, FromAbove
from keras_trgl.methods.method import Method
from keras_trgl.network.passing import apart, together
from keras_trgl.regimes.parallel import Parallel
from keras_trgl.regimes.regime import Regime
from keras_trgl.training.delay_line import NOTHING, DelayLine
from keras_trgl.training.feature_buffer import FeatureBuffer
from keras_trgl.training.finite import all_finite
from keras_trgl.training.linked_step import (
    JoinedStep,
    LinkedStep,
    carried_type,
    carries,
    poisoned,
    scale_of,
    skips,
    unscaled,
)
from keras_trgl.training.stage_objective import Batch
from keras_trgl.training.stage_step import StageStep
from keras_trgl.training.stored_step import StoredStep
from keras_trgl.training.update import apply_gradients
from keras_trgl.types import StagePlace, Tensor


class Staleness(keras.metrics.Mean):
    """A mean that is NaN where the stage made no step: of nothing it would read as no delay."""

    def result(self) -> Tensor:
        """Give the mean."""
        mean = super().result()
        return keras.ops.where(self.count > 0, mean, keras.ops.cast(float("nan"), mean.dtype))


class DelayedStep(StoredStep):
    """What both kinds share: lines in which something waits, and a count of steps.

    Args:
        steps: list of K `StageStep`, K > 1.
        regime: the regime it was made for.

    Attributes:
        lines: list of `DelayLine`, or `None` where nothing waits, one per stage.
    """

    def __init__(self, steps: Sequence[StageStep], regime: Any) -> None:
        super().__init__(steps, regime, measures_staleness=False)
        method: Any = self.steps[0].method
        self.staleness = [method.staleness(step.part.place) for step in self.steps]
        self.lines: list[Any] = [None] * len(self.steps)
        self._count = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="steps")
        for step, late in zip(self.steps, self.staleness, strict=True):
            with step.on_device():
                step.staleness_tracker = Staleness(name="staleness") if late else None

    @property
    def variables(self) -> list[Any]:
        """All that is kept between steps."""
        held: list[Any] = [*(one for one in self.lines if one is not None), *self.buffers]
        return [self._count, *(variable for one in held for variable in one.variables)]

    def clear(self) -> None:
        """Forget what is in flight."""
        self.rates = []
        self._count.assign(0)
        for line, step in zip(self.lines, self.steps, strict=True):
            if line is not None:
                with step.on_device():
                    line.clear()

    def _make_lines(self, specs: Sequence[Any]) -> bool:
        """Make the lines for things of these structures, keep those that fit; tell if any is new.

        Args:
            specs: nested structure of `tf.TensorSpec` for every stage.
        """
        is_new = False
        for k, (step, late, spec) in enumerate(zip(self.steps, self.staleness, specs, strict=True)):
            line = self.lines[k]
            if late and (line is None or not line.fits(late, spec)):
                is_new = True
                with step.on_device():
                    self.lines[k] = DelayLine(late, spec)
        return is_new

    def _note(self, k: int, number: Tensor) -> None:
        self.note_staleness(k, self._count - number)


class LateGradientStep(DelayedStep):
    """Gradients of all stages at once, end to end; each waits its time before it is applied."""

    def __init__(self, *args: Any, **names: Any) -> None:
        super().__init__(*args, **names)
        self.joined = JoinedStep(self.steps, self._deliver)

    def prepare(self, spec: Any) -> bool:
        """Make the lines; what comes in tells nothing of them."""
        del spec
        return self._make_lines(
            [
                [
                    tf.TensorSpec(list(v.shape), carried_type(tf.as_dtype(v.dtype)))
                    for v in step.trainable_variables
                ]
                for step in self.steps
            ]
        )

    def retrace(self) -> None:
        """Forget traced functions, as after a change of what the steps hold."""
        self.joined.raise_on_nan = self.steps[-1].raise_on_nan
        self.joined.retrace()

    def __call__(self, batch: Batch) -> None:
        """Take a batch of data, and let every stage step by the gradient whose time it is."""
        self._count.assign_add(1)
        self.joined.train(batch)
        # Whose it would have been.
        self.steps[-1].prediction = self.joined.prediction

    def _deliver(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Put a batch's gradients into the lines, and apply what comes out."""
        last = self.steps[-1].optimizer
        scale, sound = scale_of(last), None
        if skips(last):
            # One scale for the whole pass: it is too large wherever a gradient has no number.
            sound = all_finite(gradients)
            gradients = poisoned(gradients, sound)
        found = {id(v): one for v, one in zip(variables, gradients, strict=True)}
        for k, step in enumerate(self.steps):
            trained = step.trainable_variables
            own = [found[id(variable)] for variable in trained]
            with step.on_device():
                if self.lines[k] is not None:
                    self._apply_late(k, own, scale, sound)
                elif trained:
                    plain = step.optimizer is last or scale is None
                    apply_gradients(
                        step.optimizer,
                        own if plain else _scaled_like(own, trained, step.optimizer, scale),
                        trained,
                    )

    def _apply_late(self, k: int, own: list[Any], scale: Any, sound: Any) -> None:
        step, line = self.steps[k], self.lines[k]
        trained = step.trainable_variables
        if not trained:
            return
        waiting = [
            tf.zeros(one.shape, one.dtype)
            if g is None
            else unscaled(tf.ensure_shape(tf.convert_to_tensor(g), one.shape), scale)
            for g, one in zip(own, line.spec, strict=True)
        ]
        number = self._count.read_value()
        if sound is not None:
            number = tf.where(sound, number, tf.constant(NOTHING, tf.int64))
        late, number = line.shift(waiting, number)

        def update() -> Tensor:
            self._note(k, number)
            there = [None if g is None else one for g, one in zip(own, late, strict=True)]
            apply_gradients(step.optimizer, _scaled(there, trained, step.optimizer), trained)
            return tf.constant(0)

        tf.cond(number > NOTHING, update, lambda: tf.constant(0))


class SecondPassStep(DelayedStep):
    """Stages run once more on what came in, each by the gradient that the one above sends back."""

    steps: list[Any]

    def __init__(self, steps: Sequence[LinkedStep], *args: Any, **names: Any) -> None:
        super().__init__(steps, *args, **names)
        for step in steps[1:]:
            step.sends_back = True
            step.retrace()

    def _unspoilt(self, k: int, ready: Any, back: list[Any]) -> Any:
        """Give whether stage k, counted from 0, may step by what the one above sends back.

        Args:
            k: int.
            ready: bool tensor, whether the one above has stepped, or `None` where it always has.
            back: list of gradients; a loss scale may have overflown them.

        Returns:
            Bool tensor, or `None` where nothing stands against it.
        """
        if not skips(self.steps[k + 1].optimizer):
            return ready
        sound = all_finite(back)
        return sound if ready is None else ready & sound


class ReplayStep(SecondPassStep):
    """Inputs wait at every stage until the gradient for their features has come down to it.

    Attributes:
        buffers: list of K − 1 `FeatureBuffer`: of each stage but the last, the gradient for the
            features that it will replay next, where the stage lives.
    """

    def prepare(self, spec: Any) -> bool:
        """Make lines and stores for batches of this structure; keep those that fit.

        Args:
            spec: `(x, y, sample_weight, data)` of `tf.TensorSpec` or `None`.
        """
        x, *_ = spec
        self.check_shapes(x)
        crossing = [(tf.nest.flatten(x)[0], {}), *self._crossing(x)]
        specs = [
            (sides, [tf.TensorSpec(list(v.shape), tf.as_dtype(v.dtype)) for v in step.draws])
            for sides, step in zip(crossing, self.steps, strict=True)
        ]
        is_new = self._make_lines(specs)
        gradients = [
            tf.nest.map_structure(
                lambda one: (
                    tf.TensorSpec(one.shape, carried_type(one.dtype)) if carries(one) else None
                ),
                features,
            )
            for features, _ in crossing[1:]
        ]
        if [repr(one) for one in gradients] != [repr(one.spec) for one in self.buffers]:
            is_new, self.buffers = True, []
            for step, one in zip(self.steps, gradients, strict=False):
                with step.on_device():
                    self.buffers.append(FeatureBuffer(1, one, 1))
        return is_new

    def clear(self) -> None:
        """Forget what is in flight."""
        super().clear()
        for buffer, step in zip(self.buffers, self.steps, strict=False):
            with step.on_device():
                buffer.clear()

    def __call__(self, batch: Batch) -> None:
        """Take a batch of data through all stages, and let each step on what it replays."""
        self._count.assign_add(1)
        features, *rest = batch
        sent: list[tuple[int, Any, list[Any]]] = []
        done: dict[str | None, Any] = {}
        for k, step in enumerate(self.steps[:-1]):
            with step.on_device(), _after(done.get(step.device)):
                inputs = features
                features, drawn = step.first_pass(inputs)
                ready, back = self._replay(k, inputs, drawn)
            done[step.device] = back[0] if back else features
            sent.append((k - 1, ready, back))
        last = self.steps[-1]
        with last.on_device(), _after(done.get(last.device)):
            back = last.train_back((features, *rest))
        sent.append((len(self.steps) - 2, None, back))
        for k, ready, back in sent[1:]:
            self._send(k, ready, back)

    def _replay(self, k: int, inputs: Tensor, drawn: list[Any]) -> tuple[Any, list[Any]]:
        """Put the inputs of stage k aside, and replay the oldest if its gradient is there.

        Returns:
            Tuple of a bool tensor, whether it was, and the gradients for the replayed inputs.
        """
        step, line, buffer = self.steps[k], self.lines[k], self.buffers[k]
        (old, old_drawn), number = line.shift((apart(inputs), drawn), self._count.read_value())
        ready, (gradients, _) = buffer.readable(), buffer.read()

        def replay() -> Any:
            self._note(k, number)
            targets = FromAbove(gradients)
            back = step.train_back((together(old), targets, None, None), old_drawn)
            return back or [tf.constant(0)]

        def wait() -> Any:
            if not step.sends_back:
                return [tf.constant(0)]
            return [
                tf.zeros([0, *one.shape[1:]], one.dtype)
                for one in leaves_of(self.buffers[k - 1].spec)
            ]

        return ready, tf.cond(ready, replay, wait)

    def _send(self, k: int, ready: Any, back: list[Any]) -> None:
        """Hand gradients to stage k, counted from 0; none that a loss scale has overflown."""
        buffer = self.buffers[k]
        with self.steps[k].on_device():
            ready = self._unspoilt(k, ready, back)
            left = filled(buffer.spec, back)
            buffer.write(left, True if ready is None else ready)


class DownwardStep(SecondPassStep):
    """Stages run forward, then once more from the last to the first, each by what came from above.

    Calls of one step, three stages, as above: `(1:t) (2:t) 3:t 2:t 1:t`. Nothing waits.
    """

    def prepare(self, spec: Any) -> bool:
        """Make nothing: a batch is trained on as it comes."""
        del spec
        return False

    def __call__(self, batch: Batch) -> None:
        """Take a batch of data up through all stages, and down again."""
        self._count.assign_add(1)
        features, labels, *_ = batch
        passed, before = [], None
        for step in self.steps[:-1]:
            with step.on_device(), _after(before):
                inputs = features
                features, drawn = step.first_pass(inputs)
            passed.append((inputs, drawn))
            before = features
        last = self.steps[-1]
        with last.on_device(), _after(before):
            back = last.train_back((features, *batch[1:]))
        ready = None
        for k, (inputs, drawn) in reversed(list(enumerate(passed))):
            ready = self._unspoilt(k, ready, back)
            back = self._down(k, inputs, FromAbove(back[0], labels), drawn, ready)

    def _down(
        self, k: int, inputs: Tensor, targets: FromAbove, drawn: list[Any], ready: Any
    ) -> list[Any]:
        """Let stage k, counted from 0, step; not on gradients that a loss scale has overflown."""
        step = self.steps[k]

        def train() -> list[Any]:
            return list(step.train_back((inputs, targets, None, None), drawn)) or [tf.constant(0)]

        def wait() -> list[Any]:
            if not step.sends_back:
                return [tf.constant(0)]
            leaves = [one for one in keras.tree.flatten(inputs) if carries(one)]
            return [tf.zeros_like(one, carried_type(one.dtype)) for one in leaves]

        with step.on_device(), _after(targets.gradients):
            return train() if ready is None else list(tf.cond(ready, train, wait))


def _after(made: Any) -> Any:
    """Give the context of what waits for these tensors: a device takes one stage at a time."""
    if made is None or tf.executing_eagerly():
        return contextlib.nullcontext()
    return tf.control_dependencies(keras.tree.flatten(made)[:1])


def delayed_step(steps: Sequence[StageStep], regime: Any) -> DelayedStep:
    """Make the step that the stages' method asks for.

    Args:
        steps: list of K `StageStep`, K > 1, of a `DelayedMethod`.
        regime: the regime it is made for.
    """
    method: Any = steps[0].method
    kind: Callable[..., DelayedStep] = LateGradientStep
    if method.replays:
        is_late = any(method.staleness(step.part.place) for step in steps)
        kind = ReplayStep if is_late else DownwardStep
    return kind(steps, regime)


def rate_factors(method: Method, num_stages: int) -> list[float]:
    """Give what the stages' learning rates are multiplied by."""
    if not isinstance(method, DelayedMethod):
        return [1.0] * num_stages
    return [
        method.rate_factor(StagePlace(k + 1, num_stages, (), (), (), None, ()))
        for k in range(num_stages)
    ]


def check_jit(method: Method, num_stages: int, jit_compile: Any) -> None:
    """Raise where XLA would have to keep what is in flight.

    Raises:
        ValueError: late gradients with XLA.
    """
    if isinstance(method, DelayedMethod) and num_stages > 1 and jit_compile is True:
        raise ValueError(
            "What is in flight has no rows until it comes, and XLA takes fixed shapes. Received: "
            f"jit_compile=True with method={method!r}. Leave `jit_compile` out."
        )


def check_regime(method: Method, regime: Regime) -> None:
    """Raise where the stages of a method cannot step as a regime says.

    Raises:
        ValueError: late gradients go through all stages, and the regime is another than parallel.
    """
    if isinstance(method, DelayedMethod) and not isinstance(regime, Parallel):
        raise ValueError(
            "Late gradients go down through all stages, so all must step on every batch. "
            f"Received: method={method!r} with regime={regime!r}. Use `Parallel()`, or a local "
            "method in this regime."
        )


def _scaled(gradients: Sequence[Any], variables: Sequence[Any], optimizer: Any) -> list[Any]:
    """Give gradients that waited as an optimizer takes them."""
    scale = scale_of(optimizer)

    def one(gradient: Tensor, variable: Any) -> Tensor:
        gradient = tf.ensure_shape(gradient, variable.shape)
        if scale is not None:
            gradient = gradient * tf.cast(scale, gradient.dtype)
        return tf.cast(gradient, tf.as_dtype(variable.dtype))

    pairs = zip(gradients, variables, strict=True)
    return [None if gradient is None else one(gradient, v) for gradient, v in pairs]


def _scaled_like(
    gradients: Sequence[Any], variables: Sequence[Any], optimizer: Any, scale: Tensor
) -> list[Any]:
    """Give gradients of a loss with one scale to an optimizer that has another."""
    plain = [
        None if one is None else unscaled(tf.convert_to_tensor(one), scale) for one in gradients
    ]
    return _scaled(plain, variables, optimizer)
