"""One step in which stages work on different batches, so that none waits for another.

Calls of one step, three stages; `k:b` is stage k on batch b:

    1:0  |  2:0 1:1  |  3:0 2:1 1:2  |  3:1 2:2  |  3:2

Stage k takes what stage k − 1 left in the call before. The stages of a call depend on nothing of
each other, so on different devices they run at once; stage k still trains on every batch in order,
on features of just the weights that the parallel regime would use: the numbers are the same. Calls
without a batch of data, at the end of an epoch, drain what is in flight.

All batches are taken before any stage trains, and all features put down after: TensorFlow orders
what touches the same variable, and would let one stage wait for another.
"""

from typing import Any

import tensorflow as tf

from keras_trgl.network.passing import apart
from keras_trgl.training.stage_objective import Batch
from keras_trgl.training.stored_step import StoredStep


class SkewedStep(StoredStep):
    """The stages' steps, each on the batch that the stage before trained on in the last call."""

    reuse_limit = 1

    def __init__(self, *args: Any, **names: Any) -> None:
        super().__init__(*args, **names)
        self._drain: Any = None

    @property
    def variables(self) -> list[Any]:
        """Nothing: what is in flight is drained before a run is saved."""
        return []

    def __call__(self, batch: Batch) -> None:
        """Let stage 1 step on a batch of data, and every other on what it finds."""
        self._advance(batch)

    def drain(self) -> None:
        """Let every stage but the first step on what it finds."""
        self._advance(None)

    def drain_all(self, eagerly: bool = False) -> None:
        """Call `drain` until no batch is in flight.

        Args:
            eagerly: bool. Whether steps run without a graph. Defaults to `False`.
        """
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
        """Give a bool tensor: whether a store holds a batch that was not used yet."""
        return tf.reduce_any([buffer.readable() for buffer in self.buffers] or [False])

    def _advance(self, batch: Batch | None) -> None:
        taken: dict[int, tuple[Any, Batch, Any]] = {}
        for k, buffer in enumerate(self.buffers, start=1):
            with self.steps[k].on_device():
                ready = buffer.readable()
                taken[k] = (ready, *self.read(k))
        put: list[tuple[int, Any, Batch]] = []
        done: dict[str | None, Any] = {}
        for k in reversed(range(1, len(self.steps))):
            ready, (inputs, *rest), staleness = taken[k]
            sides = self._train_if(k, ready, (inputs, *rest), staleness, done)
            put.append((k, ready, (sides, *rest)))
        if batch is not None:
            with tf.control_dependencies(self._before(0, done)):
                features = self.steps[0].train(batch, hands_on=len(self.steps) > 1)
            put.append((0, None, (apart(features), *batch[1:])))
        for k, ready, left in put:
            self._put_down(k, ready, left)

    def _before(self, k: int, done: dict[str | None, Any]) -> list[Any]:
        """Give what stage k must wait for: a device takes one stage at a time, to save memory."""
        before = done.get(self.steps[k].device)
        return [] if before is None or tf.executing_eagerly() else [before]

    def _train_if(
        self, k: int, ready: Any, batch: Batch, staleness: Any, done: dict[str | None, Any]
    ) -> Any:
        """Let stage k train on a batch if there is one, and give its features, or none of them.

        Returns:
            What `apart` gives of the features; of the last stage a number that says nothing.
        """
        step, is_last = self.steps[k], k + 1 == len(self.steps)

        def train() -> Any:
            self.note_staleness(k, staleness)
            features = step.train(batch, hands_on=not is_last)
            return tf.constant(0) if is_last else apart(features)

        def sit_out() -> Any:
            if is_last:
                return tf.constant(0)
            return tf.nest.map_structure(
                lambda one: tf.zeros([0, *one.shape[1:]], one.dtype), self.buffers[k].spec[0]
            )

        with step.on_device(), tf.control_dependencies(self._before(k, done)):
            left = tf.cond(ready, train, sit_out)
        done[step.device] = tf.nest.flatten(left)[0]
        return left

    def _put_down(self, k: int, ready: Any, left: Batch) -> None:
        """Leave features and labels to the stage after stage k, if stage k trained."""
        if k + 1 == len(self.steps):
            return
        buffer = self.buffers[k]
        with self.steps[k + 1].on_device():
            if ready is None:
                buffer.write(left)
            else:
                tf.cond(ready, lambda: buffer.write(left), lambda: tf.constant(0))
