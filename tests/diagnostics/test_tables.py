"""What diagnostics give and take: tables, samples, models of both kinds, and what they refuse."""

import csv
import sys

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl import diagnostics
from keras_trgl.diagnostics import sampled
from keras_trgl.network.seen_by_depth import pooled

TABLE = diagnostics.DepthTable(
    "Things",
    (1, 2),
    {"a": (0.5, float("nan")), "b": (123456.0, 1e-7)},
    {"a": "share, 0 to 1", "b": "units"},
    {"model": "net", "rows": "all 4 rows"},
)


def test_a_table_prints_its_numbers_and_where_they_come_from():
    assert str(TABLE).splitlines() == [
        "Things",
        "depth       a         b",
        "1      0.5000  1.23e+05",
        "2           -  1.00e-07",
        "model: net",
        "rows: all 4 rows",
    ]


def test_a_long_table_has_a_short_repr():
    columns = {f"stage_{k}_accuracy": (1 / 3,) * 100 for k in range(30)}
    text = repr(diagnostics.DepthTable("history", tuple(range(100)), columns, {}, {}))
    assert len(text) < 300
    assert text.endswith("stage_3_accuracy=(0.333, 0.333, 0.333, 0.333, …), … 30 columns)")


def test_a_table_is_written_as_csv_without_loss(tmp_path):
    TABLE.to_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["depth", "a", "b"]
    assert rows[2] == ["2", "", "1e-07"]
    assert [float(row[2]) for row in rows[1:]] == list(TABLE.columns["b"])


def test_a_column_that_is_not_there_is_told():
    with pytest.raises(KeyError, match=r"one of a, b\. Received: 'c'"):
        TABLE["c"]


def test_a_table_is_drawn_with_a_panel_per_unit(tmp_path):
    pytest.importorskip("matplotlib")
    figure = TABLE.plot(tmp_path / "table.png", subject="digits, net")
    assert [one.get_ylabel() for one in figure.axes] == ["share, 0 to 1", "units"]
    assert [one.get_xlabel() for one in figure.axes] == ["depth k"] * 2
    assert figure.get_suptitle() == "digits, net: Things"
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_depths_are_chosen_and_named(tiny_model, images):
    both = diagnostics.transport(tiny_model, images[0])
    assert both.index == (1, 2)
    second = diagnostics.transport(tiny_model, images[0], cuts=[2])
    assert second.index == (2,)
    assert second["energy"][0] == pytest.approx(both["energy"][1])
    assert second["displacement"][0] == pytest.approx(both["displacement"][1])


def test_a_plain_model_with_cuts_is_seen_as_stages_are(tiny_model, images):
    x, y = images
    inputs = keras.Input((8, 8, 4))
    features = inputs
    for k, stage in enumerate(tiny_model.stages):
        for block in stage.blocks:
            features = block(features)
        features = keras.layers.Identity(name=f"cut_{k + 1}")(features)
    plain = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(features))
    cuts = ["cut_1", "cut_2"]
    for find, columns in (
        (diagnostics.separability, ["probe", "train"]),
        (diagnostics.wasserstein, ["w2"]),
        (diagnostics.monge_gap, ["gap", "cost"]),
        (diagnostics.transport, ["displacement"]),
    ):
        found, wanted = find(plain, (x, y), cuts=cuts), find(tiny_model, (x, y))
        assert found.index == ("cut_1", "cut_2")
        for column in columns:
            np.testing.assert_allclose(found[column], wanted[column], rtol=1e-4, atol=1e-6)
    assert "head" not in diagnostics.separability(plain, (x, y), cuts=cuts).columns
    assert np.isnan(diagnostics.transport(plain, x, cuts=["cut_2"])["energy"][0])


def test_looking_changes_nothing(tiny_model, images):
    before = [np.array(weight) for weight in tiny_model.weights]
    losses = len(tiny_model.losses)
    diagnostics.transport(tiny_model, images[0])
    diagnostics.calibration(tiny_model, images)
    for weight, was in zip(tiny_model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, was)
    assert len(tiny_model.losses) == losses
    assert all(stage.energy is None for stage in tiny_model.stages)


def test_every_beginning_of_a_sample_has_the_same_share_of_a_class():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = sampled.stratified_order(labels, 100, seed=0)
    assert sorted(order) == list(range(100))
    for size in (10, 20, 50):
        shares = np.bincount(labels[order[:size]], minlength=3) / size
        np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.101)
    assert list(order) != list(sampled.stratified_order(labels, 100, seed=1))


def test_channels_are_found_where_the_format_says():
    x = np.arange(24, dtype="float32").reshape(1, 2, 3, 4)
    assert pooled(x, "channels_last").shape == (1, 4)
    np.testing.assert_allclose(pooled(x, "channels_first"), x.mean((2, 3)))
    # A sequence has its channels last in any case.
    np.testing.assert_allclose(pooled(x[0], "channels_first"), x[0].mean(1))


