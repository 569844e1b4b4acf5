"""The choice of a depth and of thresholds, on numbers and on a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import client_rows, live

from keras_trgl import GreedyModel
from keras_trgl.datasets import Normalize
from keras_trgl.export import (
    Calibration,
    Outputs,
    choose_exit,
    choose_exit_from,
    export_serving,
)
from keras_trgl.export.exit_curve import best, curve_of
from keras_trgl.export.threshold_path import shared_path

pytestmark = pytest.mark.sampled(3)

ALL_ROWS = Calibration(per_exit=False, repeats=1)
"""One threshold, nothing fitted: judged on all rows."""

ACCURACY = np.array([0.80, 0.90, 0.895])
LATENCY = np.array([0.001, 0.002, 0.003])


@pytest.mark.parametrize(
    ("goal", "bound", "depth"),
    [
        ("accuracy", 0.79, 1),
        ("accuracy", 0.85, 2),
        ("accuracy", 0.90, 2),
        ("max_latency", 0.0025, 2),
        ("max_latency", 0.001, 1),
        ("max_latency", 1.0, 2),
    ],
)
def test_the_best_depth_meets_the_bound(goal, bound, depth):
    assert best(goal, bound, ACCURACY, LATENCY) == depth - 1


@pytest.mark.parametrize(("goal", "bound"), [("target", 0.91), ("max_latency", 0.0005)])
def test_a_bound_that_no_depth_meets_is_told(goal, bound):
    with pytest.raises(ValueError, match=r"accuracy is 0.9, the least time or depth 0.001"):
        best(goal, bound, ACCURACY, LATENCY)


def test_the_curve_is_that_of_leaving_row_by_row():
    rng = np.random.default_rng(0)
    right, sure = rng.random((3, 40)) < 0.7, rng.random((3, 40))
    path = shared_path(sure)
    curve = curve_of(right, sure, LATENCY, path)
    for point, (threshold, _) in enumerate(path):
        exits = []
        for row in range(40):
            depth = 0
            while depth < 2 and sure[depth, row] < threshold:
                depth += 1
            exits.append(depth)
        assert curve["mean_depth"][point] == pytest.approx(np.mean(exits) + 1)
        assert curve["accuracy"][point] == pytest.approx(right[exits, range(40)].mean())
        assert curve["mean_latency"][point] == pytest.approx(LATENCY[exits].mean())
        lost = right[2] & ~right[exits, range(40)]
        assert curve["risk"][point] == pytest.approx(lost.mean())
    assert curve["mean_depth"][0] == 3.0
    assert curve["mean_depth"][-1] == 1.0
    assert (np.diff(curve["mean_depth"]) <= 0).all()


@pytest.fixture(scope="module")
def data(model):
    """Images whose labels are the last depth's own, but for one in ten."""
    x = Normalize([0.5], [0.3])(client_rows(200)).numpy()
    y = live(model, x)[2].argmax(-1)
    y[::10] = (y[::10] + 1) % 5
    return x, y


def test_choices_are_measured_on_the_data_and_kept_by_the_export(model, data, tmp_path):
    choice = choose_exit(model, data, max_drop=0.02, calibration=ALL_ROWS)
    for depth, logits in enumerate(live(model, data[0]), start=1):
        wanted = (logits.argmax(-1) == data[1]).mean()
        assert choice.accuracy[depth - 1] == pytest.approx(wanted, abs=0.006)
    assert choice.accuracy[2] == pytest.approx(0.9)
    assert choice.depth == 3
    done = export_serving(model, tmp_path, outputs=choice.outputs())
    run = tf.saved_model.load(str(done.path)).signatures["confident_exit"]
    got = run(inputs=tf.constant(data[0]))
    place = choice.curve["thresholds"].index(choice.thresholds)
    accuracy = (got["class_id"].numpy() == data[1]).mean()
    assert accuracy == pytest.approx(choice.curve["accuracy"][place], abs=0.006)
    assert accuracy >= 0.9 - 0.02 - 0.006
    assert got["exit"].numpy().mean() == pytest.approx(choice.curve["mean_depth"][place], abs=0.02)


def test_one_hot_labels_choose_as_class_indices_do(model, data):
    x, y = data
    one_hot = choose_exit(model, (x, np.eye(5)[y]), target=0.5, calibration=ALL_ROWS)
    assert one_hot.accuracy == choose_exit(model, data, target=0.5, calibration=ALL_ROWS).accuracy


