"""One step of the buffered regime: stages that take batches from stores and fill the next ones.

Calls of one step, three stages, stores of one; `k:b` is stage k on batch b:

    1:0 2:0 3:0  |  1:1 2:1 3:1  |  1:2 2:2 3:2
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.network.passing import apart
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.training.stage_objective import Batch
from keras_trgl.training.stage_step import StageStep
from keras_trgl.training.stored_step import StoredStep


class BufferedStep(StoredStep):
    """The stages' steps, in turn or by random picks, on batches of any age.

    Args:
        steps: list of K `StageStep`.
        regime: `Buffered`.
        seed: int ≥ 0. Seed of the picks.

    Raises:
        ValueError: the regime's slow stage is not among the stages.
    """

    def __init__(self, steps: Sequence[StageStep], regime: Buffered, seed: int) -> None:
        super().__init__(steps, regime)
        self.capacity = regime.capacity
        self.reuse_limit = regime.reuse_limit
        self._seed = seed
        self._weights = regime.pick_weights(len(self.steps))
        self._rounds = tf.Variable(tf.zeros([], tf.int64), trainable=False)
        self._picks = tf.Variable(tf.zeros([], tf.int64), trainable=False)

    @property
    def variables(self) -> list[Any]:
        """All that is kept between steps."""
        held = [variable for buffer in self.buffers for variable in buffer.variables]
        return [self._rounds, self._picks, *held]

    def clear(self) -> None:
        """Forget what is stored, and begin with a warm-up again."""
        super().clear()
        self._rounds.assign(0)
        self._picks.assign(0)

    def warm_up(self) -> None:
        """Begin with a warm-up again, as after a change of the learning rate."""
        self._rounds.assign(0)

    def __call__(self, batch: Batch) -> None:
        """Take a batch of data, and let stages step as the regime says."""
        later = range(1, len(self.steps))
        self._train(0, batch)
        rounds = self._rounds.assign_add(1)
        warm_up = self.regime.warm_up_steps
        if not warm_up:
            self._round(later)
            return
        # 0: stage 1 fills its store; 1: the later stages catch up, each as often; 2: as usual.
        branch = tf.cast(tf.clip_by_value(rounds - warm_up, -1, 1) + 1, tf.int32)
        tf.switch_case(
            branch,
            [
                lambda: tf.constant(0),
                lambda: self._in_turn(k for k in later for _ in range(warm_up)),
                lambda: self._round(later),
            ],
        )

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

    def _step(self, k: int) -> None:
        """Let stage k, counted from 0, take a batch from its store, if there is one."""
        buffer, step = self.buffers[k - 1], self.steps[k]

        def take() -> Any:
            batch, staleness = self.read(k)
            self.note_staleness(k, staleness)
            self._train(k, batch)
            return tf.constant(0)

        with step.on_device():
            tf.cond(buffer.readable(), take, lambda: tf.constant(0))

    def _train(self, k: int, batch: Batch) -> None:
        """Let stage k train on a batch, and put its features into the next store."""
        if k + 1 == len(self.steps):
            self.steps[k].train(batch, hands_on=False)
            return
        buffer, left = self.buffers[k], (apart(self.steps[k].train(batch)), *batch[1:])
        with self.steps[k + 1].on_device():
            buffer.write(left, True if self.capacity == 1 else buffer.is_complete(left))


def _after(done: Any, draw: Any) -> Any:
    """Draw the next pick once the one before is done."""
    with tf.control_dependencies([done]):
        return draw()
