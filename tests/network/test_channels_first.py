"""Channels before rows and columns: the same numbers as with channels last."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.export import export_serving
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.layers import PadShortcut, ResidualBlock
from keras_trgl.splitting import by_memory, profile

pytestmark = pytest.mark.sampled(1)

L = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 8, 6, 3)).astype("float32"), RNG.integers(0, 3, 16)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HEADS = {"linear": lambda: LinearHead(3), "conv": lambda: ConvHead(3, gain=1.0)}


def turned(x):
    return np.moveaxis(x, -1, 1)


def blocks(first):
    form = "channels_first" if first else "channels_last"
    axis = 1 if first else -1

    def conv(width, **options):
        return L.Conv2D(width, 3, padding="same", data_format=form, **options)

    def residual(width, stride):
        branch = [conv(width, strides=stride), L.BatchNormalization(axis=axis)]
        skip = [PadShortcut(width, stride, form)] if stride > 1 else []
        return ResidualBlock(branch, skip, activation="relu")

    return [[conv(4), residual(4, 1)], [residual(6, 2), residual(6, 1)]]


def network(first, head):
    model = GreedyModel(blocks(first), [HEADS[head]() for _ in range(2)], seed=0)
    model.build((None, 3, 8, 6) if first else (None, 8, 6, 3))
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    return model


@pytest.mark.parametrize("head", HEADS)
def test_training_and_every_door_are_those_of_channels_last(head, tmp_path):
    last, first = network(False, head), network(True, head)
    histories = [
        model.fit(x, Y, epochs=2, batch_size=8, shuffle=False, verbose=0).history
        for model, x in ((last, X), (first, turned(X)))
    ]
    for name in histories[0]:
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=2e-4, err_msg=name)
    wanted = last.predict_exits(X, verbose=0)
    for got, one in zip(first.predict_exits(turned(X), verbose=0), wanted, strict=True):
        np.testing.assert_allclose(got, one, atol=2e-4)
    np.testing.assert_allclose(
        first.truncate(1).predict(turned(X), verbose=0), wanted[0], atol=2e-4
    )
    report = export_serving(first, tmp_path / "net")
    served = tf.saved_model.load(str(report.path)).signatures["exit_2"]
    np.testing.assert_allclose(served(inputs=turned(X))["logits"], wanted[1], atol=2e-4)
    first.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(turned(X), verbose=0), wanted[1], atol=2e-4)


@pytest.mark.parametrize("head", HEADS)
def test_bytes_are_those_of_channels_last(head):
    flat = [[block for stage in blocks(first) for block in stage] for first in (False, True)]
    sizes = [(8, 6, 3), (3, 8, 6)]
    splits, held = [], []
    for layers, shape in zip(flat, sizes, strict=True):
        splits.append(by_memory(layers, 2, HEADS[head](), input_shape=shape))
        held.append(profile(layers, 2, HEADS[head](), input_shape=shape, repeats=1).head_bytes)
    assert splits[0] == splits[1]
    assert held[0] == held[1]


def test_a_wrong_number_of_channels_is_told():
    with pytest.raises(ValueError, match="as many channels as the network was built for, 3"):
        network(True, "linear").predict(turned(X)[:, :2], verbose=0)


def test_the_default_of_keras_counts_where_no_layer_tells():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        head = LinearHead(2)
        head.build((None, 5, 4, 4))
        assert head.layers_in_a_row[-1].kernel.shape == (5, 2)
    finally:
        keras.config.set_image_data_format(before)
