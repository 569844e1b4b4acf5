"""Supervised contrast: values, and rows that have nothing to be compared with."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.losses import SupervisedContrastive

Z = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-0.8, 0.6]])
RNG = np.random.default_rng(0)


def by_hand(labels, z, temperature=0.07):
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    s, found = z @ z.T / temperature, []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        same = [j for j in others if labels[j] == labels[i]]
        total = np.log(sum(np.exp(s[i, a]) for a in others))
        found.append(-np.mean([s[i, j] - total for j in same]) if same else 0.0)
    return np.array(found) * temperature / 0.07


@pytest.fixture(autouse=True)
def double():
    keras.config.set_floatx("float64")


@pytest.mark.parametrize(
    ("labels", "anchors"),
    [
        ([0, 0, 1, 1], [0.00018943, 2.91299706, 2.91299706, 0.00018943]),
        ([0, 0, 1, 2], [0.00018943, 2.91299706, 0.0, 0.0]),
    ],
)
def test_anchors_have_the_published_values(labels, anchors):
    loss = SupervisedContrastive(reduction=None)(np.array(labels), Z)
    np.testing.assert_allclose(loss, anchors, atol=1e-8)


@pytest.mark.parametrize(
    ("labels", "mean"), [([0, 0, 1, 1], 1.456593243), ([0, 0, 1, 2], 0.728296621)]
)
def test_anchors_without_another_of_their_class_count_in_the_mean(labels, mean):
    assert float(SupervisedContrastive()(np.array(labels), Z)) == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_it_is_the_formula(temperature):
    z, labels = RNG.normal(size=(9, 5)), RNG.integers(0, 3, 9)
    loss = SupervisedContrastive(temperature, reduction=None)(labels, z)
    np.testing.assert_allclose(loss, by_hand(labels, z, temperature), rtol=1e-12)


@pytest.mark.parametrize("form", ["column", "one_hot", "images"])
def test_labels_and_embeddings_come_in_any_form(form):
    z, labels = RNG.normal(size=(6, 4)), np.array([0, 1, 1, 2, 0, 1])
    given = {"column": labels[:, None], "one_hot": np.eye(3)[labels]}.get(form, labels)
    loss = SupervisedContrastive()(given, z.reshape(6, 2, 2) if form == "images" else z)
    assert float(loss) == pytest.approx(by_hand(labels, z).mean(), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_length_of_rows_does_not_count(scale):
    keras.config.set_floatx("float32")
    labels = np.array([0, 0, 1, 1])
    z = tf.Variable(Z.astype("float32") * np.float32(scale))
    with tf.GradientTape() as tape:
        loss = SupervisedContrastive()(labels, z)
    assert float(loss) == pytest.approx(1.456593243, rel=1e-5)
    # Along a row the loss does not change.
    along = tf.reduce_sum(tape.gradient(loss, z) * z, axis=1)
    np.testing.assert_allclose(along, np.zeros(4), atol=1e-4)


@pytest.mark.parametrize(
    ("z", "labels"),
    [(np.ones((1, 3)), [0]), (np.zeros((4, 3)), [0, 0, 1, 1]), (np.eye(3), [0, 1, 2])],
    ids=["one example", "rows of zeros", "no pairs"],
)
def test_what_has_nothing_to_compare_has_finite_gradients(z, labels):
    z = tf.Variable(z)
    with tf.GradientTape() as tape:
        loss = SupervisedContrastive()(np.array(labels), z)
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, z)).all()
    if len(set(labels)) == len(labels):
        assert float(loss) == 0.0


def test_it_makes_itself_again():
    loss = SupervisedContrastive(0.1, name="contrast")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize(("value", "error"), [(0.0, ValueError), ("cold", TypeError)])
def test_a_temperature_that_is_none_is_refused(value, error):
    with pytest.raises(error, match=r"`temperature` must be .* The published value is 0\.07"):
        SupervisedContrastive(value)
