"""Sums inside custom layers: found, and their energies right in value and gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.network.from_model import split_model

pytestmark = pytest.mark.sampled(2)

WIDTH, LENGTH = 8, 5


@keras.saving.register_keras_serializable("tests")
class Attention(layers.Layer):
    """Normalization and self-attention: the branch of a residual block."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.norm = layers.LayerNormalization(dtype=policy)
        self.attention = layers.MultiHeadAttention(2, WIDTH // 2, dtype=policy)

    def build(self, shape):
        self.norm.build(shape)
        self.attention.build(shape, shape)

    def call(self, x, training=None):
        x = self.norm(x)
        return self.attention(x, x, training=training)


def mlp(dtype=None):
    return [
        layers.LayerNormalization(dtype=dtype),
        layers.Dense(2 * WIDTH, activation="gelu", dtype=dtype),
        layers.Dense(WIDTH, dtype=dtype),
    ]


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A transformer block as people write it, its sums in `call`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.rest = Attention(dtype=self.dtype_policy), mlp(self.dtype_policy)

    def build(self, shape):
        self.first.build(shape)
        for layer in self.rest:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, x, training=None):
        x = x + self.first(x, training=training)
        r = x
        for layer in self.rest:
            r = layer(r)
        return x + r


def stacked(make, num_blocks=4):
    inputs = keras.Input((LENGTH, WIDTH))
    x = inputs
    for k in range(num_blocks):
        for block in make(k):
            x = block(x)
    return keras.Model(inputs, x)


def custom(dtype=None):
    return stacked(lambda k: [Block(name=f"block_{k}", dtype=dtype)])


def written(dtype=None):
    return stacked(
        lambda k: [
            ResidualBlock([Attention(dtype=dtype)], name=f"attention_{k}", dtype=dtype),
            ResidualBlock(mlp(dtype), name=f"mlp_{k}", dtype=dtype),
        ]
    )


def pair(dtype=None):
    """Give the same network, with sums in custom layers and by `ResidualBlock`."""
    keras.utils.set_random_seed(0)
    one, other = custom(dtype), written(dtype)
    other.set_weights(one.get_weights())
    return one, other


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, LENGTH, WIDTH)).astype("float32")


def energies_and_gradients(model, x, traced, cuts=2):
    """Give energies, features and gradients of the objective by every weight of the model."""
    stages = split_model(model, cuts).stages
    units = [unit for stage in stages for unit in stage.residual_units]

    def run(x):
        with tf.GradientTape() as tape:
            for unit in units:
                unit._record(True)
            features = x
            for stage in stages:
                features = stage.blocks[0](features, training=True)
            energies = [unit.energy() for unit in units]
            for unit in units:
                unit._record(False)
            objective = tf.reduce_mean(tf.cast(features, "float32") ** 2) + 0.1 * sum(energies)
        return features, energies, tape.gradient(objective, [w.value for w in weights])

    weights = list(model.trainable_weights)
    return (tf.function(run, autograph=False) if traced else run)(tf.constant(x))


@pytest.mark.parametrize("dtype", [None, "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("traced", [False, True])
def test_energies_and_gradients_are_those_of_residual_blocks(traced, dtype):
    one, other = pair(dtype)
    mine = energies_and_gradients(one, data(), traced)
    theirs = energies_and_gradients(other, data(), traced, cuts=4)
    assert len(mine[1]) == len(theirs[1]) == 8
    np.testing.assert_array_equal(mine[0], theirs[0])
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-6)
    for a, b in zip(mine[2], theirs[2], strict=True):
        scale = float(np.abs(b).max()) + 1e-3
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * scale)


