"""Residual blocks: their sum, and every way to find the energy of what they add."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.layers import BatchNormalization, PadShortcut, ResidualAdd, ResidualBlock


def conv(channels=3, **options):
    return keras.layers.Conv2D(channels, 3, padding="same", **options)


def data(seed=0, channels=3, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(4, 6, 6, channels)).astype(dtype)


def block_of(kind):
    """A block whose energy is found in the named way."""
    return {
        "closed": lambda: ResidualBlock([conv(), BatchNormalization()], activation="relu"),
        "recomputed": lambda: ResidualBlock([conv()]),
        "direct": lambda: ResidualBlock([conv()], activation="relu"),
    }[kind]()


def run(block, x, training, reduction, direct=False):
    """Give energy and all gradients of energy + <output, 1>/10, by the block or by the formula."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        if direct:
            r = x
            for layer in block.branch:
                r = layer(r, training=training)
            squares = tf.square(tf.cast(r, keras.config.floatx()))
            energy = tf.reduce_mean(squares)
            if reduction == "sum":
                energy = tf.reduce_mean(tf.reduce_sum(squares, [1, 2, 3]))
            out = x + r
            out = out if block.activation is None else block.activation(out)
        else:
            with block.recording():
                out = block(x, training=training)
                energy = block.energy(reduction)
        total = energy + tf.cast(tf.reduce_sum(out), energy.dtype) / 10
    return energy, tape.gradient(total, [x, *block.trainable_variables])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["closed", "recomputed", "direct"])
def test_energy_and_gradients_are_those_of_the_direct_formula(kind, reduction, training):
    block = block_of(kind)
    block.build((None, 6, 6, 3))
    energy, gradients = run(block, data(), training, reduction)
    wanted, wanted_gradients = run(block, data(), training, reduction, direct=True)
    np.testing.assert_allclose(energy, wanted, rtol=1e-5)
    for got, expected in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("kind", ["closed", "recomputed", "direct"])
def test_energy_in_float64_is_exact(kind):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    block = block_of(kind)
    block.build((None, 6, 6, 3))
    x = data(dtype="float64")
    energy, gradients = run(block, x, True, "mean")
    wanted, wanted_gradients = run(block, x, True, "mean", direct=True)
    np.testing.assert_allclose(energy, wanted, rtol=1e-13)
    for got, expected in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["closed", "recomputed", "direct"])
def test_energy_under_mixed_precision_is_a_float32_near_the_direct_one(kind, policy):
    keras.config.set_dtype_policy(policy)
    block = block_of(kind)
    block.build((None, 6, 6, 3))
    x = tf.cast(data(), block.compute_dtype)
    energy, gradients = run(block, x, True, "mean")
    wanted, _ = run(block, x, True, "mean", direct=True)
    assert energy.dtype == tf.float32
    np.testing.assert_allclose(energy, wanted, rtol=1e-2)
    assert all(np.isfinite(tf.cast(g, tf.float32)).all() for g in gradients)


def test_energy_of_large_half_precision_residuals_does_not_overflow():
    keras.config.set_dtype_policy("mixed_float16")
    block = ResidualBlock([keras.layers.Rescaling(300.0)], activation="relu")
    with block.recording():
        block(tf.ones((2, 4, 4, 1), "float16"))
        np.testing.assert_allclose(block.energy(), 90000.0)


def test_energy_of_recorded_example_is_the_published_sum_over_blocks():
    # methods 9 A: mean over all axes, 1.5 for these values.
    r = np.array([1, -2, 0, 1, 2, 0, -1, 1], "float32").reshape(2, 1, 2, 2)
    block = ResidualBlock([keras.layers.Identity()])
    with block.recording():
        block(r)
        assert float(block.energy("mean")) == pytest.approx(1.5)
        assert float(block.energy("sum")) == pytest.approx(6.0)


def test_energy_of_a_zero_branch_is_zero_and_the_block_is_its_shortcut():
    block = ResidualBlock([conv(kernel_initializer="zeros")])
    with block.recording():
        np.testing.assert_array_equal(block(data()), data())
        assert float(block.energy()) == 0.0


def test_energy_outside_a_recording_says_how_to_record():
    block = block_of("direct")
    block(data())
    with pytest.raises(RuntimeError, match=r"inside `with layer.recording\(\):`"):
        block.energy()


def test_energy_of_an_unknown_reduction_is_refused():
    block = block_of("direct")
    with block.recording(), pytest.raises(ValueError, match="`reduction` must be one of"):
        block.energy("median")


def test_nothing_is_kept_after_a_recording():
    block = block_of("closed")
    with block.recording():
        block(data(), training=True)
    assert block._residual is None
    assert block.branch[-1].mean_square is None


def test_branch_and_shortcut_of_different_shapes_are_refused_at_build():
    block = ResidualBlock([conv(channels=5)], name="wide")
    with pytest.raises(ValueError, match=r"Branch and shortcut of wide .*PadShortcut"):
        block.build((None, 6, 6, 3))


def test_a_branch_of_no_layers_is_refused_by_type():
    with pytest.raises(TypeError, match="`branch` must be a Keras layer"):
        ResidualBlock(["conv"])


def test_pad_shortcut_takes_every_second_pixel_and_appends_zeros():
    x = data(channels=2)
    out = np.asarray(PadShortcut(channels=5, stride=2)(x))
    np.testing.assert_array_equal(out[..., :2], x[:, ::2, ::2])
    np.testing.assert_array_equal(out[..., 2:], 0)


def test_pad_shortcut_to_fewer_channels_is_refused():
    with pytest.raises(ValueError, match="`channels` must be at least the input's"):
        PadShortcut(channels=2).build((None, 4, 4, 3))


@pytest.mark.parametrize("size", [5, 6])
def test_pad_shortcut_tells_its_output_shape(size):
    x = np.zeros((1, size, size, 2), "float32")
    layer = PadShortcut(4, 2)
    assert tuple(layer(x).shape) == tuple(layer.compute_output_shape(x.shape))


def test_residual_add_speaks_of_its_second_input():
    merge = ResidualAdd()
    with merge.recording():
        np.testing.assert_array_equal(merge([data(0), data(1)]), data(0) + data(1))
        np.testing.assert_allclose(merge.energy(), np.mean(data(1) ** 2), rtol=1e-6)


def test_residual_add_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match="a shortcut and a residual of one shape"):
        ResidualAdd().build([(None, 4, 4, 3), (None, 4, 4, 5)])


def test_a_block_makes_itself_again_from_its_configuration():
    block = ResidualBlock(
        [conv(4, strides=2), BatchNormalization()],
        shortcut=[PadShortcut(4, 2)],
        activation="relu",
        entry=[conv(3), keras.layers.ReLU()],
        input_shape=(6, 6, 3),
    )
    again = ResidualBlock.from_config(block.get_config())
    assert again.get_config() == block.get_config()
    assert tuple(again(data()).shape) == tuple(block.compute_output_shape((4, 6, 6, 3)))
