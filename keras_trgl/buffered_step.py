"""One step of the buffered regime: stages that take batches from stores and fill the next ones.

Calls of one step, three stages; `k:b` is stage k on batch b:

    round robin, stores of one    1:0 2:0 3:0 | 1:1 2:1 3:1 | 1:2 2:2 3:2
    skewed                        1:0         | 2:0 1:1     | 3:0 2:1 1:2   | 3:1 2:2 | 3:2

Skewed, every stage reads what the stage before wrote in the last call, so the stages of a call
depend on nothing of each other; the calls without stage 1, at the end, drain what is in flight.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.feature_buffer import FeatureBuffer
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.stage_step import StageStep

Batch = tuple[Any, Any, Any]


class BufferedStep:
    """The stages' steps with a store between each two.

    Args:
        steps: list of K `StageStep`.
        regime: `Buffered`.
        seed: int ≥ 0. Seed of the picks.

    Attributes:
        batch_size: int, of the batches that are stored, or `None` if it is not known.
        rates: list of learning rates, one per stage, that the stages stepped with last.

    Raises:
        ValueError: the regime's slow stage is not among the stages.
    """

    def __init__(self, steps: Sequence[StageStep], regime: Buffered, seed: int) -> None:
        self.steps = list(steps)
        self.regime = regime
        self.buffers: list[FeatureBuffer] = []
        self.rates: list[float | None] = []
        self.batch_size: int | None = None
        self._seed = seed
        self._weights = regime.pick_weights(len(self.steps))
        self._rounds = tf.Variable(tf.zeros([], tf.int64), trainable=False)
        self._picks = tf.Variable(tf.zeros([], tf.int64), trainable=False)
        self._drain: Any = None
        for step in self.steps[1:]:
            step.staleness_tracker = keras.metrics.Mean(name="staleness")

    @property
    def variables(self) -> list[Any]:
        """All that is kept between steps."""
        held = [variable for buffer in self.buffers for variable in buffer.variables]
        return [self._rounds, self._picks, *held]

    def prepare(self, spec: Any) -> bool:
        """Make the stores for batches of this structure; keep those that fit.

        Args:
            spec: `(x, y, sample_weight)` of `tf.TensorSpec` or `None`.

        Returns:
            bool: whether they are new.
        """
        x, y, sample_weight = spec
        shape, specs = (None, *tf.nest.flatten(x)[0].shape[1:]), []
        for step in self.steps[:-1]:
            shape = tuple(step.stage.compute_output_shape(shape))
            features = tf.TensorSpec([None, *shape[1:]], step.stage.blocks[-1].compute_dtype)
            specs.append((features, y, sample_weight))
        if len(self.buffers) == len(specs) and all(
            buffer.fits(one) for buffer, one in zip(self.buffers, specs, strict=True)
        ):
            return False
        limit = self.regime.reuse_limit
        self.buffers = [FeatureBuffer(self.regime.capacity, one, limit) for one in specs]
        return True

    def clear(self) -> None:
        """Forget what is stored, and begin with a warm-up again."""
        self.rates = []
        self._rounds.assign(0)
        self._picks.assign(0)
        for buffer in self.buffers:
            buffer.clear()

    def warm_up(self) -> None:
        """Begin with a warm-up again, as after a change of the learning rate."""
        self._rounds.assign(0)

    def __call__(self, batch: Batch) -> None:
        """Take a batch of data, and let stages step as the regime says."""
        later = range(1, len(self.steps))
        if self.regime.order == "skewed":
            self.drain()
            self._step_on_data(batch)
            return
        self._step_on_data(batch)
        rounds = self._rounds.assign_add(1)
        warm_up = self.regime.warm_up_steps
        if not warm_up:
            self._round(later)
            return
        branch = tf.cast(tf.clip_by_value(rounds - warm_up, -1, 1) + 1, tf.int32)
        tf.switch_case(
            branch,
            [
                lambda: tf.constant(0),
                lambda: self._in_turn(k for k in later for _ in range(warm_up)),
                lambda: self._round(later),
            ],
        )

    def drain(self) -> None:
        """Let every stage but the first step on what the one before wrote last."""
        self._in_turn(reversed(range(1, len(self.steps))))

    def drain_all(self, eagerly: bool = False) -> None:
        """Call `drain` until no batch is in flight, where batches are used once.

        Args:
            eagerly: bool. Whether steps run without a graph. Defaults to `False`.
        """
        if self.regime.order != "skewed":
            return
        if self._drain is None:
            self._drain = tf.function(self.drain, autograph=False)
        while self.in_flight():
            if eagerly:
                self.drain()
            else:
                self._drain()

    def retrace(self) -> None:
        """Forget the traced function, as after a change of what the steps hold."""
        self._drain = None

    def in_flight(self) -> Any:
        """Give a bool tensor: whether a store holds a batch that may still be used."""
        return tf.reduce_any([buffer.readable() for buffer in self.buffers] or [False])

    def _round(self, later: Any) -> Any:
        if self.regime.order == "round_robin" or not later:
            return self._in_turn(later)
        # Each batch of data is a pick of stage 1; the picks until its next one belong to it.
        branches = [lambda k=k: self._in_turn([k]) for k in later]
        tf.while_loop(
            lambda pick: pick > 0,
            lambda pick: [_after(tf.switch_case(pick - 1, branches), self._draw)],
            [self._draw()],
        )
        return tf.constant(0)

    def _draw(self) -> Any:
        """Give the next pick, a position from 0: a function of the seed and of how many came."""
        count = tf.cast(self._picks.assign_add(1), tf.int32)
        logits = tf.math.log(tf.constant([self._weights], tf.float32))
        pick = tf.random.stateless_categorical(logits, 1, [self._seed, count], dtype=tf.int32)
        return tf.reshape(pick, [])

    def _in_turn(self, positions: Any) -> Any:
        for k in positions:
            self._step(k)
        return tf.constant(0)

    def _step_on_data(self, batch: Batch) -> None:
        self._train(0, batch)

    def _step(self, k: int) -> None:
        """Let stage k, counted from 0, take a batch from its store, if there is one."""
        buffer, step = self.buffers[k - 1], self.steps[k]

        def take() -> Any:
            batch, staleness = buffer.read()
            step.staleness_tracker.update_state(tf.cast(staleness, keras.config.floatx()))
            self._train(k, batch)
            return tf.constant(0)

        tf.cond(buffer.readable(), take, lambda: tf.constant(0))

    def _train(self, k: int, batch: Batch) -> None:
        """Let stage k train on a batch, and put its features into the next store."""
        x, y, sample_weight = batch
        if k + 1 == len(self.steps):
            self.steps[k].train(x, y, sample_weight, hands_on=False)
            return
        buffer, batch = (
            self.buffers[k],
            (self.steps[k].train(x, y, sample_weight), y, sample_weight),
        )
        buffer.write(batch, True if self.regime.capacity == 1 else buffer.is_complete(batch))


def _after(done: Any, draw: Any) -> Any:
    """Draw the next pick once the one before is done."""
    with tf.control_dependencies([done]):
        return draw()
