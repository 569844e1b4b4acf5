"""What would train badly without a word is told once, with the way out."""

import warnings

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock

L = keras.layers
SPARSE = keras.losses.SparseCategoricalCrossentropy


def plain():
    return [L.Dense(6)]


def residual():
    return [ResidualBlock([L.Dense(6)])]


def made(stages, method="trgl"):
    return GreedyModel(stages, [LinearHead(3) for _ in stages], method, seed=0)


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([plain], "stage 1: there"),
        ([plain, residual, plain], "stage 1, 3: there"),
    ],
    ids=["one", "some"],
)
def test_a_stage_without_a_residual_is_told_of_at_build(stages, told):
    model = made([stage() for stage in stages])
    with pytest.warns(UserWarning, match=f"there is none in {told} it trains as `VanGL`"):
        model.build((None, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.build((None, 6))


@pytest.mark.parametrize("method", ["vangl", "end_to_end"])
def test_methods_without_an_energy_ask_for_no_residuals(method):
    made([plain()], method).build((None, 6))


def test_the_summary_counts_residuals():
    model, text = made([residual() + residual(), residual()]), []
    model.build((None, 6))
    model.summary(print_fn=text.append)
    header, *rows = [line.split() for line in text[0].splitlines()[2:]]
    assert header[:3] == ["layer", "blocks", "residuals"]
    assert [row[4] for row in rows if row[:1] == ["stage"]] == ["2", "1"]


LOSSES = {
    "by_name": ("sparse_categorical_crossentropy", LinearHead, "takes probabilities"),
    "by_name_on_dense": ("categorical_crossentropy", L.Dense, "takes probabilities"),
    "object": (SPARSE(), LinearHead, r"SparseCategoricalCrossentropy\(from_logits=True\)"),
    "function": (keras.losses.binary_crossentropy, LinearHead, "takes probabilities"),
    "softmax": (
        SPARSE(from_logits=True),
        lambda n: L.Dense(n, activation="softmax"),
        "applied twice",
    ),
    "sequential": (
        SPARSE(from_logits=True),
        lambda n: keras.Sequential([L.Dense(n), L.Softmax()]),
        "ends in softmax",
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_takes_something_else_than_heads_give_is_told_of(name):
    loss, head, told = LOSSES[name]
    model = GreedyModel([plain()], [head(3)], "vangl", seed=0)
    with pytest.warns(UserWarning, match=told):
        model.compile("sgd", loss)


FITTING = {
    "logits": (SPARSE(from_logits=True), LinearHead),
    "softmax": ("sparse_categorical_crossentropy", lambda n: L.Dense(n, activation="softmax")),
    "not_known": ("sparse_categorical_crossentropy", lambda n: keras.Sequential([L.Dropout(0.1)])),
    "regression": ("mse", LinearHead),
}


@pytest.mark.parametrize("name", FITTING)
def test_a_loss_that_fits_its_heads_is_taken_without_a_word(name):
    loss, head = FITTING[name]
    GreedyModel([plain()], [head(3)], "vangl", seed=0).compile("sgd", loss)


def test_masks_cross_a_cut_in_training_and_reach_every_head():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (16, 7)), rng.integers(0, 3, 16)
    stages = [[L.Embedding(9, 4, mask_zero=True)], [L.LSTM(4, return_sequences=True)], [L.LSTM(4)]]
    model = GreedyModel(stages, [LinearHead(3) for _ in stages], "vangl", seed=0)
    model.build((None, 7))
    model.compile(keras.optimizers.SGD(0.0), SPARSE(from_logits=True))
    trained = model.fit(x, y, batch_size=16, verbose=0).history
    shown = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    for k in (1, 2, 3):
        name = f"stage_{k}_loss"
        assert trained[name][0] == pytest.approx(shown[name], abs=1e-6), k
    exits = model.predict_exits(x, verbose=0)
    for k in (1, 2, 3):
        cut = model.truncate(k).predict(x, verbose=0)
        np.testing.assert_allclose(cut, exits[k - 1], atol=1e-6)
        loss = float(SPARSE(from_logits=True)(y, cut))
        assert loss == pytest.approx(shown[f"stage_{k}_loss"], abs=1e-5)