def test_a_stage_without_a_head_has_no_prediction_and_all_else(images):
    blocks = [
        trgl.layers.ResidualBlock(
            [keras.layers.Conv2D(4, 3, padding="same")], input_shape=(8, 8, 4) if not k else None
        )
        for k in range(2)
    ]
    method = trgl.methods.InfoPro("contrast", reconstruction_weight=0.0)
    model = trgl.GreedyModel.from_blocks(
        blocks, [1, 1], trgl.heads.LinearHead(3), method=method, seed=0
    )
    found = diagnostics.calibration(model, images)
    assert np.isnan(found["ece"][0])
    assert 0 <= found["ece"][1] <= 1
    assert np.isnan(diagnostics.failure_prediction(model, images)["right"][0])
    assert not np.isnan(diagnostics.separability(model, images)["probe"]).any()


def test_history_by_stage_is_sorted_by_what_is_logged():
    nothing = float("nan")
    logs = {
        "loss": [1.0, 0.5],
        "val_stage_1_loss": [3.0, 2.5],
        "stage_2_loss": [nothing, 0.5],
        "stage_1_loss": [1.0, nothing],
        "stage_10_loss": [1.5, 2.5],
    }
    found = diagnostics.history_by_stage(logs)
    assert list(found.columns) == [
        *("val_stage_1_loss", "stage_1_loss", "stage_2_loss", "stage_10_loss"),
    ]
    assert found.index == (1, 2)
    assert np.isnan(found["stage_1_loss"][1])


X, Y = np.random.default_rng(0).normal(size=(12, 6)).astype("float32"), np.arange(12) % 3


def net(last="linear"):
    blocks = [keras.layers.Dense(6), keras.layers.Dense(6)]
    head = keras.layers.Dense(3, last)
    made = trgl.GreedyModel.from_blocks(blocks, [1, 1], head, method="vangl", seed=0, name="net")
    made.build((None, 6))
    return made


def broken():
    made = net()
    made.stages[1].blocks[0].kernel.assign(np.full((6, 6), np.nan))
    return made


def unbuilt():
    blocks = [keras.layers.Dense(6)]
    return trgl.GreedyModel.from_blocks(blocks, [1], keras.layers.Dense(3), method="vangl")


def plain():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(6, name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(hidden), name="plain")


D = diagnostics

