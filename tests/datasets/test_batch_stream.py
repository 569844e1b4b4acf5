"""The order of the data is a function of (seed, epoch, step)."""

import gc
import itertools

import keras
import numpy as np
import pandas
import pytest
import tensorflow as tf

from keras_trgl.datasets import BatchStream, Chain, Normalize, PadCropFlip
from keras_trgl.datasets.batch_stream import ordered_py_dataset

X = np.arange(10)


def unchanged(images, seeds):
    return images


def batches(stream, first, count):
    return [batch.tolist() for batch in stream.from_step(first).take(count).as_numpy_iterator()]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("first", [0, 1, 2, 3, 5, 8])
def test_a_stream_can_be_entered_at_any_step(first, shuffle):
    stream = BatchStream(X, batch_size=4, shuffle=shuffle, seed=3)
    assert batches(stream, first, 4) == batches(stream, 0, first + 4)[first:]


def test_every_epoch_is_a_permutation_of_its_own():
    stream = BatchStream(X, batch_size=4, seed=3)
    assert stream.steps_per_epoch == 3
    rows = batches(stream, 0, 12)
    epochs = [list(itertools.chain(*rows[3 * e : 3 * e + 3])) for e in range(4)]
    assert all(sorted(epoch) == X.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [len(row) for row in rows[:3]] == [4, 4, 2]


def test_the_order_is_that_of_the_stateless_shuffle():
    order = tf.random.experimental.stateless_shuffle(tf.range(10), [3, 2]).numpy()
    got = itertools.chain(*batches(BatchStream(X, batch_size=4, seed=3), 6, 3))
    assert list(got) == order.tolist()


def test_the_order_does_not_depend_on_the_state_of_any_generator():
    keras.utils.set_random_seed(1)
    first = batches(BatchStream(X, batch_size=4), 0, 6)
    keras.utils.set_random_seed(2)
    assert batches(BatchStream(X, batch_size=4), 0, 6) == first
    assert batches(BatchStream(X, batch_size=4, seed=1), 0, 6) != first


def test_without_shuffle_the_order_is_as_given():
    assert batches(BatchStream(X, batch_size=5, shuffle=False), 1, 2) == [
        [5, 6, 7, 8, 9],
        [0, 1, 2, 3, 4],
    ]


def test_targets_and_weights_stay_with_their_examples():
    stream = BatchStream(X.astype("float64"), 10 * X, X / 2, batch_size=4)
    for x, y, weight in stream.from_step().take(5).as_numpy_iterator():
        assert x.dtype == weight.dtype == np.float32
        assert y.dtype == X.dtype
        np.testing.assert_array_equal(y, 10 * x)
        np.testing.assert_array_equal(weight, x / 2)


def test_nothing_is_tuned_where_rows_are_only_copied():
    # A tuner's thread may hold up the end of an iterator for many seconds.
    plain, transformed = BatchStream(X), BatchStream(X, transform=lambda x, seeds: x)
    assert plain.from_step().options().autotune.enabled is False
    assert transformed.from_step().options().autotune.enabled is None


def test_a_table_is_served_as_its_array():
    x = np.arange(12.0).reshape(6, 2)
    served, wanted = (BatchStream(one, batch_size=4) for one in (pandas.DataFrame(x), x))
    for one, other in zip(served.from_step().take(4), wanted.from_step().take(4), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nested_arrays_are_served_nested():
    stream = BatchStream({"a": X, "b": -X}, X, batch_size=5)
    x, y = next(iter(stream.from_step().as_numpy_iterator()))
    np.testing.assert_array_equal(x["a"], y)
    np.testing.assert_array_equal(x["b"], -y)


def test_augmented_images_are_the_same_when_replayed():
    images = np.random.default_rng(0).integers(0, 255, (10, 6, 6, 1)).astype("uint8")
    stream = BatchStream(images, X, batch_size=4, transform=PadCropFlip(2))

    def take(first, count):
        return list(stream.from_step(first).take(count).as_numpy_iterator())

    whole = take(0, 7)
    for one, other in zip(whole[4:], take(4, 3), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    crops = {tuple(b[0][list(b[1]).index(0)].ravel()) for b in whole[:6] if 0 in b[1]}
    assert len(crops) == 2


@pytest.fixture
def on_disk(tmp_path):
    """Give a function that puts an array into a file and maps it."""

    def put(array):
        rows = np.memmap(tmp_path / "rows", array.dtype, mode="w+", shape=array.shape)
        rows[:] = array
        return rows

    return put


@pytest.mark.parametrize("dtype", ["float64", ">f4", "uint8"])
def test_batches_of_a_file_equal_those_of_an_array(on_disk, dtype):
    rows = np.random.default_rng(0).uniform(0, 99, (10, 3)).astype(dtype)
    got = BatchStream(on_disk(rows), X, batch_size=4, seed=3).from_step(1)
    wanted = BatchStream(rows, X, batch_size=4, seed=3).from_step(1)
    assert got.element_spec == wanted.element_spec
    pairs = zip(got.take(7).as_numpy_iterator(), wanted.take(7).as_numpy_iterator(), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_a_file_larger_than_memory_is_read_batch_by_batch(tmp_path):
    # A file with a hole: 1 TiB long, a page large.
    rows = np.memmap(tmp_path / "rows", "float32", mode="w+", shape=(2**20, 2**18))
    rows[-1] = 1
    stream = BatchStream(rows, batch_size=2, shuffle=False)
    (batch,) = stream.from_step(2**19 - 1).take(1).as_numpy_iterator()
    assert batch.shape == (2, 2**18)
    assert batch.mean(1).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_take_the_place_of_x_in_the_same_batches(dtype):
    features = tf.cast(np.arange(60).reshape(20, 3), dtype).numpy()
    stream = BatchStream(X, 10 * X, X / 2, batch_size=4, seed=3, transform=lambda x, seeds: -x)
    over = stream.over(features, copies=2)
    assert not over.is_random
    assert stream.is_random
    dataset = over.from_step(2)
    assert dataset.element_spec[0] == tf.TensorSpec([None, 3], dtype)
    pairs = zip(dataset.take(9), stream.from_step(2).take(9), strict=True)
    for step, (one, other) in enumerate(pairs, start=2):
        rows = step // 3 % 2 * 10 - other[0].numpy()
        np.testing.assert_array_equal(one[0], features[rows])
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[2], other[2])
    copy = np.concatenate(list(over.examples(copy=1).as_numpy_iterator()))
    np.testing.assert_array_equal(copy, features[10:])


def test_features_without_a_row_for_every_example_are_refused():
    with pytest.raises(ValueError, match=r"a row per copy and example, 2 \* 10.*\(10, 3\)"):
        BatchStream(X).over(np.zeros((10, 3)), copies=2)
    with pytest.raises(ValueError, match="`copies` must be at least 1"):
        BatchStream(X).over(np.zeros((10, 3)), copies=0)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (5, 4, [5]), (1, 4, [1]), (3, 1, [1, 1, 1]), (4, 4, [4])],
)
def test_examples_come_in_order_and_never_alone_at_the_end(count, size, sizes):
    stream = BatchStream(X[:count], 2 * X[:count], batch_size=size, seed=3)
    got = [batch.tolist() for batch in stream.examples().as_numpy_iterator()]
    assert [len(batch) for batch in got] == sizes
    assert list(itertools.chain(*got)) == X[:count].tolist()
    large = stream.examples(batch_size=100).as_numpy_iterator()
    assert [batch.tolist() for batch in large] == [X[:count].tolist()]


def test_examples_are_augmented_by_the_seeds_of_their_copy():
    def transform(x, seeds):
        return tf.concat([tf.cast(x[:, None], tf.int32), seeds], 1)

    stream = BatchStream(X, batch_size=4, seed=3, shuffle=False, transform=transform)
    for copy in (0, 1):
        # Without shuffling an example's place in the arrays is its place in the epoch.
        got = np.concatenate(list(stream.examples(copy).as_numpy_iterator()))
        epoch = stream.from_step(3 * copy).take(3).as_numpy_iterator()
        np.testing.assert_array_equal(got, np.concatenate(list(epoch)))


def test_a_stream_tells_whether_its_examples_change():
    normalize = Normalize([0.5], [0.5])
    for transform, wanted in (
        (None, False),
        (normalize, False),
        (Chain(normalize, normalize), False),
        (PadCropFlip(0, flip=False), False),
        (PadCropFlip(0, flip=True), True),
        (Chain(PadCropFlip(1, flip=False), normalize), True),
        (Chain(normalize, lambda images, seeds: images), True),
        (lambda images, seeds: images, True),
    ):
        assert BatchStream(X, transform=transform).is_random is wanted


def test_replicas_share_each_global_batch():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    stream = BatchStream(X, batch_size=4, seed=3)
    shared = strategy.experimental_distribute_dataset(stream.from_step())
    plain = batches(stream, 0, 3)
    for batch, wanted in zip(shared, plain, strict=False):
        parts = [part.numpy().tolist() for part in strategy.experimental_local_results(batch)]
        assert list(itertools.chain(*parts)) == wanted


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"as many examples.*Received: lengths \[9, 10\]"):
        BatchStream(X, X[:9])
    with pytest.raises(ValueError, match="at least one"):
        BatchStream(X[:0])


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        BatchStream(X, batch_size=0)


