"""The store of batches, against a model of it in plain Python."""

import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.training.feature_buffer import FeatureBuffer

SPEC = (
    tf.TensorSpec([None, 3], "float32"),
    tf.TensorSpec([None], "int64"),
    None,
)


def batch(tag, size=2):
    """Give a batch that says `tag` in its features and its labels."""
    return tf.fill([size, 3], float(tag)), tf.fill([size], tf.constant(tag, tf.int64)), None


def tags(read):
    """Give the tag of a batch's features and that of its labels."""
    (x, y, sample_weight), _ = read
    assert sample_weight is None
    assert x.shape == (y.shape[0], 3)
    assert len(np.unique(x)) == len(np.unique(y)) == 1
    return int(x[0, 0]), int(y[0])


class Reference:
    """A list of [tag, uses, step of the writer], oldest first."""

    def __init__(self, capacity, max_reuse):
        self.capacity, self.max_reuse = capacity, max_reuse
        self.slots, self.steps = [], 0

    def write(self, tag, keep=True):
        self.steps += 1
        if keep:
            self.slots = [*self.slots, [tag, 0, self.steps]][-self.capacity :]

    @property
    def readable(self):
        return any(self.max_reuse is None or uses < self.max_reuse for _, uses, _ in self.slots)

    def read(self):
        slot = min(reversed(self.slots), key=lambda slot: slot[1])
        slot[1] += 1
        return slot[0], self.steps - slot[2]

    def clear(self):
        self.slots, self.steps = [], 0


@pytest.mark.parametrize("max_reuse", [None, 1, 2])
@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 5])
def test_any_sequence_of_writes_and_reads_is_that_of_the_reference(capacity, max_reuse):
    rng = np.random.default_rng([capacity, max_reuse or 0])
    buffer, reference = FeatureBuffer(capacity, SPEC, max_reuse), Reference(capacity, max_reuse)
    # Traced once: the same graphs as in training.
    write = tf.function(lambda x, y, keep: buffer.write((x, y, None), keep), autograph=False)
    readable, read = tf.function(buffer.readable), tf.function(buffer.read)
    reads = 0
    for tag in range(120):
        move = rng.choice(["write", "drop", "read", "clear"], p=[0.38, 0.05, 0.55, 0.02])
        if move in ("write", "drop"):
            write(*batch(tag)[:2], tf.constant(move == "write"))
            reference.write(tag, move == "write")
        elif move == "clear":
            buffer.clear()
            reference.clear()
        elif reference.readable:
            wanted, staleness = reference.read()
            got = read()
            assert tags(got) == (wanted, wanted)
            assert int(got[1]) == staleness
            reads += 1
        assert bool(readable()) == reference.readable
        assert int(buffer.steps) == reference.steps
    assert reads > 10


def test_an_empty_store_is_not_readable():
    assert not FeatureBuffer(2, SPEC).readable()


def test_the_newest_of_the_least_used_comes_first():
    buffer = FeatureBuffer(3, SPEC)
    for tag in range(3):
        buffer.write(batch(tag))
    assert [tags(buffer.read())[0] for _ in range(4)] == [2, 1, 0, 2]
    buffer.write(batch(3))
    # Uses now: 3 never, 1 once, 2 twice; 0 was the oldest.
    assert [tags(buffer.read())[0] for _ in range(3)] == [3, 3, 1]


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("capacity", [2, 3])
def test_the_slot_under_the_pointer_of_a_full_store_is_the_oldest(capacity, count):
    buffer = FeatureBuffer(capacity, SPEC)
    for tag in range(count):
        buffer.write(batch(tag))
    held = list(range(max(0, count - capacity), count))
    assert [tags(buffer.read())[0] for _ in held] == held[::-1]


