"""Searches for stages: planted groupings, gradients at a corner, refusals, determinism."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead, SedonaHead
from keras_trgl.search import Grouping, Halving, Relaxed, sedona
from keras_trgl.search.grouping import groupings
from keras_trgl.search.relaxed import RelaxedNetwork, mixture_of
from keras_trgl.splitting import published


@keras.saving.register_keras_serializable("test_sedona")
class Square(keras.layers.Layer):
    """Makes a linear head see what has no sign."""

    def call(self, inputs):
        return keras.ops.square(inputs)


@keras.saving.register_keras_serializable("test_sedona")
class Wall(keras.layers.Layer):
    """What is before it learns slowly from what is after it: little gradient gets through.

    With `scales` it is the values that get small, so that derivatives are what they seem.
    """

    def __init__(self, scales, **kwargs):
        super().__init__(**kwargs)
        self.scales = scales

    def call(self, inputs):
        if self.scales:
            return 0.1 * inputs
        return 1e-6 * inputs + keras.ops.stop_gradient((1 - 1e-6) * inputs)


@keras.saving.register_keras_serializable("test_sedona")
class Mute(LinearHead):
    """A head that teaches its stage next to nothing."""

    def call(self, features):
        return super().call(1e-6 * features)


def planted(scales=False):
    """Units of which the first learns only if the cut is after the second.

    The classes are told by the size of one of three numbers, which is mixed with the others in the
    first unit unless that learns; its own output has a sign, so a linear head reads nothing there.
    """
    dense = keras.layers.Dense(1, kernel_initializer="ones")
    return [dense, Square(), Wall(scales), keras.layers.Dense(4)]


def planted_data(count=512):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype("float32")
    return x, (np.abs(x[:, 2]) > 0.67).astype("int64")


HEADS = [Mute(2, name="mute"), LinearHead(2, name="linear")]
STRATEGIES = {
    "halving": Halving(steps=40, learning_rate=0.05),
    "relaxed": Relaxed(40, 5, 20, 4, learning_rate=0.2, search_rate=0.1),
}


def found_by(strategy, seed=0):
    blocks = planted(scales=isinstance(strategy, Relaxed))
    return sedona(blocks, *planted_data(), 2, LinearHead(2), HEADS, strategy, seed=seed, verbose=0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_planted_split_and_head_are_found(name):
    found = found_by(STRATEGIES[name])
    assert (found.stage_sizes, found.choices) == ((2, 2), (1,))
    assert [type(head) for head in found.heads] == [LinearHead, LinearHead]
    model = trgl.GreedyModel.from_blocks(
        planted(), found.stage_sizes, found.heads, method="vangl", seed=0
    )
    assert model.num_stages == 2
    assert len(repr(found)) < 100
    if name == "halving":
        # Three cuts with two heads each: six, three, two, and one is left.
        assert len(found.tried) == 6 + 3 + 2
        assert len(found.table.splitlines()) == 12
        assert found.held_out_loss == min(one.held_out_loss for one in found.tried[-2:])
    else:
        assert max(found.strengths) == found.strengths[1]
        assert found == found_by(STRATEGIES[name])


@pytest.mark.long
def test_halving_finds_the_same_under_a_seed():
    assert found_by(STRATEGIES["halving"]) == found_by(STRATEGIES["halving"])


def small_network():
    blocks = [keras.layers.Dense(4, activation="tanh") for _ in range(3)]
    heads = [LinearHead(3), LinearHead(3)]
    return RelaxedNetwork(blocks, LinearHead(3), heads, 0.1, (5,), seed=0)


def batch():
    rng = np.random.default_rng(1)
    return tf.constant(rng.normal(size=(8, 5)), "float32"), tf.constant(rng.integers(0, 3, 8))


def test_relaxed_gradients_at_a_corner_are_those_of_stages():
    """Cut after unit 2 by its second head, kept after unit 1."""
    network, (x, y) = small_network(), batch()
    weights, kept = network.start()
    cuts, heads = tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.constant([[1.0, 0.0], [0.0, 1.0]])
    found, _ = network.gradients(weights, kept, (cuts, heads), x, y)
    stages, last = network.model.stages, network.model.heads[-1]
    side = network.model.heads[1].heads[1]

    def task(logits):
        loss = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
        return tf.reduce_mean(loss)

    with tf.GradientTape(persistent=True) as tape:
        features = stages[1](stages[0](x))
        first = task(side(features))
        second = task(last(stages[2](tf.stop_gradient(features))))
    for k, loss in enumerate([first, first, second]):
        wanted = tape.gradient(loss, [v.value for v in stages[k].trainable_variables])
        np.testing.assert_allclose(found[k][0], wanted[0], atol=1e-6)
        np.testing.assert_allclose(found[k][1], wanted[1], atol=1e-6)
    # Heads learn unweighed: at the first boundary too, which is kept.
    assert all(np.abs(one).max() > 0 for one in found[3][:2])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["dense", "resnet"])
def test_the_gradient_of_the_search_is_that_of_finite_differences(kind):
    keras.config.set_floatx("float64")
    rng = np.random.default_rng(1)
    if kind == "dense":
        blocks, shape, head = [keras.layers.Dense(4, activation="tanh") for _ in range(3)], (5,), 3
    else:
        blocks, shape, head = resnet(8, (4, 4, 1), widths=(4, 4, 4), gain=1.0), (4, 4, 1), 3
    network = RelaxedNetwork(
        blocks, LinearHead(head), [LinearHead(3), LinearHead(3)], 0.002, shape, seed=0
    )
    x = tf.constant(rng.normal(size=(8, *shape)))
    y = tf.constant(rng.integers(0, 3, 8))
    alpha, beta = tf.constant(rng.normal(size=(2, 2))), tf.constant(rng.normal(size=(2, 2)))

    def judged(alpha, beta):
        values = network.start()
        for _ in range(2):
            values = network.step(*values, mixture_of(alpha, beta), x, y)
        return network.judge(*values, x, y)

    with tf.GradientTape() as tape:
        tape.watch([alpha, beta])
        loss = judged(alpha, beta)
    gradients = tape.gradient(loss, [alpha, beta], unconnected_gradients="zero")
    for place, direction in ((0, rng.normal(size=(2, 2))), (1, rng.normal(size=(2, 2)))):
        shift = [1e-4 * direction * (k == place) for k in range(2)]
        up = judged(alpha + shift[0], beta + shift[1])
        down = judged(alpha - shift[0], beta - shift[1])
        wanted = float(up - down) / 2e-4
        assert float(tf.reduce_sum(gradients[place] * direction)) == pytest.approx(
            wanted, rel=1e-2, abs=1e-9
        )


@pytest.mark.long
def test_normalization_by_the_fused_kernel_has_the_second_gradient_of_keras_own():
    found = []
    rng = np.random.default_rng(1)
    x, y = tf.constant(rng.normal(size=(32, 4, 4, 1)), "float32"), tf.constant(np.arange(32) % 3)
    for normalization in (trgl.layers.BatchNormalization, keras.layers.BatchNormalization):
        blocks = resnet(8, (4, 4, 1), (4, 4, 4), gain=1.0, normalization=normalization)
        network = RelaxedNetwork(blocks, LinearHead(3), [LinearHead(3)], 0.01, (4, 4, 1), seed=0)
        alpha = tf.zeros((2, 2))
        with tf.GradientTape() as tape:
            tape.watch(alpha)
            values = network.start()
            for _ in range(2):
                values = network.step(*values, mixture_of(alpha, tf.zeros((2, 1))), x, y)
            loss = network.judge(*values, x, y)
        found.append(tape.gradient(loss, alpha).numpy())
    assert np.abs(found[1]).max() > 1e-5
    np.testing.assert_allclose(found[0], found[1], rtol=1e-2, atol=1e-6)


def test_groupings_are_all_cuts_of_the_grid_with_all_heads():
    assert groupings(4, 2, 1, 1) == [((1, 3), (0,)), ((2, 2), (0,)), ((3, 1), (0,))]
    assert len(groupings(9, 3, 2, 2)) == 6 * 4
    assert groupings(3, 3, 1, 2) == []


@pytest.mark.parametrize("network", ["vgg19", "resnet50", "resnet101", "resnet152"])
def test_published_heads_go_with_the_published_sizes(network):
    for num_stages in (2, 3, 4):
        heads = SedonaHead.published(network, num_stages, units=10, width=512)
        assert len(heads) == len(published(f"sedona_{network}", num_stages)) - 1
        first = heads[0]
        assert (first.depth, first.units, first.width) == (4, 10, 512)
    assert [one.depth for one in SedonaHead.published("vgg19", 4, 10)] == [4, 1, 1]


X, Y = planted_data(32)
REFUSED = {
    "one stage": (lambda: sedona(planted(), X, Y, 1, LinearHead(2)), "no cut to search for"),
    "five stages": (lambda: sedona(planted(), X, Y, 5, LinearHead(2)), "number of blocks, 4"),
    "one-hot": (lambda: sedona(planted(), X, np.eye(2)[Y], 2, LinearHead(2)), r"`y.argmax\(-1\)`"),
    "fewer labels": (lambda: sedona(planted(), X, Y[:9], 2, LinearHead(2)), "32 examples"),
    "no heads": (lambda: sedona(planted(), X, Y, 2, LinearHead(2), []), "at least one head"),
    "no units": (lambda: sedona(planted(), X, Y, 2, keras.layers.Flatten()), "Give `heads`"),
    "a coarse grid": (
        lambda: sedona(planted(), X, Y, 2, LinearHead(2), HEADS, Halving(every=4)),
        "`every` must leave places for 1 cuts",
    ),
    "another word": (
        lambda: sedona(planted(), X, Y, 2, LinearHead(2), HEADS, "random"),
        "`strategy` must be one of 'halving', 'relaxed'",
    ),
    "a share": (lambda: Halving(held_out=1.0), "`held_out` must be below 1"),
    "nothing held out": (
        lambda: sedona(planted(), X, Y, 2, LinearHead(2), HEADS, Halving(held_out=0.01)),
        "must hold out at least one example",
    ),
    "no step": (lambda: Relaxed(inner_steps=0), "`inner_steps` must be at least 1"),
    "a rate of 0": (lambda: Halving(learning_rate=0.0), "`learning_rate` must be above 0"),
    "another network": (lambda: SedonaHead.published("resnet18", 2, 10), "`network` must be one"),
    "another K": (lambda: SedonaHead.published("vgg19", 5, 10), "`num_stages` must be one of"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_searched_is_refused_in_a_sentence(what):
    call, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        call()


def test_another_kind_of_strategy_or_blocks_is_refused():
    with pytest.raises(TypeError, match="`strategy` must be a `Halving` or a `Relaxed`"):
        sedona(planted(), X, Y, 2, LinearHead(2), HEADS, 3)
    with pytest.raises(TypeError, match="`blocks` must be a list of layers"):
        sedona(keras.Sequential([]), X, Y, 2, LinearHead(2))
    with pytest.raises(TypeError, match="`steps` must be an integer"):
        Halving(steps=1.5)


def test_a_grouping_gives_new_heads_each_time():
    found = Grouping((1, 1), (0,), 0.5, (), (), (HEADS[1], LinearHead(2)))
    first, second = found.heads, found.heads
    assert first[0] is not second[0]
    assert first[0].name != first[1].name