def test_weights_without_targets_are_served():
    x, y, weight = next(iter(BatchStream(X, sample_weight=X / 2).from_step()))
    assert y is None
    np.testing.assert_array_equal(weight, x / 2)


def test_plain_lists_are_refused_by_type():
    with pytest.raises(TypeError, match=r"Pass `numpy.asarray"):
        BatchStream(X, [0] * 10)


class Numbers(keras.utils.PyDataset):
    """Three batches that are their own index."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return np.full((1, 1), index)


def test_a_py_dataset_is_read_in_the_order_of_its_epoch():
    data = ordered_py_dataset(Numbers(), seed=5, first_epoch=2)
    data.on_epoch_end()  # As Keras does before the first epoch.
    for epoch in (2, 3, 4):
        data.on_epoch_begin()
        order = [int(data[k][0, 0]) for k in range(3)]
        assert order == np.random.default_rng([5, epoch]).permutation(3).tolist()
        data.on_epoch_end()


@pytest.mark.parametrize("transform", [None, unchanged])
@pytest.mark.parametrize("read", [BatchStream.from_step, BatchStream.examples])
def test_the_arrays_go_with_their_datasets(read, transform):
    """Without the garbage collector; `fit` makes a stream of the arrays in every call."""

    def once():
        stream = BatchStream(np.zeros((6, 7, 11)), np.zeros(6), batch_size=2, transform=transform)
        next(iter(read(stream)))

    gc.collect()
    gc.disable()
    try:
        once()
        held = [one for one in gc.get_objects() if type(one) is type(tf.constant(0))]
        assert not [one.shape for one in held if one.shape == (6, 7, 11)]
    finally:
        gc.enable()
