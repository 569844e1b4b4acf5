"""What waits for so many steps, and comes out in order.

`FeatureBuffer` gives the newest batch, and its slots hold batches of one size. Here the oldest
comes out at every step, and a short batch is as good as another: each place is a variable of its
own, and what stands in one is handed to the next without a copy.
"""

import itertools
from typing import Any

import tensorflow as tf

from keras_trgl.feeding.batch_forms import filled, leaves_of
from keras_trgl.training.feature_buffer import opened

NOTHING = 0
"""The number of what was not put in; those of steps count from 1."""


class DelayLine:
    """A row of places, of which one is put in and the oldest comes out.

    Args:
        length: int ≥ 1. Places.
        spec: nested structure of `tf.TensorSpec`, of which the first axis may be open; `None`
            entries stay `None`.
    """

    def __init__(self, length: int, spec: Any) -> None:
        self.length = length
        self.spec = spec
        self._places = [[_empty(one) for one in leaves_of(spec)] for _ in range(length)]
        self._numbers = tf.Variable(tf.zeros([length], tf.int64), trainable=False, name="numbers")

    @property
    def variables(self) -> list[tf.Variable]:
        """All that the line holds."""
        return [*(slot for place in self._places for slot in place), self._numbers]

    def fits(self, length: int, spec: Any) -> bool:
        """Tell whether so many things of this structure, shapes and types can wait here."""
        return length == self.length and repr(spec) == repr(self.spec)

    def clear(self) -> None:
        """Forget everything, and free its memory."""
        for slot in itertools.chain(*self._places):
            slot.assign(tf.zeros([0 if side is None else side for side in slot.shape], slot.dtype))
        self._numbers.assign(tf.zeros_like(self._numbers))

    def shift(self, new: Any, number: Any) -> tuple[Any, Any]:
        """Put one in, and take the oldest out.

        Args:
            new: structure as `spec`.
            number: int64 scalar ≥ 1, the step's, or `NOTHING` for what shall not be used.

        Returns:
            The oldest, and its number: `NOTHING` where there is none to be used.
        """
        # An empty place has no rows: whoever knows how many there are says so where it is used.
        oldest = [tf.convert_to_tensor(slot) for slot in self._places[0]]
        numbers = tf.convert_to_tensor(self._numbers)
        for place, following in itertools.pairwise(self._places):
            for slot, other in zip(place, following, strict=True):
                # The very memory: an assignment puts a tensor there, and changes none.
                slot.assign(tf.convert_to_tensor(other))
        for slot, leaf in zip(self._places[-1], leaves_of(new), strict=True):
            leaf = tf.convert_to_tensor(leaf)
            slot.assign(opened(leaf) if leaf.shape.rank else leaf)
        number = tf.reshape(tf.cast(number, tf.int64), [1])
        self._numbers.assign(tf.concat([numbers[1:], number], 0))
        return filled(self.spec, oldest), numbers[0]


def _empty(one: Any) -> tf.Variable:
    """Make a place without rows; one number takes its room from the start."""
    shape = [None, *one.shape[1:]] if one.shape.rank else []
    start = tf.zeros([0, *one.shape[1:]] if one.shape.rank else [], one.dtype)
    return tf.Variable(start, shape=shape, trainable=False, name="place")
