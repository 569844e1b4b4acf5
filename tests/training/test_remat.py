"""With `remat` losses, gradients and states are those without it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.layers import BatchNormalization, ResidualBlock
from keras_trgl.layers.stage import run_blocks
from keras_trgl.network.from_model import split_model
from keras_trgl.training.remat import Remat, rematerialized

pytestmark = pytest.mark.sampled(2)

layers = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(20, 8, 8, 3)).astype("float32")
Y = rng.integers(0, 3, 20)
TOKENS = rng.integers(1, 9, (20, 5)) * (np.arange(5) < rng.integers(1, 6, (20, 1)))


def conv():
    return layers.Conv2D(4, 3, padding="same", use_bias=False)


def closed_form():
    """Energies from batch normalization, with an activation after the sum."""
    branch = lambda: [conv(), BatchNormalization(), layers.Dropout(0.3), conv()]  # noqa: E731
    ends = [ResidualBlock([*branch(), BatchNormalization()], activation="relu") for _ in range(3)]
    return [conv(), *ends]


def found_again():
    """Energies by `add_with_energy`: nothing follows the sum."""
    return [conv(), *[ResidualBlock([layers.ReLU(), conv()]) for _ in range(3)]]


def direct():
    """Energies of residuals that are kept."""
    return [conv(), *[ResidualBlock([conv()], activation="relu") for _ in range(3)]]


class Draws(layers.Layer):
    """Noise from a generator that others draw from too."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def call(self, x):
        return x * keras.random.uniform(keras.ops.shape(x), 0.5, 1.5, seed=self.generator)


def shared_seed():
    """Layers that draw from one generator."""
    generator = keras.random.SeedGenerator(3)
    return [conv(), *[keras.Sequential([conv(), Draws(generator)]) for _ in range(3)]]


def functional():
    inputs = keras.Input((8, 8, 3))
    x = conv()(inputs)
    x = layers.Add()([x, layers.BatchNormalization()(conv()(x))])
    return [keras.Model(inputs, x), *found_again()[1:]]


def masked():
    return [
        layers.Embedding(9, 4, mask_zero=True),
        *[layers.GRU(4, return_sequences=True) for _ in range(3)],
    ]


def brought(ends):
    """Give a model whose blocks end in some way, to be cut."""
    x = inputs = keras.Input((8, 8, 3))
    x = conv()(x)
    for k in range(4):
        r = layers.BatchNormalization(name=f"norm_{k}")(x)
        x = ends(x, conv()(layers.Dropout(0.3)(layers.ReLU()(r))))
    return keras.Model(inputs, x)


def brought_cnn():
    """A model with activations after its sums, and batch statistics."""
    return brought(lambda x, r: layers.ReLU()(layers.Add()([x, r])))


def brought_chain():
    """Residuals of two terms, f + g."""
    return brought(lambda x, r: x + r + conv()(layers.ReLU()(x)))


def brought_plain():
    """A model without sums, for `distance`."""
    return brought(lambda x, r: r)


def brought_twice():
    """A layer with weights and one that draws, both called in every unit."""
    shared, drops = conv(), layers.Dropout(0.3)
    return brought(lambda x, r: x + shared(drops(r)))


@keras.saving.register_keras_serializable("tests")
class Encoder(layers.Layer):
    """A transformer block as people write it: sums and dropout inside, masks handed on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.attention = layers.MultiHeadAttention(2, 2, dropout=0.2)
        self.dense = [layers.Dense(8, activation="gelu"), layers.Dense(4), layers.Dropout(0.3)]

    def build(self, shape):
        self.norms[0].build(shape)
        self.attention.build(shape, shape)
        self.norms[1].build(shape)
        self.dense[0].build(shape)
        self.dense[1].build((*shape[:-1], 8))

    def call(self, x, training=None, mask=None):
        r = self.norms[0](x)
        both = None if mask is None else mask[:, None, :]
        x = x + self.attention(r, r, attention_mask=both, training=training)
        r = self.norms[1](x)
        for layer in self.dense[:2]:
            r = layer(r)
        return x + self.dense[2](r, training=training)


def brought_transformer():
    """Sums, dropout and masks inside custom layers, on token ids: the mask crosses every unit."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    for k in range(2):
        x = Encoder(name=f"encoder_{k}")(x)
    return keras.Model(inputs, x)


def trained(make, remat, data=(X, Y), **options):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(options.pop("policy", "float32"))
    blocks = make()
    regime = options.pop("regime", "parallel")
    method = trgl.methods.VanGL() if make in (masked, shared_seed) else trgl.methods.TRGL(tau=0.1)
    settings = {"method": method, "regime": regime, "seed": 0, **options.pop("settings", {})}
    if isinstance(blocks, keras.Model):
        give, cuts = trgl.GreedyModel.from_model, options.pop("cuts", 1)
    else:
        give, cuts = trgl.GreedyModel.from_blocks, options.pop("sizes", [len(blocks)])
    model = give(blocks, cuts, trgl.heads.LinearHead(3), **settings)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        remat=remat,
        **options,
    )
    history = model.fit(*data, batch_size=8, epochs=2, verbose=0).history
    return history, [v for group in model.state_variables().values() for v in group]


