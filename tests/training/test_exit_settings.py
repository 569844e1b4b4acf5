"""Metrics: the live object where it serves one head, copies where it serves several."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.training.exit_settings import exit_settings

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 16)


class Count(keras.metrics.Metric):
    """A metric of a user: not registered, with an argument that no configuration has."""

    def __init__(self, *factors, name="count"):
        super().__init__(name=name)
        self.factor = factors[0]
        self.total = self.add_variable((), "zeros")

    def update_state(self, y, y_pred, sample_weight=None):
        self.total.assign_add(self.factor * keras.ops.cast(keras.ops.shape(y)[0], "float32"))

    def result(self):
        return self.total


def trained(num_stages, metrics, **settings):
    stages = [[keras.layers.Dense(6)] for _ in range(num_stages)]
    heads = [keras.layers.Dense(3) for _ in range(num_stages)]
    model = GreedyModel(stages, heads, method="vangl", seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=metrics, **settings)
    return model.fit(X, Y, batch_size=8, verbose=0).history


def test_a_single_stage_uses_the_very_metric():
    metric = Count(2.0)
    assert trained(1, [metric])["count"] == [32.0]
    assert float(metric.result()) == 32


def test_several_stages_have_copies_with_variables_of_their_own():
    metric = Count(2.0)
    history = trained(3, [metric, "accuracy"])
    assert [history[f"stage_{k}_count"] for k in (1, 2, 3)] == [[32.0]] * 3
    assert float(metric.result()) == 0


def test_a_list_per_stage_is_used_as_it_is():
    first, second = Count(1.0), Count(3.0, name="other")
    history = trained(3, [[first, "accuracy"], None, [second]], weighted_metrics=[["acc"], [], []])
    assert float(first.result()) == 16
    assert float(second.result()) == 48
    assert {"stage_1_count", "stage_1_accuracy", "stage_3_other", "stage_1_acc"} <= set(history)
    assert not {"stage_2_count", "stage_3_count", "stage_2_acc"} & set(history)


def test_a_metric_in_two_lists_is_copied():
    shared, own = Count(1.0), Count(2.0)
    history = trained(3, [[shared], [own], [shared]])
    assert [history[f"stage_{k}_count"] for k in (1, 2, 3)] == [[16.0], [32.0], [16.0]]
    assert (float(shared.result()), float(own.result())) == (0, 32)


STOCK = {
    "accuracy": keras.metrics.SparseCategoricalAccuracy,
    "auc": lambda: keras.metrics.AUC(num_thresholds=7, multi_label=True, num_labels=3),
    "f1": lambda: keras.metrics.F1Score(threshold=0.5),
    "iou": lambda: keras.metrics.MeanIoU(num_classes=3, sparse_y_pred=False, sparse_y_true=False),
    "precision": lambda: keras.metrics.Precision(top_k=2),
    "wrapper": lambda: keras.metrics.MeanMetricWrapper(lambda y, p: keras.ops.abs(y - p), "own"),
    "r2": keras.metrics.R2Score,
    "mse": keras.metrics.MeanSquaredError,
    "top": lambda: keras.metrics.SparseTopKCategoricalAccuracy(2),
}


@pytest.mark.parametrize("name", STOCK)
def test_a_copy_measures_what_its_original_does(name):
    original = STOCK[name]()
    sparse = name in ("accuracy", "top")
    y = Y[:, None] if sparse else np.eye(3, dtype="float32")[Y]
    p = keras.ops.softmax(X[:, :3])
    original.update_state(y, p)
    half = exit_settings([True, True], metrics=[original])(0)["metrics"][0]
    assert type(half) is type(original)
    for metric in (original, half):
        metric.update_state(y[::-1], p)
    np.testing.assert_array_equal(original.result(), half.result())
    half.reset_state()
    half.update_state(y, p)
    assert not {*map(id, half.variables)} & {*map(id, original.variables)}
    assert [v.name for v in half.variables] == [v.name for v in original.variables]


SPELLINGS = {
    "none": (None, [None, None]),
    "flat": (["mse", "mae"], [["mse", "mae"]] * 2),
    "lists": ([["mse"], ["mae", "mse"]], [["mse"], ["mae", "mse"]]),
    "none_beside_a_list": ([None, ["mae"]], [None, ["mae"]]),
    "dict": ({"output": "mse"}, [{"output": "mse"}] * 2),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_says_which_head_has_which_metrics(name):
    given, wanted = SPELLINGS[name]
    own = exit_settings([True, True], loss="mse", metrics=given)
    assert [own(k)["metrics"] for k in range(2)] == wanted
    assert own(1)["loss"] == "mse"


@pytest.mark.parametrize("given", [[["mse"]], [["mse"]] * 3, [["mse"], "mae"]])
def test_lists_for_another_number_of_heads_are_refused(given):
    with pytest.raises(ValueError, match=r"a list of 2 lists \(or None\), one per head. Received"):
        exit_settings([True, True], metrics=given)


class Stubborn(Count):
    def __new__(cls, factor, name):
        return super().__new__(cls)


def test_a_metric_that_cannot_be_copied_asks_for_lists():
    with pytest.raises(ValueError, match=r"(?s)stubborn.*missing 2 required.*`metrics=\[\["):
        trained(2, [Stubborn(1.0, name="stubborn")])
