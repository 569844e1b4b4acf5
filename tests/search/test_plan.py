"""Plans: the least work within a budget, and a refusal that says the least budget."""

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead

SHAPE = (16, 16, 3)


def blocks():
    return resnet(14, SHAPE, widths=(4, 4, 4))


def planned(share=None, max_bytes=2**40, given=None, **options):
    given = blocks() if given is None else given
    options = {"head": LinearHead(3), "optimizer": "sgd", **options}
    found = trgl.plan(given, 64, max_bytes, **options)
    if share is None:
        return found
    return trgl.plan(given, 64, int(share * found.weighed[0].predicted_bytes), **options)


def test_a_large_budget_changes_nothing():
    found = planned()
    assert (found.stage_sizes, found.micro_batches, found.remat) == ((6,), 1, False)
    assert found.weighed[0].work == 0


@pytest.mark.parametrize("share", [0.7, 0.4, 0.2])
def test_the_plan_is_the_least_work_of_those_that_fit(share):
    found = planned(share)
    assert found.predicted_bytes <= found.max_bytes
    fits = [one for one in found.weighed if one.predicted_bytes <= found.max_bytes]
    assert fits[0].predicted_bytes == found.predicted_bytes
    assert min(one.work for one in fits) == fits[0].work
    assert sum(found.stage_sizes) == 6


def test_it_is_shown_in_a_line_and_as_a_table():
    found = planned(0.4)
    assert len(repr(found)) < 120
    assert f"stage_sizes={found.stage_sizes}" in repr(found)
    rows = found.table.splitlines()
    assert len(rows) == 1 + len(found.weighed)
    assert {row.split()[-1] for row in rows[1:]} == {"yes", "no"}
    with pytest.raises(AttributeError):
        found.remat = True


def test_a_budget_that_no_plan_meets_names_the_least_and_what_sets_it():
    with pytest.raises(ValueError, match="What sets it is") as refused:
        planned(max_bytes=1000)
    message = str(refused.value)
    assert "block" in message or "weights" in message
    least = int(message.split("at least ")[1].split(" (")[0].replace(",", ""))
    assert planned(max_bytes=least).predicted_bytes == least
    with pytest.raises(ValueError, match="must be at least"):
        planned(max_bytes=least - 1)


def test_large_weights_are_named_where_they_set_it():
    large = [keras.layers.Dense(512), *[keras.layers.Dense(512) for _ in range(3)]]
    with pytest.raises(ValueError, match="weights, slots and the batch"):
        planned(max_bytes=1000, given=large, input_shape=(4,), method="vangl", optimizer="adam")


def test_it_makes_a_model_that_trains_as_planned():
    found = planned(0.2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = found.make(loss, metrics=["accuracy"], seed=3)
    assert [len(stage.blocks) for stage in model.stages] == list(found.stage_sizes)
    steps = model._trainer.steps
    assert {step.micro_batches for step in steps.steps} == {found.micro_batches}
    assert {step.remat is not None for step in steps.steps} == {found.remat}
    assert model.seed == 3
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, *SHAPE)), np.zeros(64, int)
    assert np.isfinite(model.fit(x, y, batch_size=64, verbose=0).history["loss"]).all()


def test_a_functional_model_is_planned_by_its_residuals():
    inputs = keras.Input((8, 8, 4))
    x = inputs
    for _ in range(3):
        x = keras.layers.Add()([x, keras.layers.Conv2D(4, 3, padding="same")(x)])
    source = keras.Model(inputs, x)
    found = planned(0.6, given=source)
    assert sum(found.stage_sizes) == 3
    assert len(found.stage_sizes) > 1 or found.micro_batches > 1
    assert any(one.remat for one in found.weighed)
    model = found.make(keras.losses.SparseCategoricalCrossentropy(from_logits=True), seed=0)
    assert model.num_stages == len(found.stage_sizes)
    data = np.random.default_rng(0).normal(size=(64, 8, 8, 4)), np.zeros(64, int)
    assert np.isfinite(model.fit(*data, batch_size=64, verbose=0).history["loss"]).all()


def test_stores_of_the_buffered_regime_count():
    plain, stored = (
        planned(regime=regime).weighed for regime in ("parallel", trgl.regimes.Buffered(capacity=4))
    )
    both = [
        (a.predicted_bytes, b.predicted_bytes)
        for a in plain
        for b in stored
        if a.stage_sizes == b.stage_sizes == (3, 3) and a.micro_batches == b.micro_batches == 1
    ]
    assert all(more > less for less, more in both)


def test_the_picture_has_the_budget(tmp_path):
    pytest.importorskip("matplotlib")
    planned(0.4).plot(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"head": None}, ValueError, "Every stage needs a head"),
        ({"max_bytes": 0}, ValueError, "`max_bytes` must be at least 1"),
        ({"max_bytes": 1e9}, TypeError, "`max_bytes` must be an integer"),
        ({"given": []}, ValueError, "A plan needs blocks"),
        ({"given": [keras.layers.Dense(3)]}, ValueError, "shape of the data must be known"),
        ({"head": 3}, TypeError, "must be Keras layers"),
    ],
)
def test_what_cannot_be_is_refused(options, kind, said):
    with pytest.raises(kind, match=said):
        planned(**options)


def test_a_summary_tells_bytes_by_stage(capsys):
    model = trgl.GreedyModel.from_blocks(blocks(), [2, 4], LinearHead(3), seed=0)
    model.compile("sgd", "mse")
    model.summary(batch_size=64)
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("stage ")]
    assert len(rows) == 2
    assert all(row.endswith("MiB") for row in rows)
    assert "At batch size 64 training takes" in text
    model.summary()
    assert "MiB" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        model.summary(batch_size=0)
