"""Models whose features are known."""

import keras
import numpy as np
import pytest

import keras_trgl as trgl


def dense(matrix, bias=None):
    """Give a layer that multiplies by a matrix and adds a vector."""
    matrix = np.asarray(matrix, "float32")
    layer = keras.layers.Dense(matrix.shape[1])
    layer.build((None, matrix.shape[0]))
    layer.set_weights([matrix, np.zeros(matrix.shape[1]) if bias is None else np.array(bias)])
    return layer


@pytest.fixture
def model_of():
    """A function that gives a model with a stage for every layer, on vectors of a width."""

    def make(layers, width, units=2, heads=None):
        heads = heads or trgl.heads.LinearHead(units)
        if not isinstance(heads, list):
            model = trgl.GreedyModel.from_blocks(
                layers, [1] * len(layers), heads, method="vangl", seed=0, name="net"
            )
        else:
            model = trgl.GreedyModel(layers, heads, method="vangl", seed=0, name="net")
        model.build((None, width))
        return model

    return make


@pytest.fixture
def images():
    """Sixty images of three classes, brighter in one channel for each."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 8, 8, 4)).astype("float32")
    x[np.arange(60), :, :, y] += 0.4
    return x, y