@keras.saving.register_keras_serializable("tests")
class Activated(layers.Layer):
    """A sum with an activation after it, which keeps neither sum nor residual."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(WIDTH)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return keras.ops.relu(x + self.inner(x))


@pytest.mark.parametrize("traced", [False, True])
def test_sums_before_an_activation_have_the_right_energy_too(traced):
    one = stacked(lambda k: [Activated()])
    other = stacked(lambda k: [ResidualBlock([layers.Dense(WIDTH)], activation="relu")])
    other.set_weights(one.get_weights())
    mine, theirs = (energies_and_gradients(model, data(), traced) for model in (one, other))
    np.testing.assert_array_equal(mine[0], theirs[0])
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-6)
    for a, b in zip(mine[2], theirs[2], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def fitted(model, cuts, eager=False):
    network = GreedyModel.from_model(model, cuts, head=LinearHead(3), seed=0)
    network.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=eager,
    )
    x, y = np.concatenate([data()] * 3), np.arange(18) % 3
    return network, network.fit(x, y, batch_size=6, shuffle=False, verbose=0, epochs=2).history


@pytest.mark.sampled(1)
@pytest.mark.parametrize("eager", [False, True])
def test_training_is_that_of_residual_blocks(eager):
    one, other = pair()
    network, logs = fitted(one, 2, eager)
    _, expected = fitted(other, 2, eager)
    assert [row.residuals for row in network.cut_table()] == [4, 4]
    for key in ("stage_1_energy", "stage_2_energy", "stage_2_loss"):
        np.testing.assert_allclose(logs[key], expected[key], rtol=1e-5)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("eager", [False, True])
def test_a_single_example_trains(eager):
    inputs = keras.Input((4,))
    x = inputs
    for _ in range(2):
        x = layers.Add()([x, layers.Dense(4)(x)])
    network = GreedyModel.from_model(keras.Model(inputs, x), 2, head=LinearHead(3), seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("sgd", loss, run_eagerly=eager)
    example, stage = np.ones((1, 4), "float32"), network.stages[0]
    expected = np.mean((keras.ops.convert_to_numpy(stage(example, training=False)) - example) ** 2)
    logs = network.train_on_batch(example, np.array([1]), return_dict=True)
    np.testing.assert_allclose(logs["stage_1_energy"], expected, rtol=1e-5)


def test_a_hidden_sum_is_named_by_its_layer_and_number():
    stages = split_model(custom(), 2, residuals={"block_1.2": None}).stages
    names = [unit.name for stage in stages for unit in stage.residual_units]
    assert names == [*(f"block_{k}.{n}" for k in range(4) for n in (1, 2) if (k, n) != (1, 2))]
    with pytest.raises(ValueError, match=r"names? sums of the model: block_0.1.*Received: block_9"):
        split_model(custom(), 2, residuals={"block_9": None})


@pytest.mark.parametrize("names", [["block_0"], ["block_0", "block_2"]])
def test_cuts_are_named_or_sized(names):
    sizes = {1: [1, 3], 2: [1, 2, 1]}[len(names)]
    tables = [split_model(custom(), cuts).table for cuts in (names, sizes)]
    assert tables[0] == tables[1]
    assert [row.last for row in tables[0]][:-1] == names


def test_saved_models_are_cut_again(tmp_path):
    network, _ = fitted(custom(), 2)
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.cut_table() == network.cut_table()
    x = data()
    np.testing.assert_array_equal(again.predict(x, verbose=0), network.predict(x, verbose=0))
    for a, b in zip(again.to_keras().get_weights(), network.to_keras().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    logs = [
        one.fit(x, np.arange(6) % 3, shuffle=False, verbose=0).history for one in (network, again)
    ]
    assert logs[0] == logs[1]


class Gelu(layers.Layer):
    def call(self, x):
        return x + 0.04 * x**3


class InFunction(layers.Layer):
    """Adds inside a traced function, where the sum is not seen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(WIDTH)

    def build(self, shape):
        self.inner.build(shape)

    @tf.function
    def added(self, x):
        return x + self.inner(x)

    def call(self, x):
        return self.added(x)

    def compute_output_shape(self, shape):
        return shape


def test_a_sum_without_weights_on_its_way_is_none():
    inputs = keras.Input((LENGTH, WIDTH))
    model = keras.Model(inputs, layers.Dense(WIDTH)(Gelu()(layers.Dense(WIDTH)(inputs))))
    assert split_model(model, 1).stages[0].residual_units == []


def test_sums_in_traced_functions_are_told_of():
    inputs = keras.Input((LENGTH, WIDTH))
    model = keras.Model(inputs, InFunction(name="hidden")(layers.Dense(WIDTH)(inputs)))
    with pytest.warns(UserWarning, match=r"Sums inside `tf.function`.*with one, hidden\."):
        split_model(model, 1)


class Changing(layers.Layer):
    """Adds another time from when `more` is set."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.more = layers.Dense(WIDTH), False

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        x = x + self.inner(x)
        return x + self.inner(x) if self.more else x


def test_other_sums_than_the_tables_are_refused_at_the_next_trace():
    inputs = keras.Input((LENGTH, WIDTH))
    layer = Changing(name="changing")
    network = GreedyModel.from_model(
        keras.Model(inputs, layer(inputs)), 1, head=LinearHead(3), seed=0
    )
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    layer.more = True
    with pytest.raises(RuntimeError, match=r"those of `cut_table\(\)`.*others in changing"):
        network.fit(data(), np.arange(6) % 3, verbose=0)


def test_a_sum_of_attention_scores_is_none():
    class Biased(layers.Layer):
        def build(self, shape):
            self.q, self.k, self.b = (layers.Dense(LENGTH) for _ in range(3))
            for one in (self.q, self.k, self.b):
                one.build(shape)

        def call(self, x):
            scores = self.q(x)
            return keras.ops.matmul(keras.ops.softmax(scores + self.k(scores @ x), axis=-1), x)

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((LENGTH, WIDTH))
    model = keras.Model(inputs, layers.Dense(WIDTH)(Biased()(inputs)))
    assert split_model(model, 1).stages[0].residual_units == []
