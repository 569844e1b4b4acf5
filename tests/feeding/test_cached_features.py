"""Batches of cached features are those of the uncached run."""

import errno
import itertools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.datasets import BatchStream, PadCropFlip
from keras_trgl.feeding.cached_features import CachedFeatures
from keras_trgl.regimes.feature_cache import FeatureCache

X = np.random.default_rng(0).normal(size=(22, 6, 6, 3)).astype("float32")
Y = np.arange(22)
WEIGHT = np.linspace(0, 1, 22, dtype="float32")


def add(amount):
    return tf.function(lambda x: tf.cast(x, tf.float32) + amount)


def conv_stage(seed=0):
    """A convolution with normalization in inference mode."""
    layers = [
        keras.layers.Conv2D(
            4, 3, padding="same", kernel_initializer=keras.initializers.GlorotNormal(seed)
        ),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
    ]

    @tf.function
    def stage(x):
        for layer in layers:
            x = layer(x, training=False) if "norm" in layer.name else layer(x)
        return x

    stage.layers = layers
    return stage


def take(dataset, count):
    """Give batches; features without the masks that stand beside them, as there are none."""
    return [_unmasked(batch) for batch in dataset.take(count).as_numpy_iterator()]


def _unmasked(batch):
    x, *rest = batch if isinstance(batch, tuple) else (batch,)
    if isinstance(x, tuple) and x[-1] == {}:
        x = x[0]
    return (x, *rest) if rest else x


def assert_equal(got, wanted):
    """Hold nested batches against each other bit for bit."""
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        tf.nest.assert_same_structure(one, other)
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert np.asarray(a).dtype == np.asarray(b).dtype
                np.testing.assert_array_equal(a, b)


def features(batches, stages):
    """Give batches with `x` passed through the stages, as an uncached run computes it."""
    changed = []
    for x, *rest in batches:
        x = tf.nest.map_structure(tf.constant, x)
        for stage in stages:
            x = stage(x)
        changed.append((x.numpy(), *rest))
    return changed


class Batches(keras.utils.PyDataset):
    """Batches of 8, 8 and 6 examples; counts its epochs."""

    num_epochs = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return X[part], {"a": Y[part], "b": (Y[part] + self.num_epochs,)}, WEIGHT[part]

    def on_epoch_end(self):
        self.num_epochs += 1


def stream_source():
    return BatchStream(X, Y, WEIGHT, batch_size=8, seed=5)


def pipeline_source():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("first", [0, 3, 4, 8])
@pytest.mark.parametrize("make", [lambda: add(0.0), conv_stage], ids=["identity", "conv"])
def test_batches_of_a_stream_equal_uncached_ones(make, first, kind):
    stage = make()
    cached = CachedFeatures(stream_source(), FeatureCache(kind))
    cached.advance(1, [stage])
    assert cached.steps_per_epoch == 3
    wanted = features(take(stream_source().from_step(first), 8), [stage])
    assert_equal(take(cached.from_step(first), 8), wanted)
    cached.close()


@pytest.mark.parametrize("source", [stream_source, pipeline_source])
def test_levels_in_a_row_equal_all_stages_at_once(source):
    stages = [conv_stage(0), conv_stage(1), conv_stage(2)]
    steps = CachedFeatures(source(), FeatureCache(copies=1))
    steps.advance(1, stages)
    steps.advance(3, stages)
    once = CachedFeatures(source(), FeatureCache(copies=1))
    once.advance(3, stages)
    raw = CachedFeatures(source(), FeatureCache(copies=1)).from_step(2)
    got = take(steps.from_step(2), 4)
    assert_equal(got, take(once.from_step(2), 4))
    assert_equal(got, features(take(raw, 4), stages))
    assert steps.level == once.level == 3


def test_level_zero_keeps_nothing():
    cached = CachedFeatures(stream_source(), FeatureCache())
    assert (cached.level, cached.nbytes) == (0, 0)
    assert_equal(take(cached.from_step(1), 4), take(stream_source().from_step(1), 4))
    cached.advance(1, [add(1.0)])
    assert (cached.level, cached.nbytes) == (1, X.nbytes)
    cached.advance(0, [])
    assert (cached.level, cached.nbytes) == (0, 0)
    assert_equal(take(cached.from_step(1), 4), take(stream_source().from_step(1), 4))


