"""Layers that only call others are written out; those that do more stay whole."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.network.bringing import flat_model


class Block(layers.Layer):
    """A residual block: its own sum keeps it whole."""

    def build(self, shape):
        self.inner = layers.Dense(shape[-1], dtype=self.dtype_policy)
        self.inner.build(shape)

    def call(self, x):
        return x + self.inner(keras.ops.tanh(x))


class Encoder(layers.Layer):
    """Three blocks in a row, and nothing else."""

    def build(self, shape):
        self.blocks = [Block(name=f"block_{k}", dtype=self.dtype_policy) for k in range(3)]
        for block in self.blocks:
            block.build(shape)

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x)
        return x


class Scaled(Encoder):
    """One that computes itself too."""

    def call(self, x, training=None):
        return 2.0 * super().call(x)


class Asks(Encoder):
    """One whose call asks whether it trains."""

    def call(self, x, training=None):
        x = self.blocks[0](x)
        return x if training else self.blocks[2](self.blocks[1](x))


class Weighs(Encoder):
    """One with a weight that no layer holds."""

    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight(shape=(), name="scale")


class Single(Encoder):
    """One block is a unit as it is."""

    def call(self, x, training=None):
        return self.blocks[0](x)


def model_of(layer):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layer(layers.Dense(4, name="first")(inputs)))


@pytest.mark.parametrize("kind", [Encoder, Scaled, Asks, Weighs, Single])
def test_a_layer_is_written_out_if_it_only_calls_others(kind):
    names = [call.name for call in flat_model(model_of(kind(name="encoder"))).calls]
    blocks = ["block_0", "block_1", "block_2"]
    assert names == ["first", *(blocks if kind is Encoder else ["encoder"])]


def test_in_mixed_precision_it_stays_whole_as_it_would_cast():
    names = [call.name for call in flat_model(model_of(Encoder(dtype="mixed_float16"))).calls]
    assert names[-1].startswith("encoder")


def test_each_of_its_blocks_can_be_a_stage():
    model = model_of(Encoder(name="encoder"))
    network = GreedyModel.from_model(model, 3, head=LinearHead(2), seed=0)
    assert [(row.first, row.last) for row in network.cut_table()] == [
        ("first", "block_0"),
        ("block_1", "block_1"),
        ("block_2", "block_2"),
    ]
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    before = model.get_weights()
    logs = network.train_on_batch(x, np.arange(6) % 2, return_dict=True)
    assert all(logs[f"stage_{k}_energy"] > 0 for k in (1, 2, 3))
    for one, other in zip(model.get_weights(), before, strict=True):
        assert not np.array_equal(one, other)
