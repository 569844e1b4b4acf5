"""Stages that do not train live on another device; the numbers stay the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.devices import device_name, move_variables
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.regimes import Sequential

pytestmark = [pytest.mark.multi_device, pytest.mark.sampled(1)]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.integers(0, 3, 24)


def make(**options):
    blocks = [
        ResidualBlock(
            [keras.layers.Dense(6, "tanh"), keras.layers.Dropout(0.2)],
            input_shape=(6,) if k == 0 else None,
        )
        for k in range(3)
    ]
    regime = Sequential(epochs=2, **options)
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(3), regime=regime, seed=0)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


class Places(keras.callbacks.Callback):
    """The devices of every stage's variables, optimizer included, in each epoch."""

    def on_train_begin(self, logs=None):
        self.places = []

    def on_epoch_end(self, epoch, logs=None):
        parts = zip(
            self.model.stages, self.model.heads, self.model.optimizer.optimizers, strict=True
        )
        self.places.append(
            [
                {v.value.device[-5:] for part in parts_of for v in part.variables}
                for parts_of in parts
            ]
        )


@pytest.mark.parametrize("cache", [None, "memory"])
def test_only_the_stage_in_training_is_on_the_training_device(cache):
    plain, moved, places = make(), make(cache=cache, idle_device="CPU:0"), Places()
    wanted = plain.fit(X, Y, batch_size=8, validation_data=(X, Y), verbose=0).history
    with tf.device("CPU:1"):
        found = moved.fit(
            X, Y, batch_size=8, validation_data=(X, Y), verbose=0, callbacks=[places]
        ).history
    for epoch, row in enumerate(places.places):
        expected = [{"CPU:1"} if k == epoch // 2 else {"CPU:0"} for k in range(3)]
        assert row == expected
    for one, other in zip(plain.variables, moved.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_moved_variable_keeps_value_and_settings():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    before = layer.kernel.numpy()
    home = device_name("CPU:1")
    assert move_variables(layer.variables, home)
    assert not move_variables(layer.variables, home)
    assert layer.kernel.value.device == home
    assert layer.kernel.value.trainable
    np.testing.assert_array_equal(layer.kernel.numpy(), before)
    layer.kernel.assign(before + 1)
    np.testing.assert_array_equal(layer(np.eye(3, dtype="float32")).numpy(), before + 1)


def test_an_unknown_device_is_named():
    with pytest.raises(ValueError, match=r"A device must be one of .*Received: 'GPU:7'"):
        make(idle_device="GPU:7").fit(X, Y, verbose=0)
