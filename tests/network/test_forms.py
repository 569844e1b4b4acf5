"""Data of another form than the network was built for, after data of the right one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl

GREY = np.random.default_rng(0).random((20, 8, 8, 1)).astype("float32")
COLOURS = np.repeat(GREY, 3, -1)
Y = np.arange(20) % 3


@pytest.fixture(scope="module")
def model():
    # Six kernels: TensorFlow takes three channels for three groups, without a word.
    conv = keras.layers.Conv2D(6, 3, padding="same")
    made = trgl.GreedyModel([conv], [trgl.heads.LinearHead(3)], method="vangl", seed=0)
    made.build((None, 8, 8, 1))
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def pipeline(x):
    return tf.data.Dataset.from_tensor_slices((x, Y)).batch(5)


CALLS = {
    "fit": lambda m, x: m.fit(x, Y, verbose=0),
    "fit, pipeline": lambda m, x: m.fit(pipeline(x), verbose=0),
    "validation": lambda m, x: m.fit(GREY, Y, validation_data=(x, Y), verbose=0),
    "evaluate": lambda m, x: m.evaluate(x, Y, verbose=0),
    "predict": lambda m, x: m.predict(x, verbose=0),
    "predict, pipeline": lambda m, x: m.predict(pipeline(x).map(lambda a, b: a), verbose=0),
    "predict_exits": lambda m, x: m.predict_exits(x, verbose=0),
    "train_on_batch": lambda m, x: m.train_on_batch(x, Y),
    "test_on_batch": lambda m, x: m.test_on_batch(x, Y),
    "predict_on_batch": lambda m, x: m.predict_on_batch(x),
}


@pytest.mark.parametrize("call", CALLS)
def test_other_channels_and_ranks_are_refused_after_a_good_call(model, call):
    CALLS[call](model, GREY)
    for bad, said in (
        (
            COLOURS,
            r"as many channels as the network was built for, 1\. Received: \((None|20), 8, 8",
        ),
        (GREY.reshape(20, -1), r"Data must have the shape \(batch, …\) that the network was built"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            CALLS[call](model, bad)
        assert len(str(caught.value).splitlines()) == 1
