"""Late gradients: the published schedule by hand, what waits, and who gets a sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.methods import DDG, TRGL, EndToEnd, FeaturesReplay
from keras_trgl.regimes import Buffered, MultiLap, Sequential

BOTH = {"ddg": DDG, "features_replay": FeaturesReplay}
RNG = np.random.default_rng(0)


@keras.saving.register_keras_serializable("tests")
class AtOnce(DDG):
    """DDG with nothing late."""

    def staleness(self, stage):
        return 0


@keras.saving.register_keras_serializable("tests")
class SquaredScale(keras.layers.Layer):
    """w²·x."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.built = True

    def call(self, x):
        return self.scale**2 * x

    def compute_output_shape(self, input_shape):
        return input_shape


class Watch(keras.callbacks.Callback):
    """Keeps the trained weights after every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([v.numpy() for v in self.model.trainable_variables])


BATCHES = [(1.0, 0.0), (2.0, 1.0), (1.0, 1.0), (0.5, 0.0)]
PUBLISHED = {
    # (w1, w2) after each batch: w1 = w2 = 1 at the start, plain SGD of rate 0.1.
    "end_to_end": [(0.8, 0.9), (0.756224, 0.880544), (0.822339, 0.908934), (0.799367, 0.898543)],
    "ddg": [(1, 0.9), (0.8, 0.74), (0.512, 0.77369), (0.574326, 0.77236)],
    "features_replay": [(1, 0.9), (0.8, 0.74), (0.5696, 0.77369), (0.613976, 0.771654)],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_stages_go_the_published_way(name):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    head = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    blocks = [SquaredScale(), keras.layers.Identity()]
    model = GreedyModel.from_blocks(blocks, [1, 1], [LinearHead(1), head], method=name)
    model.build((None, 1))
    model.compile(
        keras.optimizers.SGD(0.1),
        lambda y, f: 0.5 * keras.ops.mean(keras.ops.square(f - y), axis=-1),
    )
    x, y = np.array(BATCHES).T.reshape(2, 4, 1)
    watch = Watch()
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[watch])
    found = [(float(w1), w2.item()) for w1, w2 in watch.seen]
    np.testing.assert_allclose(found, PUBLISHED[name], atol=1e-6)


def gradients_of(weights, x, y):
    """Give what a linear net of len(weights) layers has, by hand: inputs, gradients, and δ's."""
    inputs = [x]
    for w in weights:
        inputs.append(inputs[-1] @ w)
    delta, found, deltas = 2 * (inputs[-1] - y) / y.size, [], []
    for h, w in zip(inputs[-2::-1], weights[::-1], strict=True):
        deltas.insert(0, delta)
        found.insert(0, h.T @ delta)
        delta = delta @ w.T
    return inputs, found, deltas


def by_hand(name, weights, batches, rate, momentum):
    """Train a linear net of three stages and a head by the published schedule, in NumPy.

    Returns:
        List of the weights after each batch.
    """
    late, steps = [2, 1, 0, 0], []
    speed = [np.zeros_like(w) for w in weights]
    old, deltas, seen = [], [], []
    for t, (x, y) in enumerate(batches):
        inputs, found, new = gradients_of(weights, x, y)
        old.append((inputs, found))
        gradients, sent = [], {}
        for k in (0, 1, 2, 3):
            b = t - late[k]
            if k > 1:
                gradients.append(found[k])
                sent[1] = new[1]
            elif b < 0:
                gradients.append(None)
            elif name == "ddg":
                gradients.append(old[b][1][k])
            else:
                h, delta = old[b][0][k], deltas[t - 1][k]
                gradients.append(h.T @ delta)
                sent[k - 1] = delta @ weights[k].T
        deltas.append(sent)
        for k, g in enumerate(gradients):
            if g is not None:
                speed[k] = momentum * speed[k] - rate * g
        moved = [g is not None for g in gradients]
        weights = [w + v if m else w for w, v, m in zip(weights, speed, moved, strict=True)]
        seen.append(weights)
        steps.append(moved)
    return seen


def linear(method, **options):
    blocks = [keras.layers.Dense(4, use_bias=False) for _ in range(3)]
    model = GreedyModel.from_blocks(
        blocks, [1, 1, 1], keras.layers.Dense(2, use_bias=False), method=method, seed=1, **options
    )
    model.build((None, 5))
    return model


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", BOTH)
def test_three_stages_follow_the_schedule_by_hand_over_epochs_and_short_batches(name, parts):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    x, y = RNG.normal(size=(10, 5)), RNG.normal(size=(10, 2))
    model = linear(name)
    model.compile(keras.optimizers.SGD(0.125, momentum=0.875), "mse", micro_batches=parts)
    start, watch = [v.numpy() for v in model.trainable_variables], Watch()
    logs = model.fit(
        x, y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[watch]
    ).history
    batches = [(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)] * 3
    wanted = by_hand(name, start, batches, 0.125, 0.875)
    for step, (found, right) in enumerate(zip(watch.seen, wanted, strict=True)):
        for k, (one, other) in enumerate(zip(found, right, strict=True)):
            np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=f"weight {k}, step {step}")
    # A stage that waits counts no iteration; epochs do not begin anew.
    assert [int(one.iterations) for one in model.optimizer.optimizers] == [7, 8, 9]
    assert logs["stage_1_staleness"] == [2, 2, 2]
    assert logs["stage_2_staleness"] == [1, 1, 1]
    assert not {"stage_3_staleness", "stage_1_objective", "stage_2_loss"} & set(logs)
