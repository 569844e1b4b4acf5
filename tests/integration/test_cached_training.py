"""Features computed once train as those computed on every batch, bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import FeatureCache, GreedyModel
from keras_trgl.architectures import blockwise_resnet
from keras_trgl.datasets import BatchStream, Chain, PadCropFlip
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.regimes import MultiLap, Sequential

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(38, 8, 8, 3)).astype("float32")
Y = RNG.integers(0, 5, 38)


class Batches(keras.utils.PyDataset):
    """The arrays, batch by batch."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return X[part], Y[part]


DATA = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": 16},
    "stream": lambda: {"x": BatchStream(X, Y, np.linspace(0.5, 2, 38), batch_size=16)},
    "py_dataset": lambda: {"x": Batches()},
    "tf.data": lambda: {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)},
}


def with_dropout(block):
    config = block.get_config()
    config["branch"].insert(-1, keras.saving.serialize_keras_object(keras.layers.Dropout(0.3)))
    return ResidualBlock.from_config(config)


def make(regime, **options):
    blocks = [with_dropout(one) for one in blockwise_resnet((8, 8, 3), 4, 8, encoder="simple")]
    model = GreedyModel.from_blocks(blocks, [1, 2, 1], LinearHead(5), regime=regime, seed=0)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def assert_cached_is_uncached(regime, cache, data, fit=None, **options):
    plain, cached = make(regime(None), **options), make(regime(cache), **options)
    wanted = plain.fit(**DATA[data](), verbose=0, **(fit or {})).history
    found = cached.fit(**DATA[data](), verbose=0, **(fit or {})).history
    for one, other in zip(plain.variables, cached.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def in_turn(cache):
    return Sequential(epochs=2, cache=cache)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_arrays(cache):
    assert_cached_is_uncached(in_turn, cache, "arrays")


@pytest.mark.parametrize("data", ["stream", "py_dataset", "tf.data"])
def test_other_data(data):
    assert_cached_is_uncached(in_turn, FeatureCache(copies=1), data)


def test_laps_compute_the_features_again():
    assert_cached_is_uncached(
        lambda cache: MultiLap(epochs=2, num_laps=2, cache=cache), "memory", "arrays"
    )


@pytest.mark.long
def test_an_execution_at_an_epochs_end_is_short():
    assert_cached_is_uncached(in_turn, "memory", "arrays", steps_per_execution=2)


@pytest.mark.long
def test_class_weights():
    weights = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5, 3: 1.0, 4: 3.0}}
    assert_cached_is_uncached(in_turn, "memory", "arrays", weights)


@pytest.mark.long
def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert_cached_is_uncached(in_turn, "memory", "arrays")


def test_augmented_data_need_a_number_of_copies():
    augmented = BatchStream(X, Y, batch_size=16, transform=Chain(PadCropFlip(1)))
    with pytest.raises(ValueError, match=r"Pass `FeatureCache\(copies=\.\.\.\)`"):
        make(in_turn("memory")).fit(augmented, verbose=0)
    history = make(in_turn(FeatureCache(copies=2))).fit(augmented, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_nothing_is_left_on_disk(tmp_path):
    cache = FeatureCache("disk", directory=str(tmp_path))
    make(in_turn(cache)).fit(X, Y, batch_size=16, verbose=0)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_the_stage_trains():
    model = make(in_turn(FeatureCache(max_bytes=1000)))
    with pytest.raises(ValueError, match="max_bytes"):
        model.fit(X, Y, batch_size=16, verbose=0)
    # The first stage needs no cache, and has trained.
    assert int(model.optimizer.optimizers[0].iterations) == 6
    assert int(model.optimizer.optimizers[1].iterations) == 0