CASES = {
    "closed form": lambda: (closed_form, {}),
    "found again": lambda: (found_again, {}),
    "direct": lambda: (direct, {}),
    "one generator": lambda: (shared_seed, {}),
    "functional": lambda: (functional, {}),
    "masks": lambda: (masked, {"data": (TOKENS, Y)}),
    "eager": lambda: (closed_form, {"run_eagerly": True}),
    "in parts": lambda: (closed_form, {"micro_batches": 3}),
    "brought transformer": lambda: (brought_transformer, {"data": (TOKENS, Y)}),
    "two stages, buffered": lambda: (
        closed_form,
        {"sizes": [2, 2], "regime": trgl.regimes.Buffered(capacity=1)},
    ),
    "brought CNN": lambda: (brought_cnn, {}),
    "brought CNN, eager": lambda: (brought_cnn, {"run_eagerly": True}),
    "brought CNN, two stages": lambda: (brought_cnn, {"cuts": 2}),
    "brought CNN, copied": lambda: (brought_cnn, {"settings": {"share": False}}),
    "brought CNN, in parts": lambda: (brought_cnn, {"micro_batches": 3}),
    "brought chains": lambda: (brought_chain, {}),
    "brought distances": lambda: (brought_plain, {"settings": {"on_no_residual": "distance"}}),
    "brought, layers called twice": lambda: (brought_twice, {}),
    "brought, mixed_float16": lambda: (brought_cnn, {"policy": "mixed_float16"}),
    "mixed_float16": lambda: (found_again, {"policy": "mixed_float16"}),
    "mixed_bfloat16": lambda: (closed_form, {"policy": "mixed_bfloat16"}),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("case", "remat"),
    [(one, 2) for one in ("closed form", "brought CNN", "brought transformer")]
    + [("closed form", 3), *((one, True) for one in CASES)],
)
def test_losses_and_states_are_those_without(case, remat):
    make, options = CASES[case]()
    (found, states), (wanted, plain) = (trained(make, on, **options) for on in (remat, False))
    near = {"rtol": 1e-5, "atol": 1e-6} if "mixed" not in case else {"rtol": 2e-2, "atol": 2e-2}
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, err_msg=name, **near)
    for one, other in zip(states, plain, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), err_msg=one.name, **near)


def gradients(wrap):
    """Give loss, gradients and states of layers that draw and normalize."""
    keras.utils.set_random_seed(0)
    row = [layers.BatchNormalization(momentum=0.9), layers.Dropout(0.5, seed=1)]
    for layer in row:
        layer.build((None, 6))
    weights = [v.value for layer in row for v in layer.trainable_variables]
    states = [v for layer in row for v in layer.variables if not v.trainable]

    def call(x):
        for layer in row:
            x = layer(x, training=True)
        return x, tf.reduce_mean(x**2)

    x = tf.constant(rng.normal(size=(16, 6)), "float32")
    with tf.GradientTape() as tape:
        features, energy = wrap(call, states)(x)
        loss = tf.reduce_mean(features**3) + energy
    return [loss, *tape.gradient(loss, weights)], [v.numpy() for v in states]


def test_gradients_reach_what_is_picked_and_keras_alone_gives_others():
    global rng
    results = {}
    wraps = {"plain": lambda call, states: call, "ours": rematerialized}
    wraps["keras"] = lambda call, states: keras.remat(call)
    for name, wrap in wraps.items():
        rng = np.random.default_rng(1)
        results[name] = gradients(wrap)
    for one, other in zip(results["ours"][0], results["plain"][0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    for one, other in zip(results["ours"][1], results["plain"][1], strict=True):
        np.testing.assert_array_equal(one, other)
    # Should Keras do this itself one day, `rematerialized` can go.
    same = [
        np.allclose(one, other)
        for one, other in zip(results["keras"][1], results["plain"][1], strict=True)
    ]
    assert not all(same)


class Adds(layers.Layer):
    """Adds a loss when it is called."""

    def call(self, x):
        self.add_loss(keras.ops.mean(x**2))
        return x


def test_a_loss_that_a_call_adds_is_refused_by_name():
    with pytest.raises(ValueError, match="block adds, which adds one"):
        trained(lambda: [Adds(name="adds"), *found_again()], True)


@pytest.mark.filterwarnings("ignore:TRGL")
def test_stages_of_one_block_are_told_that_nothing_is_saved():
    with pytest.warns(UserWarning, match="where it saves nothing"):
        trained(found_again, True, sizes=[1, 1, 1, 1])


@pytest.mark.parametrize(
    ("remat", "kind", "said"),
    [(0, ValueError, "`remat` must be at least 1"), ("all", TypeError, "`remat` must be an int")],
)
def test_another_length_is_refused(remat, kind, said):
    with pytest.raises(kind, match=said):
        trained(found_again, remat)


@pytest.mark.parametrize(
    "make", [found_again, lambda: split_model(brought_cnn(), 1).stages[0].blocks]
)
def test_fewer_tensors_are_read_by_the_backward_pass(make):
    """The blocks' inner tensors are made anew: nothing but their inputs is kept."""
    keras.utils.set_random_seed(0)
    blocks = make()
    x = tf.constant(X)
    run_blocks(blocks, x, None)
    weights = [v.value for block in blocks for v in block.trainable_variables]

    def kept(run):
        @tf.function(autograph=False)
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(run(blocks, x, None)[0] ** 2)
            before = {op.name for op in x.graph.get_operations()}
            step.before = before
            return tape.gradient(loss, weights)

        graph = step.get_concrete_function(tf.TensorSpec((4, 8, 8, 3))).graph
        read = set()
        for op in graph.get_operations():
            if op.name not in step.before:
                read |= {
                    t.name for t in op.inputs if t.op.name in step.before and t.shape.rank == 4
                }
        return len(read)

    assert kept(Remat(1)) < kept(run_blocks)
