"""The fused batch normalization against Keras's own and against the formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.layers import BatchNormalization

EPSILON = 1e-5


def make(x, gamma, beta, dtype="float32"):
    layer = BatchNormalization(momentum=0.9, epsilon=EPSILON, dtype=dtype)
    layer.build(x.shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    return layer


def values(channels, deviation, seed=0, shape=(4, 6, 6)):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.3, 1.0, (*shape, channels)) * deviation
    gamma, beta = rng.normal(1.0, 0.5, channels), rng.normal(0.0, 0.5, channels)
    return x, gamma, beta


def reference(x, gamma, beta, upstream, weight):
    """Value and gradients in float64 of mean(r²) · weight + <r, upstream>, by the formulas."""
    x, gamma, beta, upstream = (tf.constant(a, tf.float64) for a in (x, gamma, beta, upstream))
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        r = (x - mean) / tf.sqrt(variance + EPSILON) * gamma + beta
        energy = tf.reduce_mean(r**2)
        total = energy * weight + tf.reduce_sum(r * upstream)
    return energy.numpy(), [g.numpy() for g in tape.gradient(total, [x, gamma, beta])]


# Deviations of 1e-3 … 1e-2 are variances of 1e-6 … 1e-4, where ε = 1e-5 is no bystander.
@pytest.mark.parametrize("deviation", [1.0, 1e-1, 1e-2, 3e-3, 1e-3])
@pytest.mark.parametrize("upstream_size", [0.0, 1e-3])
def test_energy_and_every_gradient_are_those_of_the_direct_formula(deviation, upstream_size):
    x, gamma, beta = values(5, deviation)
    upstream = np.random.default_rng(1).normal(size=x.shape) * upstream_size
    layer = make(x, gamma, beta)
    data = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(data)
        layer.record(True)
        r = layer(data, training=True)
        energy = layer.mean_square
        total = energy * 0.7 + tf.reduce_sum(r * tf.constant(upstream, tf.float32))
        layer.record(False)
    gradients = tape.gradient(total, [data, layer.gamma, layer.beta])
    expected, expected_gradients = reference(
        np.float32(x), np.float32(gamma), np.float32(beta), upstream, 0.7
    )
    np.testing.assert_allclose(energy, expected, rtol=2e-5)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


def test_gradient_through_the_variance_is_not_lost_near_epsilon():
    x, gamma, beta = values(3, 3e-3)
    layer = make(x, gamma, beta)
    data = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(data)
        layer.record(True)
        layer(data, training=True)
        energy = layer.mean_square
        layer.record(False)
    assert np.abs(tape.gradient(energy, data)).max() > 0.1


def test_recorded_and_plain_outputs_are_equal():
    x, gamma, beta = values(4, 1.0)
    x = np.float32(x)
    plain = make(x, gamma, beta)(x, training=True)
    layer = make(x, gamma, beta)
    layer.record(True)
    np.testing.assert_array_equal(plain, layer(x, training=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_give_the_energy_in_float32(dtype):
    x, gamma, beta = values(4, 1.0)
    layer = make(x, gamma, beta, dtype=f"mixed_{dtype}")
    layer.record(True)
    r = layer(tf.cast(x, dtype), training=True)
    assert r.dtype == dtype
    assert layer.mean_square.dtype == tf.float32
    np.testing.assert_allclose(
        layer.mean_square, np.mean(np.square(np.float64(tf.cast(r, tf.float64)))), rtol=2e-2
    )


def test_no_closed_form_in_inference_mode_when_frozen_or_in_float64():
    x, gamma, beta = values(4, 1.0)
    layer = make(x, gamma, beta)
    layer.record(True)
    layer(np.float32(x), training=False)
    assert layer.mean_square is None
    layer.trainable = False
    layer(np.float32(x), training=True)
    assert layer.mean_square is None
    precise = make(x, gamma, beta, dtype="float64")
    precise.record(True)
    precise(x, training=True)
    assert precise.mean_square is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_outputs_and_statistics_are_those_of_keras(training, options):
    x = np.float32(values(6, 2.0)[0])
    ours = BatchNormalization(momentum=0.9, epsilon=EPSILON, **options)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, **options)
    for _ in range(3):
        got, wanted = ours(x, training=training), theirs(x, training=training)
    np.testing.assert_allclose(got, wanted, atol=2e-6)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)


def test_moving_variance_is_the_biased_one():
    x = np.array([1.0, 2.0, 4.0, 7.0], "float32").reshape(4, 1, 1, 1)
    layer = BatchNormalization(momentum=0.9, epsilon=EPSILON)
    layer(x, training=True)
    # methods: biased variance 5.25, so 0.9 · 1 + 0.1 · 5.25.
    np.testing.assert_allclose(layer.moving_variance, [1.425], rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3), (2, 4, 4, 4, 3)])
def test_other_ranks_take_keras_own_path(shape):
    x = np.float32(np.random.default_rng(0).normal(size=shape))
    ours, theirs = BatchNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-6)


def test_the_layer_is_saved_and_loaded(tmp_path):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, BatchNormalization()(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[1], BatchNormalization)


BEFORE = {
    "conv": lambda: keras.layers.Conv2D(3, 3, use_bias=False),
    "conv_with_bias": lambda: keras.layers.Conv2D(3, 3),
    "depthwise": lambda: keras.layers.DepthwiseConv2D(3, use_bias=False),
    "padded_conv": lambda: keras.Sequential(
        [keras.layers.ZeroPadding2D(1), keras.layers.Conv2D(3, 3, use_bias=False)]
    ),
    "separable": lambda: keras.layers.SeparableConv2D(3, 3, use_bias=False),
    "dense": lambda: keras.layers.Dense(3),
}
AFTER = [
    "relu",
    "relu6",
    "elu",
    "leaky_relu",
    "tanh",
    "sigmoid",
    "mish",
    "gelu",
    "silu",
    "softplus",
]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("before", BEFORE)
def test_whatever_comes_around_it_a_graph_gives_what_eager_calls_give(before, policy):
    """The graph optimizer fuses some of these, and not all that it fuses exists."""
    keras.config.set_dtype_policy(policy)
    first, layer = BEFORE[before](), BatchNormalization()
    after = [keras.layers.Activation(name) for name in AFTER]
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")

    def call(images):
        features = layer(first(images), training=False)
        return [activation(features) for activation in after]

    call(x)
    layer.moving_mean.assign([0.1, -0.2, 0.3])
    bound = 1e-5 if policy == "float32" else 5e-2
    for name, activation, wanted in zip(AFTER, after, call(x), strict=True):
        # One activation a graph: with several after it nothing is fused.
        traced = tf.function(lambda images, a=activation: a(layer(first(images), training=False)))
        np.testing.assert_allclose(
            np.float32(traced(x)), np.float32(wanted), atol=bound, rtol=bound, err_msg=name
        )
