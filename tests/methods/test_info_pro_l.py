"""InfoProL: the stage's own input is rebuilt, on a grid of tokens or a row of them."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.methods import InfoProL, VanGL
from keras_trgl.methods.decoder import Decoder, grids

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 9, 4))
Y = RNG.integers(0, 3, 8)


def make(method, shape=(None, 9, 4)):
    stages = [[keras.layers.Dense(units, "tanh")] for units in (5, 6, 5)]
    model = GreedyModel(stages, [LinearHead(3) for _ in stages], method=method, seed=0)
    model.build(shape)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(model, x=X):
    return model.fit(x, Y, batch_size=8, epochs=1, shuffle=False, verbose=0).history


def test_the_term_is_the_squared_error_to_the_stage_s_input_in_float64():
    keras.config.set_floatx("float64")
    weights = {1: 0.5, 2: 2.0}
    model, features, wanted = make(InfoProL((0.5, 2.0))), X, {}
    for k, part in enumerate(model._network.parts[:2], start=1):
        inputs, features = features, part.stage(features, training=True)
        rebuilt = np.asarray(part.layers["decoder"](features, training=True))
        assert rebuilt.shape == tuple(inputs.shape)
        wanted[k] = weights[k] * np.mean((rebuilt - np.asarray(inputs)) ** 2)
    history = fit(make(InfoProL((0.5, 2.0))))
    for k, value in wanted.items():
        assert history[f"stage_{k}_reconstruction"][0] == pytest.approx(value, abs=1e-6)
        total = history[f"stage_{k}_loss"][0] + value
        assert history[f"stage_{k}_objective"][0] == pytest.approx(total, abs=1e-6)
    assert "stage_3_reconstruction" not in history


def test_without_reconstruction_it_is_vangl_bit_for_bit():
    one, other = make(InfoProL(0.0)), make(VanGL())
    logs = fit(one), fit(other)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("target", "features", "wanted"),
    [
        ((None, 8, 6, 3), (None, 4, 3, 5), [(8, 6), (4, 3)]),
        ((None, 16, 3), (None, 4, 5), [(4, 4), (2, 2)]),
        ((None, 8, 8, 3), (None, 16, 5), [(8, 8), (4, 4)]),
        ((None, 17, 3), (None, 17, 5), [(17,), (17,)]),
        ((None, 16, 3), (None, 8, 5), [(16,), (8,)]),
        ((None, 8, 8, 3), (None, 17, 5), None),
        ((None, 8), (None, 4), None),
        ((None, None, 3), (None, 4, 5), None),
    ],
)
def test_tokens_are_a_grid_where_they_are_a_square(target, features, wanted):
    found = grids(target, features)
    assert (None if found is None else list(found)) == wanted
    if wanted is not None:
        decoder = Decoder(target[1:], 12)
        decoder.build(features)
        x = np.zeros((2, *features[1:]), "float32")
        assert tuple(decoder(x).shape) == (2, *target[1:])


@pytest.mark.parametrize("shape", [(None, 4), (None, None, 4)])
def test_inputs_of_another_form_are_refused_in_a_sentence(shape):
    with pytest.raises(
        ValueError,
        match=r"InfoProL rebuilds inputs \(batch, tokens, channels\) or .*of known size. Received, "
        r"at stage 1: inputs \(None, .*`reconstruction_weight=0`, which needs no decoder",
    ):
        make(InfoProL(), shape)
