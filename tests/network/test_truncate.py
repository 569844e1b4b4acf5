"""A depth by itself: unfolded where all its layers are Keras's own."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.layers import PadShortcut, ResidualBlock

pytestmark = pytest.mark.sampled(1)

L = keras.layers
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(5, 6)).astype("float32")
IMAGES = RNG.normal(size=(5, 8, 8, 4)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class OwnLayer(L.Dense):
    """A user's layer."""


@keras.saving.register_keras_serializable("tests")
def own_activation(x):
    """Give twice the positive part."""
    return 2.0 * keras.ops.relu(x)


def rows(make, count=2):
    """Blocks on rows of six."""
    return [make(input_shape=None if k else (6,)) for k in range(count)]


def image_block(branch, **options):
    return [ResidualBlock(branch, input_shape=(8, 8, 4), **options)]


STOCK = {
    "dense": lambda: rows(lambda **o: ResidualBlock([L.Dense(6, "tanh")], **o)),
    "activation": lambda: rows(lambda **o: ResidualBlock([L.Dense(6)], activation="relu", **o)),
    "same_names": lambda: rows(lambda **o: ResidualBlock([L.Dense(6, name="same")], **o), 3),
    "named_as_the_input": lambda: rows(
        lambda **o: ResidualBlock([L.Dense(6, name="inputs")], **o), 1
    ),
    "entry_and_shortcut": lambda: rows(
        lambda **o: ResidualBlock([L.Dense(4)], shortcut=L.Dense(4), entry=L.Dense(5), **o), 1
    ),
    "images": lambda: image_block(
        [L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), L.Dropout(0.5)]
    ),
    "models_in_it": lambda: image_block(
        keras.Sequential([L.Conv2D(4, 3, padding="same"), L.Activation("gelu")])
    ),
}
NOT_STOCK = {
    "own_normalization": lambda: image_block([trgl.layers.BatchNormalization()]),
    "pad_shortcut": lambda: image_block(
        [L.Conv2D(8, 3, strides=2, padding="same")], shortcut=PadShortcut(8)
    ),
    "own_layer": lambda: rows(lambda **o: ResidualBlock([OwnLayer(6)], **o)),
    "own_activation": lambda: rows(
        lambda **o: ResidualBlock([L.Dense(6)], activation=own_activation, **o)
    ),
    "own_activation_inside": lambda: rows(
        lambda **o: ResidualBlock([L.Dense(6, own_activation)], **o)
    ),
    "another_type_inside": lambda: rows(
        lambda **o: ResidualBlock([L.Dense(6, dtype="mixed_bfloat16")], **o)
    ),
}


def built(blocks):
    model = trgl.GreedyModel.from_blocks(blocks, [len(blocks)], trgl.heads.LinearHead(3), seed=0)
    for weight in model.weights:
        weight.assign(weight + RNG.uniform(0.0, 0.3, weight.shape).astype("float32"))
    return model


def data_of(model):
    return ROWS if len(model.truncate(1).input_shape) == 2 else IMAGES


def all_layers(model):
    return [layer for layer in model.layers if not isinstance(layer, L.InputLayer)]


@pytest.mark.parametrize("way", ["made", "loaded"])
@pytest.mark.parametrize("name", STOCK)
def test_stock_layers_are_unfolded_and_share_the_variables(tmp_path, name, way):
    model = built(STOCK[name]())
    if way == "loaded":
        model.save(tmp_path / "whole.keras")
        model = trgl.load_model(tmp_path / "whole.keras")
    short = model.truncate(1)
    assert all(type(layer).__module__.startswith("keras.") for layer in short.layers)
    names = [layer.name for layer in short.layers]
    assert len(set(names)) == len(names)
    mine = {id(variable) for variable in model.variables}
    assert {id(variable) for variable in short.variables} <= mine
    x = data_of(model)
    # The graph optimizer may fuse a sum with the one or the other of its sides.
    np.testing.assert_allclose(
        short.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", NOT_STOCK)
def test_a_block_with_other_layers_stays_whole(tmp_path, name):
    model = built(NOT_STOCK[name]())
    short = model.truncate(1)
    kept = [layer for layer in short.layers if isinstance(layer, ResidualBlock)]
    assert kept == list(model.stages[0].blocks)
    short.save(tmp_path / "short.keras")
    x = data_of(model)
    loaded = keras.saving.load_model(tmp_path / "short.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


ALONE = """
import sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
assert "keras_trgl" not in sys.modules
"""


@pytest.mark.parametrize("name", ["same_names", "images"])
def test_an_unfolded_model_loads_with_keras_alone(tmp_path, name):
    model = built(STOCK[name]())
    x, paths = data_of(model), [tmp_path / name for name in ("short.keras", "x.npy", "y.npy")]
    model.truncate(1).save(paths[0])
    np.save(paths[1], x)
    subprocess.run([sys.executable, "-c", ALONE, *map(str, paths)], check=True)
    np.testing.assert_allclose(np.load(paths[2]), model.predict(x, verbose=0), rtol=1e-6)


def test_a_subclass_of_a_block_or_head_is_called_whole():
    class Doubled(ResidualBlock):
        """A block that gives twice its sum."""

        def call(self, inputs):
            """Give twice the sum."""
            return 2.0 * super().call(inputs)

    class Negated(trgl.heads.LinearHead):
        """A head that gives the opposite."""

        def call(self, features):
            """Give the opposite."""
            return -super().call(features)

    blocks = [Doubled([L.Dense(6)], input_shape=(6,))]
    model = trgl.GreedyModel.from_blocks(blocks, [1], Negated(3), seed=0)
    short = model.truncate(1)
    assert [type(layer) for layer in all_layers(short)] == [Doubled, Negated]
    np.testing.assert_array_equal(short.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0))