@pytest.mark.parametrize("through_level_zero", [False, True])
def test_changed_weights_give_new_features(through_level_zero):
    stage = conv_stage()
    cached = CachedFeatures(stream_source(), FeatureCache())
    cached.advance(1, [stage])
    before = take(cached.from_step(), 3)
    stage.layers[0].kernel.assign(-stage.layers[0].kernel)
    if through_level_zero:
        cached.advance(0, [stage])
    cached.advance(1, [stage])
    after = take(cached.from_step(), 3)
    assert np.abs(after[0][0] - before[0][0]).max() > 0.1
    assert_equal(after, features(take(stream_source().from_step(), 3), [stage]))


def test_a_lower_level_is_computed_from_the_data():
    cached = CachedFeatures(stream_source(), FeatureCache())
    cached.advance(2, [add(1.0), add(10.0)])
    cached.advance(1, [add(2.0), add(10.0)])
    wanted = features(take(stream_source().from_step(), 3), [add(2.0)])
    assert_equal(take(cached.from_step(), 3), wanted)


def test_a_frozen_stage_runs_once_over_the_data():
    calls = []

    def stage(x):
        calls.append(len(x))
        return x

    cached = CachedFeatures(BatchStream(X[:17], batch_size=8), FeatureCache())
    cached.advance(1, [stage])
    take(cached.from_step(), 9)
    assert calls == [8, 9]  # A last batch of one example joins the one before.


