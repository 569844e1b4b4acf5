"""What every head does: one row per class."""

import keras
import numpy as np
import pytest

from keras_trgl.heads import ConvHead, DGLConvHead, DGLMLPHead, DGLMLPSRHead, LinearHead

HEADS = {
    "linear": LinearHead,
    "conv": ConvHead,
    "dgl_conv": DGLConvHead,
    "dgl_mlp": DGLMLPHead,
    "dgl_mlp_sr": DGLMLPSRHead,
}
X = np.random.default_rng(0).normal(size=(4, 8, 8, 6)).astype("float32")


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("units", [1, 5])
def test_it_gives_units_numbers_per_example(name, policy, units):
    keras.config.set_dtype_policy(policy)
    head = HEADS[name](units=units)
    out = head(X, training=True)
    assert tuple(out.shape) == tuple(head.compute_output_shape(X.shape)) == (4, units)
    assert np.isfinite(np.asarray(out, "float32")).all()


@pytest.mark.parametrize("name", HEADS)
def test_it_is_saved_and_loaded(name, tmp_path):
    inputs = keras.Input(X.shape[1:])
    model = keras.Model(inputs, HEADS[name](units=3)(inputs))
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(loaded(X), model(X))


@pytest.mark.parametrize("name", HEADS)
def test_its_layers_in_a_row_are_the_head(name):
    head = HEADS[name](units=3)
    wanted = head(X)
    x = X
    for layer in head.layers_in_a_row:
        x = layer(x)
    np.testing.assert_allclose(x, wanted, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_weights(name):
    options = (
        {"seed": 3}
        if name == "conv"
        else {"kernel_initializer": keras.initializers.GlorotUniform(3)}
    )
    first, second = HEADS[name](3, **options), HEADS[name](3, **options)
    for head in (first, second):
        head.build(X.shape)
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
