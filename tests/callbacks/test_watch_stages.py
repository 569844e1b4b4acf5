"""`WatchStages`: what it adds to the logs, when, and that it changes nothing else."""

import csv

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl import diagnostics
from keras_trgl.callbacks import WatchStages

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.arange(40) % 3


def model(method="vangl", regime="parallel", head=None):
    blocks = [
        trgl.layers.ResidualBlock(
            [keras.layers.Dense(6, "tanh")], input_shape=(6,) if not k else None
        )
        for k in range(2)
    ]
    head = head or trgl.heads.LinearHead(3)
    made = trgl.GreedyModel.from_blocks(
        blocks, [1, 1], head, method=method, regime=regime, seed=0, name="net"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return made


def test_entries_are_those_of_the_diagnostics():
    made = model()
    logs = made.fit(X, Y, epochs=2, callbacks=[WatchStages((X, Y))], verbose=0).history
    moved, sure = diagnostics.transport(made, X), diagnostics.calibration(made, (X, Y))
    for k in (1, 2):
        last = {name: logs[f"stage_{k}_{name}"][-1] for name in ("displacement", "energy")}
        assert last["displacement"] == pytest.approx(moved["displacement"][k - 1], rel=1e-5)
        assert last["energy"] == pytest.approx(moved["energy"][k - 1], rel=1e-5)
        error = logs[f"stage_{k}_calibration_error"]
        assert error[-1] == pytest.approx(sure["ece"][k - 1], abs=1e-6)
        assert len(error) == 2


def test_an_energy_that_training_logs_stays():
    plain = model("trgl").fit(X, Y, epochs=2, verbose=0).history
    watched = model("trgl").fit(X, Y, epochs=2, callbacks=[WatchStages(X)], verbose=0).history
    assert watched["stage_1_energy"] == plain["stage_1_energy"]
    assert set(watched) - set(plain) == {"stage_1_displacement", "stage_2_displacement"}


def test_training_is_as_without_it():
    one, other = model(), model()
    one.fit(X, Y, epochs=3, verbose=0)
    other.fit(X, Y, epochs=3, callbacks=[WatchStages((X, Y), every=2)], verbose=0)
    for left, right in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(left, right)


def test_files_written_before_it_in_the_list_have_its_columns(tmp_path):
    before = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model().fit(
        X, Y, epochs=3, callbacks=[before, WatchStages((X, Y), every=2)], verbose=0
    )
    with open(tmp_path / "log.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    values = [float(row["stage_2_displacement"]) for row in rows]
    np.testing.assert_array_equal(values, history.history["stage_2_displacement"])
    # Epochs between hold a place.
    assert np.isnan(values).tolist() == [False, True, False]


def test_stages_that_have_not_trained_yet_have_no_number():
    regime = trgl.regimes.Sequential(epochs=2)
    watch = WatchStages((X, Y))
    logs = model(regime=regime).fit(X, Y, callbacks=[watch], verbose=0).history
    for name in ("displacement", "energy", "calibration_error"):
        assert np.isnan(logs[f"stage_1_{name}"]).tolist() == [False] * 4
        assert np.isnan(logs[f"stage_2_{name}"]).tolist() == [True, True, False, False]
    frozen = logs["stage_1_displacement"]
    assert frozen[1] == frozen[2] == frozen[3] != frozen[0]


def test_a_second_model_is_watched_by_the_same_callback():
    watch = WatchStages((X, Y))
    first = model().fit(X, Y, callbacks=[watch], verbose=0).history
    second = model().fit(X, Y, callbacks=[watch], verbose=0).history
    assert first["stage_1_displacement"] == second["stage_1_displacement"]


MISTAKES = {
    "no rows": (lambda: WatchStages(X[:0]), ValueError, "`data` must be an array of examples"),
    "fewer labels": (lambda: WatchStages((X, Y[:3])), ValueError, "as many labels as examples"),
    "no epochs": (lambda: WatchStages(X, every=0), ValueError, "`every` must be at least 1"),
    "another word": (
        lambda: WatchStages(X, predictions="odds"),
        ValueError,
        "`predictions` must be one of",
    ),
    "a plain model": (
        lambda: WatchStages(X).set_model(keras.Sequential([keras.layers.Dense(2)])),
        TypeError,
        r"`WatchStages` looks at stages\. Received.*Train a `GreedyModel`",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_the_way_out(mistake):
    call, kind, said = MISTAKES[mistake]
    with pytest.raises(kind, match=said):
        call()
