"""Several tensors cross a cut, and a model has several inputs: the same in every way to train."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_trgl import GreedyModel
from keras_trgl.export import Outputs, export_serving
from keras_trgl.heads import LinearHead, NormHead
from keras_trgl.network.from_model import split_model
from keras_trgl.network.passing import main
from keras_trgl.regimes import Buffered, Parallel, Sequential
from keras_trgl.regimes.feature_cache import FeatureCache

CLASSES, LENGTH, WIDTH, ROWS = 3, 6, 8, 8
rng = np.random.default_rng(0)
MASK = (np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (ROWS, 1))).astype("int32")
TOKENS = (rng.integers(1, 9, (ROWS, LENGTH)) * MASK).astype("int32")
IMAGES = rng.normal(size=(ROWS, 8, 8, 3)).astype("float32")


def unet():
    """Two skips; the first passes the stage in the middle, which does not use it."""

    def convolved(x, filters, name):
        return layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)

    inputs = keras.Input((8, 8, 3), name="image")
    a = convolved(inputs, 4, "a")
    b = convolved(layers.MaxPooling2D()(a), 4, "b")
    c = convolved(layers.MaxPooling2D()(b), 4, "c")
    d = convolved(layers.Concatenate()([layers.UpSampling2D()(c), b]), 4, "d")
    e = convolved(layers.Concatenate()([layers.UpSampling2D()(d), a]), 4, "e")
    return keras.Model(inputs, e, name="unet")


def cells():
    """Each cell takes the outputs of the two cells before it, as NASNet's do."""
    inputs = keras.Input((8, 8, 3), name="image")
    before = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    now = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem_2")(before)
    for k in range(4):
        left = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"left_{k}")(now)
        right = layers.Conv2D(4, 1, activation="relu", name=f"right_{k}")(before)
        one = layers.Add(name=f"sum_{k}")([now, left])
        cell = layers.Concatenate(name=f"cell_{k}")([one, right])
        before, now = now, layers.Conv2D(4, 1, name=f"narrow_{k}")(cell)
    return keras.Model(inputs, now, name="cells")


def bert():
    """Layers of Keras alone; token ids, segment ids and a padding mask that every block reads."""
    shapes = {"token_ids": "int32", "segment_ids": "int32", "padding_mask": "int32"}
    given = {name: keras.Input((LENGTH,), dtype=dtype, name=name) for name, dtype in shapes.items()}
    x = layers.Add(name="embedded")(
        [
            layers.Embedding(9, WIDTH, mask_zero=True, name="tokens")(given["token_ids"]),
            layers.Embedding(2, WIDTH, name="segments")(given["segment_ids"]),
        ]
    )
    x = layers.LayerNormalization(name="embedded_norm")(x)
    seen = ops.expand_dims(given["padding_mask"], 1)
    for k in range(3):
        attended = layers.MultiHeadAttention(2, WIDTH // 2, name=f"attention_{k}")(
            x, x, attention_mask=seen
        )
        x = layers.LayerNormalization(name=f"norm_{k}")(layers.Add(name=f"add_{k}")([x, attended]))
        inner = layers.Dense(WIDTH, name=f"out_{k}")(
            layers.Dense(2 * WIDTH, activation="gelu", name=f"in_{k}")(x)
        )
        x = layers.LayerNormalization(name=f"last_{k}")(layers.Add(name=f"sum_{k}")([x, inner]))
    pooled = layers.Dense(WIDTH, activation="tanh", name="pooled")(x[:, 0])
    # In flat order the pooled output comes first.
    return keras.Model(given, {"pooled": pooled, "sequence": x}, name="bert")


@keras.saving.register_keras_serializable("test_crossing")
class TransformerBlock(layers.Layer):
    """A block as people write it: its sums, and the way it makes its mask, hidden inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]
        self.attention = layers.MultiHeadAttention(2, WIDTH // 2)
        self.inner, self.outer = layers.Dense(2 * WIDTH, activation="gelu"), layers.Dense(WIDTH)
        self.supports_masking = True

    def build(self, shape, *rest):
        for norm in self.norms:
            norm.build(shape)
        self.attention.build(shape, shape)
        self.inner.build(shape)
        self.outer.build((*shape[:-1], 2 * WIDTH))

    def call(self, x, padding_mask):
        y = self.norms[0](x)
        seen = ops.expand_dims(padding_mask, 1)
        x = x + self.attention(y, y, attention_mask=seen, use_causal_mask=True)
        return x + self.outer(self.inner(self.norms[1](x)))

    def compute_output_shape(self, shape, *rest):
        return shape


def gpt():
    """Two inputs in a list, of ints and floats, and blocks whose sums are hidden."""
    tokens = keras.Input((LENGTH,), dtype="int32", name="token_ids")
    mask = keras.Input((LENGTH,), name="padding_mask")
    x = layers.Embedding(9, WIDTH, mask_zero=True, name="tokens")(tokens)
    for k in range(3):
        x = TransformerBlock(name=f"block_{k}")(x, mask)
    return keras.Model([tokens, mask], layers.LayerNormalization(name="norm")(x), name="gpt")


SEGMENTS = (np.arange(LENGTH) > 2).astype("int32") * MASK
TEXT = {"token_ids": TOKENS, "segment_ids": SEGMENTS, "padding_mask": MASK}
LABELS = rng.integers(0, CLASSES, ROWS)
TAGS = rng.integers(0, CLASSES, (ROWS, LENGTH))
MODELS = {
    # Model, cuts, head, data, labels, what crosses after every stage, residuals.
    "unet": (unet, ["b", "d"], NormHead(CLASSES, pool=None), IMAGES, None, ["ba", "da", "e"]),
    "cells": (cells, 3, LinearHead(CLASSES), IMAGES, LABELS, None),
    "bert": (bert, 3, NormHead(CLASSES, pool=None), TEXT, TAGS, None),
    "gpt": (
        gpt,
        3,
        NormHead(CLASSES, pool=None),
        [TOKENS, MASK.astype("float32")],
        TAGS,
        None,
    ),
}
PIXELS = rng.integers(0, CLASSES, (ROWS, 8, 8))


def labels_of(name):
    return PIXELS if name == "unet" else MODELS[name][4]


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A sum must show")
        warnings.filterwarnings("ignore", ".*regularises residuals")
        yield


def cut(name, method="trgl", regime="parallel", **options):
    keras.utils.set_random_seed(1)
    make, cuts, head, *_ = MODELS[name]
    model = make()
    with quiet():
        head = type(head).from_config(head.get_config())
        options = {"seed": 0, **options}
        return model, GreedyModel.from_model(
            model, cuts, head, method=method, regime=regime, **options
        )


def compiled(network, rate=0.05):
    network.compile(
        keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return network


def whole(outputs):
    """The output of highest rank."""
    return max(keras.tree.flatten(outputs), key=lambda one: len(one.shape))


@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_models_bit_for_bit(name):
    model, network = cut(name)
    x = keras.tree.map_structure(tf.constant, MODELS[name][3])
    features = x
    for stage in network.stages:
        features = stage(features)
    np.testing.assert_array_equal(features, whole(model(x)))
