"""Where gradients stop: no stage's objective reaches another stage's variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.methods import TRGL

pytestmark = pytest.mark.sampled(2)

X = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 5, 16)


class Scaled(TRGL):
    """Multiplies the objective of one stage."""

    def __init__(self, position, factor):
        super().__init__()
        self.position, self.factor = position, factor

    def stage_losses(self, step):
        losses = super().stage_losses(step)
        factor = self.factor if step.stage.depth - 1 == self.position else 1.0
        return {name: factor * loss for name, loss in losses.items()}


def make(method, rates=(0.0625, 0.0625, 0.0625)):
    blocks = resnet(8, (8, 8, 3), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(5), method=method, seed=0)
    model.compile(
        [keras.optimizers.SGD(rate) for rate in rates],
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    return model


def equal(first, second, k):
    pairs = zip(
        first._trainer.steps.trainable_variables(k),
        second._trainer.steps.trainable_variables(k),
        strict=True,
    )
    return all(np.array_equal(one.numpy(), other.numpy()) for one, other in pairs)


def three_steps(model):
    model.fit(X, Y, batch_size=8, shuffle=False, epochs=2, steps_per_epoch=2, verbose=0)
    return model


def test_no_gradient_crosses_a_stage():
    model = make("trgl")
    others = {k: model._trainer.steps.trainable_variables(k) for k in range(3)}
    features = tf.constant(X)
    for k, step in enumerate(model._trainer.steps.steps):
        with tf.GradientTape(persistent=True) as tape:
            objective = step._forward((features, tf.constant(Y), None, None))[-1].objective
        for j, variables in others.items():
            gradients = tape.gradient(objective, variables)
            assert all((g is None) == (j != k) for g in gradients)
        features = step.train((features, tf.constant(Y), None, None))


def test_gradient_of_the_whole_chain_is_absent_for_earlier_stages():
    model = make("trgl")
    with tf.GradientTape() as tape:
        features = tf.constant(X)
        for step in model._trainer.steps.steps:
            features = step.train((features, tf.constant(Y), None, None))
    assert tape.gradient(features, model.stages[0].trainable_variables) == [None] * len(
        model.stages[0].trainable_variables
    )


@pytest.mark.parametrize("position", [1, 2])
def test_scaling_an_objective_leaves_earlier_stages_bit_equal(position):
    plain = three_steps(make(Scaled(position, 1.0)))
    scaled = three_steps(make(Scaled(position, 10.0)))
    assert [equal(plain, scaled, k) for k in range(position)] == [True] * position
    assert not equal(plain, scaled, position)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_scaling_an_objective_leaves_all_others_bit_equal_where_features_are_the_same(position):
    # The scaled stage steps as before if its rate is scaled back; by a power of two, exactly.
    rates = [0.0625] * 3
    rates[position] /= 8
    plain = three_steps(make(Scaled(position, 1.0)))
    scaled = three_steps(make(Scaled(position, 8.0), rates))
    assert [equal(plain, scaled, k) for k in range(3)] == [True] * 3


def test_first_step_of_later_stages_is_untouched_by_a_scaled_objective():
    plain, scaled = make(Scaled(0, 1.0)), make(Scaled(0, 10.0))
    for model in (plain, scaled):
        model.train_on_batch(X, Y)
    assert [equal(plain, scaled, k) for k in range(3)] == [False, True, True]