def test_the_curve_is_drawn(model, data, tmp_path):
    pytest.importorskip("matplotlib")
    choose_exit(model, data, max_latency=10.0).plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Exactly one of `max_drop`, .*, `target`, `risk` must be given. Received: none"),
        ({"max_drop": 0.1, "target": 0.9}, "Exactly one of"),
        ({"target": 1.0}, "No depth meets the goal"),
        ({"max_latency": 0.0}, "No depth meets the goal. Received: max_latency with a bound of 0"),
        ({"max_depth": 0.5}, "`max_depth` must be at least 1. Received: max_depth=0.5"),
        ({"max_drop": 2}, "`max_drop` must lie between 0 and 1. Received: max_drop=2.0. 0.01 is"),
        ({"max_drop": -0.1}, "`max_drop` must lie between 0 and 1"),
        ({"target": 95}, "`target` must lie between 0 and 1. Received: target=95.0"),
        ({"max_latency": -1.0}, "`max_latency` must be at least 0. Received: max_latency=-1.0"),
        ({"max_depth": 0}, "`max_depth` must be at least 1. Received: max_depth=0.0"),
        ({"risk": 1.0}, "`risk` must lie between 0 and 1. Received: risk=1.0"),
        ({"risk": 0.001}, "confidence 0.95 takes at least 2995 rows .* Received: 100"),
        ({"max_drop": 0.1, "predictions": "values"}, "`predictions` must be one of"),
    ],
)
def test_a_goal_that_will_not_do_is_refused(model, data, arguments, message):
    with pytest.raises(ValueError, match=message):
        choose_exit(model, data, **arguments)


def test_data_that_do_not_fit_are_refused(model, data):
    with pytest.raises(ValueError, match="200 examples and 10 labels"):
        choose_exit(model, (data[0], data[1][:10]), max_drop=0.1)
    with pytest.raises(ValueError, match=r"must be a tuple \(x, y\)"):
        choose_exit(model, data[0], max_drop=0.1)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (
            lambda y: y + 1,
            ValueError,
            "numbers of classes, 0 to 4. Received: 5. Count classes from",
        ),
        (lambda y: np.where(y == 0, -1, y), ValueError, "Received: -1. Count"),
        (lambda y: y + 0.5, ValueError, "Received: 0.5, 1.5"),
        (lambda y: np.where(y == 1, np.nan, y), ValueError, "Received: nan"),
        (lambda y: y * 1000 + np.arange(len(y)) % 7, ValueError, "Received: .*, …. Count"),
        (lambda y: np.eye(6)[y], ValueError, "a column per class, 5. Received: 6 columns"),
        (lambda y: np.eye(4)[y % 4], ValueError, "a column per class, 5. Received: 4 columns"),
        (
            lambda y: y.astype(str),
            TypeError,
            "numbers of classes, 0 to 4. Received: labels of type",
        ),
        (lambda y: y.astype(object), TypeError, "Received: labels of type object"),
    ],
)
def test_labels_outside_the_classes_are_refused(model, data, change, kind, said):
    with pytest.raises(kind, match=said):
        choose_exit(model, (data[0], change(data[1])), max_drop=0.1)


def test_rows_without_numbers_are_refused(model, data):
    x = data[0].astype("float32")
    x[:3] = np.nan
    with pytest.raises(ValueError, match=r"must be finite.* at depth 1, in 3 of 200 rows"):
        choose_exit(model, (x, data[1]), max_drop=0.1)


def test_heads_that_end_in_a_softmax_are_told(tmp_path):
    ending = keras.layers.Dense(3, activation="softmax")
    model = GreedyModel.from_blocks([keras.layers.Dense(4)], [1], ending, method="vangl", seed=0)
    model.build((None, 4))
    x, labels = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 3
    said = r"a head that ends in softmax. Pass `predictions='probabilities'`"
    with pytest.raises(ValueError, match=said):
        choose_exit(model, (x, labels), max_drop=0.1)
    with pytest.raises(ValueError, match=said):
        export_serving(model, tmp_path / "served")
    assert not list((tmp_path / "served").rglob("*"))
    choose_exit(model, (x, labels), max_drop=0.1, predictions="probabilities")


