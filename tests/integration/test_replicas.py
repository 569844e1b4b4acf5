"""Data parallelism by `MirroredStrategy` on two logical CPUs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.callbacks import DepthCheckpoint
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock

pytestmark = [pytest.mark.multi_device, pytest.mark.sampled(1)]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.integers(0, 3, 32)


def make(optimizer="sgd", **options):
    blocks = [
        ResidualBlock(
            [keras.layers.Dense(6, "tanh", kernel_regularizer="l2")],
            input_shape=(6,) if k == 0 else None,
        )
        for k in range(4)
    ]
    model = GreedyModel.from_blocks(blocks, [2, 1, 1], LinearHead(3), seed=0)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def train(replicas, **options):
    if replicas == 0:
        model = make(**options)
    else:
        devices = [f"CPU:{k}" for k in range(replicas)]
        with tf.distribute.MirroredStrategy(devices).scope():
            model = make(**options)
    history = model.fit(X, Y, batch_size=8, epochs=3, validation_data=(X, Y), verbose=0).history
    return model, history


@pytest.mark.parametrize("replicas", [1, 2])
def test_replicas_equal_one_with_the_same_global_batch(replicas):
    plain, wanted = train(0)
    mirrored, history = train(replicas)
    for one, other in zip(plain.weights, mirrored.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)
    assert set(history) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(history[name], values, atol=1e-6, rtol=1e-6, err_msg=name)


def test_the_bar_and_the_best_depth_know_what_has_trained_on_replicas(tmp_path, capsys):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = make()
    keep = DepthCheckpoint(tmp_path / "best.keras", "loss")
    history = model.fit(X, Y, batch_size=16, verbose=2, callbacks=[keep]).history
    assert " - best_depth: " in capsys.readouterr().out
    assert keep.best == min(history[f"stage_{k}_loss"][0] for k in (1, 2, 3))
    loaded = keras.saving.load_model(keep.filepath)
    trained = model.truncate(keep.best_depth)
    for one, other in zip(loaded.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.long
def test_adamw_on_two_replicas_is_near_one():
    plain, _ = train(0, optimizer=keras.optimizers.AdamW(0.01))
    mirrored, _ = train(2, optimizer=keras.optimizers.AdamW(0.01))
    for one, other in zip(plain.weights, mirrored.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"steps_per_execution": 2},
        {"optimizer": keras.optimizers.SGD(gradient_accumulation_steps=2)},
    ],
    ids=["steps_per_execution", "gradient_accumulation_steps"],
)
def test_what_keras_cannot_do_on_replicas_is_refused_by_name(options):
    with pytest.raises(ValueError, match=r"with several replicas. Received: 2 replicas"):
        train(2, **options)