MISTAKES = {
    "fewer rows than classes": (
        lambda: D.separability(net(), (X[:4], Y[:4])),
        r"twice as many rows as classes, of which there are 3\. Received: 4 rows",
    ),
    "a small sample": (
        lambda: D.information(net(), (X, Y), sample=5),
        "Received: 5 rows. Take a larger `sample`",
    ),
    "one class": (
        lambda: D.separability(net(), (X, Y * 0)),
        "there must be two at least. Received: labels of class 0 alone",
    ),
    "a depth that is not there": (
        lambda: D.transport(net(), X, cuts=[1, 3]),
        r"Depths must be 1 to 2, the number of stages\. Received: cuts=\[1, 3\]",
    ),
    "no depth": (lambda: D.wasserstein(net(), X, cuts=[]), r"Depths must be 1 to 2.*cuts=\[\]"),
    "depth 0": (lambda: D.transport(net(), X, cuts=[0]), "`cuts` must be at least 1"),
    "a depth's name": (lambda: D.transport(net(), X, cuts=["a"]), "`cuts` must be an integer"),
    "one depth": (lambda: D.transport(net(), X, cuts=2), "`cuts` must be a list of depths"),
    "a cut that is not there": (
        lambda: D.separability(plain(), (X, Y), cuts=["first"]),
        r"names of the model's layers\. Received: \['first'\].*the model has .*last",
    ),
    "cuts against the order": (
        lambda: D.transport(plain(), X, cuts=["last", "hidden"]),
        r"in the model's order, each name once\. Received.*In order: \['hidden', 'last'\]",
    ),
    "a cut twice": (
        lambda: D.separability(plain(), (X, Y), cuts=["last", "last"]),
        r"each name once\. Received: \['last', 'last'\]\. In order: \['last'\]",
    ),
    "cuts of a second model that is not there": (
        lambda: D.similarity(net(), X, other_cuts=[1]),
        r"`other_cuts` are those of `other`\. Received: other_cuts=\[1\] without it",
    ),
    "no cuts": (
        lambda: D.separability(plain(), (X, Y)),
        "A plain model has no depths of its own. Received: cuts=None. Name layers",
    ),
    "a plain model that is not built": (
        lambda: D.transport(
            keras.Sequential([keras.layers.Dense(3, name="a")], name="row"), X, cuts=["a"]
        ),
        "must be functional or sequential, built.*Received: Sequential 'row'",
    ),
    "an unbuilt model": (lambda: D.transport(unbuilt(), X), "Received: an unbuilt model"),
    "no model": (lambda: D.transport("net", X), "`model` must be a `GreedyModel` or another"),
    "a plain model's heads": (
        lambda: D.calibration(plain(), (X, Y)),
        r"those of a `GreedyModel`\. Received.*from_model",
    ),
    "features that are no numbers": (
        lambda: D.separability(broken(), (X, Y)),
        "Features must be finite. Received: NaN or infinite numbers at depth 2, in 12 of 12 rows",
    ),
    "predictions that are no numbers": (
        lambda: D.calibration(broken(), (X, Y)),
        "Predictions must be finite. Received: NaN or infinite numbers at depth 2",
    ),
    "data that are no numbers": (
        lambda: D.wasserstein(net(), np.full((4, 6), np.nan)),
        "Features must be finite. Received: NaN or infinite numbers before depth 1",
    ),
    "too many rows for an assignment": (
        lambda: D.wasserstein(net(), X, sample=5001),
        r"An exact assignment takes at most 5000 rows\. Received: sample=5001",
    ),
    "features too wide for an assignment": (
        lambda: D.monge_gap(net(), X, dimensions=64),
        r"at most 32 dimensions for an exact assignment.*Received: dimensions=64",
    ),
    "one point": (lambda: D.monge_gap(net(), X, sample=1), "`sample` must be at least 2"),
    "three rows to compare": (
        lambda: D.similarity(net(), X[:3]),
        "Similarity takes 4 rows at least. Received: 3",
    ),
    "batches of two to compare": (
        lambda: D.similarity(net(), X, batch_size=2),
        "`batch_size` must be at least 4",
    ),
    "no labels": (lambda: D.calibration(net(), X), "Labels are needed here"),
    "labels that the heads do not know": (
        lambda: D.calibration(net(), (X, Y + 1)),
        r"classes that the heads know, 0 to 2\. Received: label 3\. Count classes from 0",
    ),
    "labels below 0": (lambda: D.calibration(net(), (X, Y - 1)), "at least 0. Received: -1"),
    "labels with a point": (lambda: D.calibration(net(), (X, Y + 0.5)), "must be whole numbers"),
    "labels of text": (lambda: D.calibration(net(), (X, Y.astype(str))), "must be whole numbers"),
    "labels of two kinds": (
        lambda: D.calibration(net(), (X, np.ones((12, 3)))),
        "Labels of several columns must be one-hot",
    ),
    "labels of two ones": (
        lambda: D.calibration(net(), (X, np.eye(3)[Y] + np.eye(3)[(Y + 1) % 3])),
        "Labels of several columns must be one-hot",
    ),
    "soft labels": (
        lambda: D.calibration(net(), (X, np.tile([0.4, 0.6, 0.0], (12, 1)))),
        "Labels of several columns must be one-hot",
    ),
    "labels of three axes": (
        lambda: D.calibration(net(), (X, np.zeros((12, 1, 1)))),
        r"must be `\(examples,\)` or one-hot\. Received: shape",
    ),
    "fewer labels than rows": (
        lambda: D.separability(net(), (X, Y[:6])),
        "as many labels as examples. Received: 12 examples and 6 labels",
    ),
    "no rows": (lambda: D.transport(net(), X[:0]), "`data` must be an array of examples"),
    "logits for probabilities": (
        lambda: D.calibration(net(), (X, Y), predictions="probabilities"),
        "Pass `predictions='logits'`",
    ),
    "probabilities for logits": (
        lambda: D.failure_prediction(net("softmax"), (X, Y)),
        "Pass `predictions='probabilities'`",
    ),
    "another word for predictions": (
        lambda: D.calibration(net(), (X, Y), predictions="odds"),
        "`predictions` must be one of",
    ),
    "another word for reduction": (
        lambda: D.transport(net(), X, reduction="max"),
        "`reduction` must be one of",
    ),
    "nothing to judge by": (
        lambda: D.separability(net(), (X, Y), held_out=1.0),
        r"`held_out` must lie between 0 and 1\. Received: held_out=1.0",
    ),
    "no epochs": (lambda: D.information(net(), (X, Y), epochs=0), "`epochs` must be at least 1"),
    "no history": (lambda: D.history_by_stage([1, 2]), "`history` must be what `fit` gave"),
    "a history of no stages": (
        lambda: D.history_by_stage({"loss": [1.0]}),
        r"has entries `stage_k_…`\. Received: loss",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.sampled(12)
def test_a_mistake_is_told_in_one_sentence_with_the_way_out(mistake):
    call, said = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        call()
    text = str(caught.value)
    assert "Received" in text or "must" in text
    assert len(text.splitlines()) <= 5


@pytest.mark.parametrize(
    ("find", "module"),
    [(D.separability, "sklearn.linear_model"), (D.wasserstein, "scipy.optimize")],
)
def test_without_the_packages_the_extra_is_named(find, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install keras-trgl\[analysis\]"):
        find(net(), (X, Y))