@pytest.mark.parametrize("type_", ["uint8", "int64", "float32", "bool"])
def test_labels_of_any_type_of_number_choose_alike(model, data, type_):
    y = data[1] % 2
    chosen = choose_exit(model, (data[0], y.astype(type_)), max_drop=1.0, calibration=ALL_ROWS)
    plain = choose_exit(model, (data[0], y), max_drop=1.0, calibration=ALL_ROWS)
    assert chosen.accuracy == plain.accuracy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 1.0}, "`confidence` must lie between 0 and 1. Received: confidence=1.0"),
        ({"fit_share": 0.0}, "`fit_share` must lie between 0 and 1. Received: fit_share=0.0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"repeats": 0}, "`repeats` must be at least 1"),
        ({"seed": -1}, "`seed` must be at least 0"),
    ],
)
def test_a_calibration_that_will_not_do_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**arguments)


def test_another_calibration_and_too_few_rows_are_refused(model, data):
    with pytest.raises(TypeError, match=r"`calibration` must be a `Calibration`. Received: 0.9"):
        choose_exit(model, data, max_drop=0.1, calibration=0.9)
    with pytest.raises(ValueError, match=r"fitted on some rows .* Received: 1 rows"):
        choose_exit(model, (data[0][:1], data[1][:1]), max_drop=0.1)


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(repeats=1),
        Calibration(temperature=True, repeats=1),
        Calibration(average=True, repeats=1),
        Calibration(temperature=True, average=True, repeats=1),
    ],
    ids=["per exit", "temperature", "average", "both"],
)
def test_what_was_chosen_is_what_is_served(model, data, tmp_path, calibration):
    choice = choose_exit(model, data, max_depth=2.0, calibration=calibration)
    # The export compares every signature with the live model before it is published.
    done = export_serving(model, tmp_path, outputs=choice.outputs())
    run = tf.saved_model.load(str(done.path)).signatures["confident_exit"]
    judged = np.random.default_rng(calibration.seed).permutation(200)[100:]
    got = run(inputs=tf.constant(data[0][judged]))
    place = choice.curve["thresholds"].index(choice.thresholds)
    accuracy = (got["class_id"].numpy() == data[1][judged]).mean()
    assert accuracy == pytest.approx(choice.curve["accuracy"][place], abs=0.011)
    assert got["exit"].numpy().mean() == pytest.approx(choice.curve["mean_depth"][place], abs=0.03)
    assert choice.curve["mean_depth"][place] <= 2.0
    assert (choice.temperatures is not None) == calibration.temperature


def test_a_choice_says_in_three_lines_what_it_does_and_promises(model, data):
    plain = choose_exit(model, data, max_drop=0.1)
    bounded = choose_exit(model, data, risk=0.1)
    assert str(plain).splitlines()[2] == "No bound on the risk was asked for."
    assert len(str(bounded).splitlines()) == 3
    assert "With confidence 0.95, at most 0.1 of rows drawn as the 100" in str(bounded)
    assert bounded.depth == 3
    place = bounded.curve["thresholds"].index(bounded.thresholds)
    assert bounded.curve["risk"][place] <= 0.1


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"predictions": "values", "temperatures": (1, 1, 1)}, "neither classes nor confidence"),
        ({"predictions": "values", "average": True}, "average=True. Leave them out"),
        ({"temperatures": (1.0, 0.0, 1.0)}, "`temperatures` must be above zero"),
        ({"temperatures": (1.0, 1.0)}, "`temperatures` must be one per depth, 3. Received: 2"),
    ],
)
def test_temperatures_and_averages_that_will_not_do_are_refused(model, tmp_path, outputs, message):
    with pytest.raises(ValueError, match=message):
        export_serving(model, tmp_path, outputs=Outputs(**outputs))


def test_what_was_recorded_chooses_as_the_model_does(model, data):
    choice = choose_exit(model, data, target=0.5)
    outputs = model.predict_exits(data[0], verbose=0)
    again = choose_exit_from(outputs, data[1], choice.latency, target=0.5)
    assert again.curve["accuracy"] == choice.curve["accuracy"]
    assert again.thresholds == choice.thresholds
    judges = np.random.default_rng(0).permutation(200)[100:]
    judged = choice.judged([one[judges] for one in outputs], data[1][judges])
    assert judged == choice.curve


def test_outputs_that_do_not_fit_are_refused():
    outputs = [np.eye(2), np.eye(2)]
    with pytest.raises(ValueError, match=r"Received: 2 arrays of \[2, 2\] rows, 3 labels, 2 times"):
        choose_exit_from(outputs, [0, 1, 1], (0.1, 0.2), target=0.5)
