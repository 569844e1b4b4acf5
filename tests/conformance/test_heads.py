"""What every head does: one row per class."""

import functools

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.heads import (
    ConvHead,
    DenseHead,
    DGLHead,
    InfoProHead,
    LinearHead,
    NormHead,
    SedonaHead,
)

HEADS = {
    "linear": LinearHead,
    "conv": ConvHead,
    "norm": NormHead,
    "dense": functools.partial(DenseHead, hidden=(8, 8), pool=2),
    "dgl": DGLHead,
    "dgl_cnn": functools.partial(DGLHead, kind="cnn"),
    "infopro": functools.partial(InfoProHead, convolutions=2, dense=3),
    "sedona": functools.partial(SedonaHead, width=8),
}
X = np.random.default_rng(0).normal(size=(4, 8, 8, 6)).astype("float32")


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("units", [1, 5])
def test_it_gives_units_numbers_per_example(name, policy, units):
    keras.config.set_dtype_policy(policy)
    head = HEADS[name](units=units)
    out = head(X, training=True)
    assert tuple(out.shape) == tuple(head.compute_output_shape(X.shape)) == (4, units)
    assert np.isfinite(np.asarray(out, "float32")).all()


@pytest.mark.parametrize("name", HEADS)
def test_it_is_saved_and_loaded(name, tmp_path):
    inputs = keras.Input(X.shape[1:])
    model = keras.Model(inputs, HEADS[name](units=3)(inputs))
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(loaded(X), model(X))


@pytest.mark.parametrize("name", HEADS)
def test_its_layers_in_a_row_are_the_head(name):
    head = HEADS[name](units=3)
    wanted = head(X)
    x = X
    for layer in head.layers_in_a_row:
        x = layer(x)
    np.testing.assert_allclose(x, wanted, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_weights(name):
    seeded = {"kernel_initializer": keras.initializers.GlorotUniform(3)}
    options = {"seed": 3} if name == "conv" else seeded
    first, second = HEADS[name](3, **options), HEADS[name](3, **options)
    for head in (first, second):
        head.build(X.shape)
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("name", HEADS)
def test_channels_first_gives_the_same_numbers(name):
    last = HEADS[name](units=3, data_format="channels_last")
    first = HEADS[name](units=3, data_format="channels_first")
    moved = X.transpose(0, 3, 1, 2)
    last.build(X.shape)
    first.build(moved.shape)
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(first(moved), last(X), atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_it_trains_and_no_two_kernels_start_alike(name):
    block = keras.layers.Conv2D(6, 3, padding="same")
    model = GreedyModel([block], [HEADS[name](3)], method="vangl", seed=0)
    model.build((None, 8, 8, 6))
    kernels = [v for v in model.heads[0].trainable_variables if len(v.shape) > 1]
    starts = [tuple(np.asarray(v).ravel()[:4]) for v in kernels]
    assert len(set(starts)) == len(starts)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logs = model.train_on_batch(X, np.array([0, 1, 2, 0]), return_dict=True)
    assert np.isfinite(logs["loss"])
