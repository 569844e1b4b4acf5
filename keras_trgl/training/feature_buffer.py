"""The store of batches between two stages.

A circle of `capacity` slots. A write goes to the slot under the pointer and sets its use count
to 0; a read takes, of the filled slots with the least use count, the one written last, counts the
use and leaves the batch where it is. Slots are told apart by a counter of writes: the slot under
the pointer of a full store is the oldest, not the newest.
"""

from typing import Any

import tensorflow as tf

from keras_trgl.feeding.batch_forms import filled, leaves_of

EMPTY = -1


class FeatureBuffer:
    """A circular store of batches, features and labels side by side.

    Args:
        capacity: int ≥ 1. Batches held.
        spec: nested structure of `tf.TensorSpec` of a batch, the first axis the batch's; `None`
            entries stay `None`.
        max_reuse: int ≥ 1 or `None`. How often a batch may be read. Defaults to `None`.

    Attributes:
        spec: as given.
        steps: int64 variable. Steps that the writing stage has made.
    """

    def __init__(self, capacity: int, spec: Any, max_reuse: int | None = None) -> None:
        self.capacity = capacity
        self.max_reuse = max_reuse
        self.spec = spec
        self._leaves = leaves_of(spec)
        self._slots = [
            tf.Variable(
                tf.zeros([capacity, 0, *one.shape[1:]], one.dtype),
                shape=[capacity, None, *one.shape[1:]],
                trainable=False,
                name="slots",
            )
            for one in self._leaves
        ]

        def counter(shape: list[int], value: int = 0) -> tf.Variable:
            return tf.Variable(tf.fill(shape, tf.constant(value, tf.int64)), trainable=False)

        self.steps = counter([])
        self._size = counter([])
        self._writes = counter([])
        self._written = counter([capacity], EMPTY)
        self._uses = counter([capacity])
        self._made_at = counter([capacity])

    @property
    def variables(self) -> list[tf.Variable]:
        """All that the store holds."""
        counters = [self.steps, self._size, self._writes]
        return [*self._slots, *counters, self._written, self._uses, self._made_at]

    def fits(self, spec: Any) -> bool:
        """Tell whether batches of this structure, shapes and types can be kept here."""
        return repr(spec) == repr(self.spec)

    def clear(self) -> None:
        """Forget every batch, and how many examples one has."""
        self._resize(tf.constant(0, tf.int64))
        for variable in self.variables[len(self._slots) :]:
            variable.assign(tf.zeros_like(variable))
        self._written.assign(tf.fill([self.capacity], tf.constant(EMPTY, tf.int64)))

    def readable(self) -> Any:
        """Give a bool tensor: whether a batch is there that may still be used."""
        filled = self._written > EMPTY
        if self.max_reuse is not None:
            filled &= self._uses < self.max_reuse
        return tf.reduce_any(filled)

    def read(self) -> tuple[Any, Any]:
        """Take a batch.

        Returns:
            The batch, and its staleness: an int64 scalar, steps of the writing stage since it
            wrote the batch.
        """
        # Uses count before age: 2**40 writes are more than any run makes.
        newest_first = tf.where(
            self._written > EMPTY, self._uses * 2**40 - self._written, tf.int64.max
        )
        place = tf.argmin(newest_first)
        staleness = self.steps - tf.gather(self._made_at, place)
        if self.capacity == 1:
            # The slot's own memory: a write puts another tensor there, and changes none.
            leaves = [tf.squeeze(tf.convert_to_tensor(slot), [0]) for slot in self._slots]
        else:
            leaves = [tf.gather(slot, place) for slot in self._slots]
        one = tf.ones([1], tf.int64)
        self._uses.scatter_add(tf.IndexedSlices(one, place[None]))
        return filled(self.spec, leaves), staleness

    def write(self, batch: Any, keep: Any = True) -> Any:
        """Put a batch into the next slot, and count the writing stage's step.

        Args:
            batch: structure as `spec`.
            keep: bool or bool tensor. Whether to write; the step counts anyway. Defaults to
                `True`.

        Returns:
            A tensor, so that a branch of `tf.cond` can give one.
        """
        self.steps.assign_add(1)
        if keep is True:
            return self._put(batch)
        return tf.cond(keep, lambda: self._put(batch), lambda: tf.constant(0))

    def _put(self, batch: Any) -> Any:
        leaves = [opened(leaf) for leaf in leaves_of(batch)]
        place = tf.math.floormod(self._writes, self.capacity)
        if self.capacity > 1:
            # The first batch gives the slots their size, kept beside them: see `opened`.
            size = tf.shape(leaves[0], tf.int64)[0]
            tf.cond(tf.equal(self._size, size), lambda: tf.constant(0), lambda: self._resize(size))
        for slot, leaf in zip(self._slots, leaves, strict=True):
            if self.capacity == 1:
                slot.assign(leaf[None])
            else:
                slot.scatter_update(tf.IndexedSlices(leaf[None], place[None]))
        for variable, value in (
            (self._written, self._writes),
            (self._uses, tf.constant(0, tf.int64)),
            (self._made_at, self.steps),
        ):
            value = tf.reshape(tf.convert_to_tensor(value), [1])
            variable.scatter_update(tf.IndexedSlices(value, place[None]))
        self._writes.assign_add(1)
        return tf.constant(0)

    def is_complete(self, batch: Any) -> Any:
        """Give a bool tensor: whether a batch has as many examples as the slots hold."""
        size = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
        return (self._size == 0) | (size == self._size)

    def _resize(self, size: Any) -> Any:
        """Give the slots room for batches of `size` examples."""
        self._size.assign(size)
        for slot, one in zip(self._slots, self._leaves, strict=True):
            slot.assign(tf.zeros([self.capacity, size, *one.shape[1:]], one.dtype))
        return tf.constant(0)


def opened(leaf: Any) -> Any:
    """Give a tensor whose number of examples is not known while the graph is made.

    TensorFlow's optimizer takes the shape of a slot for that of whatever the graph writes into
    it, also before that or where nothing is written: with a number it read and wrote astray.
    """
    return tf.raw_ops.PlaceholderWithDefault(input=leaf, shape=[None, *leaf.shape[1:]])