def test_epochs_take_the_copies_of_augmented_examples_in_turn():
    stream = BatchStream(X, Y, batch_size=8, transform=PadCropFlip(2))
    cached = CachedFeatures(stream, FeatureCache(copies=2))
    cached.advance(1, [add(0.0)])
    assert cached.nbytes == 2 * X.nbytes
    copies = [np.concatenate(list(stream.examples(c).as_numpy_iterator())) for c in (0, 1)]
    assert (copies[0] != copies[1]).any()
    for step, ((x, _), y) in enumerate(cached.from_step(1).take(11).as_numpy_iterator(), start=1):
        np.testing.assert_array_equal(x, copies[step // 3 % 2][y])
    cached.advance(2, [None, add(1.0)])
    np.testing.assert_array_equal(
        *[
            take(cached.from_step(3), 1)[0][0],
            copies[1][take(stream.from_step(3), 1)[0][1]] + 1,
        ]
    )


def test_features_keep_a_short_type():
    cached = CachedFeatures(stream_source(), FeatureCache("disk"))
    cached.advance(1, [lambda x: tf.cast(x, tf.bfloat16)])
    cached.advance(2, [None, lambda x: 2 * x])
    assert cached.nbytes == X.nbytes // 2
    dataset = cached.from_step()
    assert dataset.element_spec[0] == (tf.TensorSpec([None, 6, 6, 3], tf.bfloat16), {})
    for (x, _), y, _ in dataset.take(3):
        np.testing.assert_array_equal(x, 2 * tf.cast(tf.gather(X, y), tf.bfloat16))


def test_nested_inputs_become_features():
    stream = BatchStream({"a": X, "b": 2 * X}, Y, batch_size=8)
    cached = CachedFeatures(stream, FeatureCache())
    stage = tf.function(lambda x: x["a"] + x["b"])
    cached.advance(1, [stage])
    assert_equal(take(cached.from_step(), 4), features(take(stream.from_step(), 4), [stage]))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("first", [0, 4])
def test_batches_of_a_py_dataset_come_in_the_order_of_their_epoch(first, shuffle):
    cached = CachedFeatures(Batches(), FeatureCache(copies=2), seed=7, shuffle=shuffle)
    cached.advance(1, [add(1.0)])
    got = take(cached.from_step(first), 8)
    for step, (x, y, weight) in enumerate(got, start=first):
        epoch, place = divmod(step, 3)
        index = np.random.default_rng([7, epoch]).permutation(3)[place] if shuffle else place
        part = slice(8 * index, 8 * index + 8)
        np.testing.assert_array_equal(x, X[part] + 1)
        np.testing.assert_array_equal(y["a"], Y[part])
        np.testing.assert_array_equal(y["b"][0], Y[part] + epoch % 2)
        np.testing.assert_array_equal(weight, WEIGHT[part])
    assert cached.nbytes == 2 * (X.nbytes + 2 * Y.nbytes + WEIGHT.nbytes)


def test_level_zero_of_a_py_dataset_reads_it_anew():
    data = Batches()
    cached = CachedFeatures(data, FeatureCache(copies=1), shuffle=False)
    x, y, _ = take(cached.from_step(3), 4)[3]
    np.testing.assert_array_equal(x, X[:8])
    np.testing.assert_array_equal(y["b"][0], Y[:8] + 1)


@pytest.mark.parametrize("first", [0, 2, 4])
def test_batches_of_a_pipeline_equal_uncached_ones(first):
    stage = conv_stage()
    cached = CachedFeatures(pipeline_source(), FeatureCache("disk", copies=1))
    cached.advance(1, [stage])
    wanted = features(take(pipeline_source().repeat().skip(first), 7), [stage])
    assert_equal(take(cached.from_step(first), 7), wanted)


def test_passes_of_a_shuffled_pipeline_are_kept_as_they_come():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(22, seed=1).batch(8)
    cached = CachedFeatures(data, FeatureCache(copies=2))
    cached.advance(1, [add(0.0)])
    got = take(cached.from_step(), 12)
    for x, y in got:
        np.testing.assert_array_equal(x, X[y])
    epochs = [tuple(itertools.chain(*(y for _, y in got[3 * e : 3 * e + 3]))) for e in range(4)]
    assert all(sorted(epoch) == Y.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[2:] == epochs[:2]


def test_targets_may_be_missing_or_differ_in_length():
    class Ragged(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return X[:2], None, np.ones((2, 1 + index), "float32")

    cached = CachedFeatures(Ragged(), FeatureCache(copies=1), shuffle=False)
    cached.advance(1, [add(0.0)])
    dataset = cached.from_step()
    assert dataset.element_spec[2].shape.as_list() == [None, None]
    (_, y, short), (_, _, long) = take(dataset, 2)
    assert y is None
    assert (short.shape, long.shape) == ((2, 1), (2, 2))


def test_data_that_may_be_random_need_the_number_of_copies():
    for source in (
        BatchStream(X, Y, transform=PadCropFlip(2)),
        BatchStream(X, Y, transform=lambda images, seeds: images),
        Batches(),
        pipeline_source(),
    ):
        with pytest.raises(ValueError, match=r"FeatureCache\(copies=\.\.\.\).*1 keeps one pass"):
            CachedFeatures(source, FeatureCache())
        CachedFeatures(source, FeatureCache(copies=1))


def test_data_without_an_end_are_refused():
    class Endless(Batches):
        @property
        def num_batches(self):
            return None

    cache = FeatureCache(copies=1)
    for source in (
        (batch for batch in [(X, Y)]),
        Endless(),
        pipeline_source().repeat(),
        pipeline_source().filter(lambda x, y: True),
        X,
    ):
        with pytest.raises(ValueError, match=r"known number of batches.*Received.*cache=None"):
            CachedFeatures(source, cache)


def test_passes_of_different_lengths_are_refused():
    class Growing(Batches):
        def __len__(self):
            return 3 - self.num_epochs

    cached = CachedFeatures(Growing(), FeatureCache(copies=2))
    with pytest.raises(ValueError, match=r"as many batches and examples, 3 and 22.*2 and 16"):
        cached.advance(1, [add(0.0)])


@pytest.mark.parametrize("sizes", [[8, 7], [7, 8]])
def test_passes_of_a_pipeline_with_other_examples_are_refused(sizes):
    left = iter(sizes)

    def generate():
        size = next(left)
        for _ in range(3):
            yield X[:size], Y[:size]

    spec = (tf.TensorSpec([None, 6, 6, 3]), tf.TensorSpec([None], tf.int64))
    data = tf.data.Dataset.from_generator(generate, output_signature=spec)
    data = data.apply(tf.data.experimental.assert_cardinality(3))
    cached = CachedFeatures(data, FeatureCache(copies=1))
    with pytest.raises(ValueError, match=rf"3 and {3 * sizes[0]}.*Received: 3 and {3 * sizes[1]}"):
        cached.advance(1, [add(0.0)])


def test_max_bytes_counts_both_stores():
    cached = CachedFeatures(stream_source(), FeatureCache(max_bytes=2 * X.nbytes - 1))
    stages = [add(1.0), add(1.0)]
    cached.advance(1, stages)
    with pytest.raises(ValueError, match="held already"):
        cached.advance(2, stages)
    cached.advance(0, stages)
    cached.advance(2, stages)


def test_max_bytes_counts_targets():
    limit = X.nbytes + Y.nbytes
    CachedFeatures(pipeline_source(), FeatureCache(max_bytes=limit, copies=1)).advance(
        1, [add(0.0)]
    )
    cached = CachedFeatures(pipeline_source(), FeatureCache(max_bytes=limit - 1, copies=1))
    with pytest.raises(ValueError, match="held already"):
        cached.advance(1, [add(0.0)])


@pytest.mark.parametrize("source", [stream_source, pipeline_source])
def test_a_failure_leaves_the_features_that_were_there(source, tmp_path):
    def fail(x):
        calls.append(x)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return x

    calls = []
    cached = CachedFeatures(source(), FeatureCache("disk", directory=tmp_path, copies=1))
    cached.advance(1, [add(1.0)])
    wanted = take(cached.from_step(), 4)
    with pytest.raises(KeyboardInterrupt):
        cached.advance(2, [add(1.0), fail])
    assert cached.level == 1
    assert_equal(take(cached.from_step(), 4), wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_features_that_were_there(monkeypatch):
    def refuse(descriptor, start, count):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cached = CachedFeatures(stream_source(), FeatureCache("disk"))
    cached.advance(1, [add(1.0)])
    wanted = take(cached.from_step(), 4)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="folder with room"):
        cached.advance(2, [add(1.0), add(1.0)])
    assert_equal(take(cached.from_step(), 4), wanted)


@pytest.mark.parametrize("source", [stream_source, pipeline_source])
def test_closing_gives_memory_back_while_a_dataset_still_lives(source):
    cached = CachedFeatures(source(), FeatureCache(copies=1))
    cached.advance(1, [add(1.0)])
    dataset = cached.from_step()
    kept = cached._kept
    cached.close()
    cached.close()
    assert cached.nbytes == kept.nbytes == 0
    with pytest.raises(tf.errors.OpError, match="store is closed"):
        take(dataset, 1)


def test_too_few_stages_are_refused():
    cached = CachedFeatures(stream_source(), FeatureCache())
    with pytest.raises(ValueError, match=r"stage 3 need 2 stages.*Received: 1"):
        cached.advance(2, [add(0.0)])
    with pytest.raises(ValueError, match="`level` must be at least 0"):
        cached.advance(-1, [])
    with pytest.raises(ValueError, match="`step` must be at least 0"):
        cached.from_step(-1)


def test_features_of_other_shapes_per_batch_are_refused():
    cached = CachedFeatures(pipeline_source(), FeatureCache(copies=1))
    with pytest.raises(ValueError, match="features of one shape and type"):
        cached.advance(1, [lambda x: x[..., : 1 + len(x) % 4]])


def test_replicas_share_each_batch_of_features():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    cached = CachedFeatures(stream_source(), FeatureCache())
    cached.advance(1, [add(0.0)])
    wanted = take(cached.from_step(), 3)
    shared = strategy.experimental_distribute_dataset(cached.from_step())
    for batch, other in zip(shared, wanted, strict=False):
        parts = strategy.experimental_local_results(batch[0][0])
        np.testing.assert_array_equal(np.concatenate([p.numpy() for p in parts]), other[0])
