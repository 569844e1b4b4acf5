"""The functions that all sums of TensorFlow go through: there, watched, and put back."""

import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.layers import sum_funnel
from keras_trgl.layers.sum_funnel import watched

GEN_MATH_OPS = sys.modules["tensorflow.python.ops.gen_math_ops"]

X = tf.constant(np.arange(4.0).reshape(2, 2))

WAYS = {
    "plus": lambda x: x + x,
    "keras.ops": lambda x: keras.ops.add(x, x),
    "a layer": lambda x: keras.layers.Add(dtype="float64")([x, x]),
    "tf.add": lambda x: tf.add(x, x),
    "minus": lambda x: x - x,
    "keras.ops.subtract": lambda x: keras.ops.subtract(x, x),
    "a layer of differences": lambda x: keras.layers.Subtract(dtype="float64")([x, x]),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("traced", [False, True])
def test_every_sum_goes_through_the_funnel(name, traced):
    """Fails when TensorFlow or Keras make sums elsewhere: `from_model` would miss them."""
    seen = []

    def handler(kind, make, one, other):
        seen.append((kind, one.shape, other.shape))
        return make()

    def call(x):
        with watched(handler):
            return WAYS[name](x)

    given = tf.function(call, autograph=False)(X) if traced else call(X)
    kind = "add" if name in ("plus", "keras.ops", "a layer", "tf.add") else "subtract"
    assert [one[0] for one in seen] == [kind]
    np.testing.assert_array_equal(given, 2 * X if kind == "add" else 0 * X)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("shape", [(1, 4), (1, 1, 1, 4), (1, 4, 1, 1)])
@pytest.mark.parametrize("name", ["keras.ops", "a layer"])
def test_a_sum_of_one_example_is_no_bias(name, shape, traced):
    x, seen = tf.reshape(tf.range(4.0), shape), []
    dense = keras.layers.Dense(4, bias_initializer="ones")
    dense.build((1, 4))

    def handler(kind, make, one, other):
        seen.append((kind, tuple(one.shape), tuple(other.shape)))
        return make()

    def call(x):
        with watched(handler):
            dense(tf.reshape(x, (1, 4)))
            return (
                keras.ops.add(x, 2 * x) if name == "keras.ops" else keras.layers.Add()([x, 2 * x])
            )

    given = call(x) if not traced else tf.function(call, autograph=False)(x)
    assert seen == [("add", shape, shape)]
    np.testing.assert_array_equal(given, 3 * x)


def test_functions_are_put_back():
    before = {name: getattr(GEN_MATH_OPS, name) for name in sum_funnel.KINDS}
    with pytest.raises(KeyError), watched(lambda *_: {}[0]):
        X + X
    assert {name: getattr(GEN_MATH_OPS, name) for name in before} == before
    with watched(None):
        assert GEN_MATH_OPS.add_v2 is before["add_v2"]


def test_inside_a_handler_sums_can_be_left_alone():
    def handler(kind, make, one, other):
        with watched(None):
            return make() + one

    with watched(handler):
        np.testing.assert_array_equal(X + X, 3 * X)


def test_other_threads_are_not_watched():
    inside, done, seen = threading.Event(), threading.Event(), []

    def other():
        inside.wait(10)
        seen.append(float((X + X)[1, 1]))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with watched(lambda *_: pytest.fail("a sum of another thread")):
        inside.set()
        done.wait(10)
    thread.join()
    assert seen == [6.0]


def test_a_tensorflow_that_makes_sums_elsewhere_is_refused(monkeypatch):
    monkeypatch.delattr(GEN_MATH_OPS, "add_v2")
    expected = pytest.raises(RuntimeError, match=r"TensorFlow 2.20 and 2.21 make.*elsewhere")
    with expected, watched(lambda *_: None):
        pass
    assert sum_funnel._users == 0
