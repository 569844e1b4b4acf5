"""A small network with moved statistics and dropout, and what its exports must give."""

import keras
import numpy as np
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import ConvHead, LinearHead

SHAPE = (8, 8, 1)
NAMES = ["zero", "one", "two", "three", "four"]
BATCHES = (1, 7, 64)
TOLERANCE = 1e-5


def network(regime="parallel", head=None, blocks=None):
    """Give three stages, the second with dropout, whose weights are all random."""
    blocks = blocks or resnet(depth=8, input_shape=SHAPE, widths=(4, 8, 8))
    stages = [[blocks[0]], [blocks[1], keras.layers.Dropout(0.5)], [blocks[2]]]
    heads = [head or ConvHead(len(NAMES))] * len(stages)
    return GreedyModel(stages, heads, regime=regime, seed=0)


def small_network(units=5, regime="parallel"):
    """Give three stages of one convolution, for what does not depend on the network."""
    stages = [[keras.layers.Conv2D(2, 3, activation="relu")] for _ in range(3)]
    heads = [LinearHead(units) for _ in stages]
    model = GreedyModel(stages, heads, "vangl", regime, seed=0)
    model.build((None, *SHAPE))
    return model


def scatter(model, seed=0):
    """Give every weight a random value, moving statistics too."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.name:
            value = rng.uniform(0.5, 1.5, weight.shape)
        elif len(weight.shape) > 1:
            value = rng.normal(scale=(2 / np.prod(weight.shape[:-1])) ** 0.5, size=weight.shape)
        else:
            value = rng.normal(scale=0.3, size=weight.shape) + (weight.name == "gamma")
        weight.assign(value)
    return model


def client_rows(size, seed=0):
    """Give uint8 images as a client sends them: noise around a level of each image's own."""
    rng = np.random.default_rng(seed + size)
    level = rng.uniform(0, 255, (size, 1, 1, 1))
    return np.clip(level + 60 * rng.normal(size=(size, *SHAPE)), 0, 255).astype("uint8")


def live(model, x):
    """Give every depth's logits of the model itself, by its own call in inference mode."""
    return [one.numpy() for one in model(x, training=False, exits="all")]


def parameters(model, depth):
    """Count the numbers in stages 1…k and head k."""
    layers = [block for stage in model.stages[:depth] for block in stage.blocks]
    counts = [layer.count_params() for layer in [*layers, model.heads[depth - 1]]]
    return sum(counts)


def stored(path):
    """Give the shapes of the weights in a SavedModel."""
    found = tf.train.list_variables(str(path / "variables" / "variables"))
    return [shape for name, shape in found if name.endswith("VARIABLE_VALUE")]


def words_of(path):
    """Give all bytes of a SavedModel's graph."""
    return (path / "saved_model.pb").read_bytes()
