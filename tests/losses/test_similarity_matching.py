"""Similarity matching against the definition, written out in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.losses import SimilarityMatching
from keras_trgl.losses.similarity_matching import similarity

H = np.array([[1.0, 2, 3, 4], [2, 2, 0, 4], [-1, 0, 1, 0]])
ONE_HOT = np.eye(3)[[0, 1, 0]]


def in_numpy(x):
    """Give R(x) as methods of the paper have it: unbiased deviation per channel, cosine."""
    x = np.asarray(x, "float64")
    if x.ndim == 4 and x.shape[-1] > 3 and x.shape[1] > 1:
        x = x.reshape(len(x), -1, x.shape[-1]).std(axis=1, ddof=1)
    x = x.reshape(len(x), -1)
    x = x - x.mean(axis=1, keepdims=True)
    x = x / (1e-8 + np.sqrt((x**2).sum(axis=1, keepdims=True)))
    return np.clip(x @ x.T, -1, 1)


@pytest.fixture
def _float64():
    keras.config.set_floatx("float64")


@pytest.mark.usefixtures("_float64")
def test_values_of_the_paper_s_formula():
    # Worked out once by hand from the definition.
    found = np.asarray(similarity(H))
    assert found[0, 1] == pytest.approx(0.316227763, abs=1e-6)
    assert found[0, 2] == pytest.approx(0.632455525, abs=1e-6)
    assert found[1, 2] == pytest.approx(-0.499999995, abs=1e-6)
    loss = float(SimilarityMatching()(ONE_HOT, H))
    assert loss == pytest.approx(0.178070370, abs=1e-6)
    assert 0.01 * 1.25 + 0.99 * loss == pytest.approx(0.188789666, abs=1e-6)
    x = np.sin(np.arange(32.0)).reshape(2, 2, 2, 4)
    assert float(similarity(x)[0, 1]) == pytest.approx(0.880258808, abs=1e-6)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize(
    "shape", [(5, 7), (5, 4, 4, 6), (5, 4, 4, 3), (5, 1, 4, 6), (5, 3, 2, 4), (5, 6, 4)]
)
def test_it_is_the_definition_symmetric_with_a_diagonal_of_one(shape):
    x = np.random.default_rng(0).normal(size=shape)
    found = np.asarray(similarity(x))
    np.testing.assert_allclose(found, in_numpy(x), atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(found), 1.0, atol=1e-6)
    labels = np.eye(3)[np.arange(5) % 3]
    wanted = np.mean((in_numpy(x) - in_numpy(labels)) ** 2)
    assert float(SimilarityMatching()(labels, x)) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 3, 6)])
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_rows_without_variance_give_finite_values_and_gradients(shape, kind):
    x = tf.Variable(np.zeros(shape, kind))
    x.assign(tf.concat([tf.ones_like(x[:1]), tf.cast(tf.random.normal(shape), kind)[1:]], 0))
    with tf.GradientTape() as tape:
        loss = SimilarityMatching()(np.eye(4, dtype="float32"), x)
    assert np.isfinite(float(loss))
    assert np.isfinite(np.asarray(tape.gradient(loss, x), "float32")).all()


def test_no_gradient_goes_through_the_labels():
    labels, x = tf.Variable(ONE_HOT.astype("float32")), tf.Variable(H.astype("float32"))
    with tf.GradientTape() as tape:
        loss = SimilarityMatching()(labels, x)
    assert tape.gradient(loss, labels) is None


def test_it_is_saved_and_loaded_as_a_keras_loss():
    config = keras.losses.serialize(SimilarityMatching(name="alike"))
    again = keras.losses.deserialize(config)
    assert isinstance(again, SimilarityMatching)
    assert again.name == "alike"