@pytest.mark.parametrize("keep", [True, None], ids=["always", "where_complete"])
def test_batches_of_a_fixed_size_may_be_traced(keep):
    # TensorFlow once took the shape of an empty slot for that of the batch, and wrote beside it.
    buffer = FeatureBuffer(2, SPEC)

    @tf.function(autograph=False)
    def write(x, y):
        one = (x, y, None)
        buffer.write(one, buffer.is_complete(one) if keep is None else keep)

    for tag in range(3):
        write(*batch(tag, 64)[:2])
        assert tags(buffer.read()) == (tag, tag)


def test_staleness_is_the_steps_of_the_writer_since():
    buffer = FeatureBuffer(2, SPEC)
    buffer.write(batch(0))
    assert int(buffer.read()[1]) == 0
    buffer.write(batch(1), keep=False)
    buffer.write(batch(2), keep=tf.constant(False))
    assert int(buffer.read()[1]) == 2
    buffer.write(batch(3))
    assert int(buffer.read()[1]) == 0


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("limit", [1, 2])
def test_a_batch_is_used_at_most_as_often_as_allowed(capacity, limit):
    buffer, read = FeatureBuffer(capacity, SPEC, limit), []
    for tag in range(7):
        buffer.write(batch(tag))
        if tag % 3 == 2:
            while buffer.readable():
                read.append(tags(buffer.read())[0])
    counts = [read.count(tag) for tag in range(7)]
    assert max(counts) == limit
    assert len(read) == 2 * limit * capacity


def test_incomplete_batches_are_told_by_the_first():
    buffer = FeatureBuffer(2, SPEC)
    assert buffer.is_complete(batch(0, 4))
    assert buffer.is_complete(batch(0, 1))
    buffer.write(batch(0, 4))
    assert buffer.is_complete(batch(1, 4))
    assert not buffer.is_complete(batch(1, 3))
    buffer.clear()
    assert buffer.is_complete(batch(1, 3))


def test_a_store_of_one_takes_batches_of_any_size():
    buffer = FeatureBuffer(1, SPEC)
    for tag, size in enumerate([4, 1, 3, 5]):
        buffer.write(batch(tag, size))
        assert tags(buffer.read()) == (tag, tag)
        assert buffer.read()[0][0].shape == (size, 3)


def test_a_cleared_store_is_a_new_one():
    buffer, new = FeatureBuffer(3, SPEC, 2), FeatureBuffer(3, SPEC, 2)
    for tag in range(5):
        buffer.write(batch(tag))
    buffer.read()
    buffer.clear()
    for one, other in zip(buffer.variables, new.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    buffer.write(batch(7, 5))
    assert tags(buffer.read()) == (7, 7)


def test_reading_leaves_the_batch_where_it_is():
    buffer = FeatureBuffer(1, SPEC)
    buffer.write(batch(5))
    assert [tags(buffer.read())[0] for _ in range(3)] == [5, 5, 5]


def test_weights_and_types_come_back_as_they_were():
    spec = (
        tf.TensorSpec([None, 2], "float16"),
        {"a": tf.TensorSpec([None, 1], "int32")},
        tf.TensorSpec([None], "float32"),
    )
    buffer = FeatureBuffer(2, spec)
    wanted = (
        np.array([[1, 2], [3, 4]], "float16"),
        {"a": np.array([[5], [6]], "int32")},
        np.array([0.5, 2.0], "float32"),
    )
    buffer.write(tf.nest.map_structure(tf.constant, wanted))
    got, _ = buffer.read()
    tf.nest.map_structure(np.testing.assert_array_equal, got, wanted)
    assert [leaf.dtype for leaf in tf.nest.flatten(got)] == ["float16", "int32", "float32"]


def test_it_fits_batches_of_its_own_structure():
    buffer = FeatureBuffer(1, SPEC)
    assert buffer.fits(SPEC)
    assert not buffer.fits((*SPEC[:2], tf.TensorSpec([None], "float32")))
    assert not buffer.fits((tf.TensorSpec([None, 4], "float32"), *SPEC[1:]))
    assert not buffer.fits((SPEC[0], tf.TensorSpec([None], "int32"), None))
