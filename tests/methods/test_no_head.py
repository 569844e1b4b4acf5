"""Stages without a head: what trains, what is logged, and who gets a sentence."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import LocalMethod

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.integers(0, 3, 16)


@keras.saving.register_keras_serializable("tests")
class Sizes(LocalMethod):
    """Features of size one below the last stage; there the task loss."""

    def stage_predicts(self, stage):
        return stage.is_last

    def stage_losses(self, step):
        if step.stage.is_last:
            return {"task": step.task_loss}
        assert step.prediction is None
        return {"size": ops.mean(ops.square(ops.mean(ops.square(step.features), axis=-1) - 1.0))}


def make(method=None, compiled=True, **options):
    blocks = [
        ResidualBlock([keras.layers.Dense(6, "tanh")], input_shape=(6,) if k == 0 else None)
        for k in range(3)
    ]
    model = GreedyModel.from_blocks(
        blocks, [1, 1, 1], LinearHead(3), method=method or Sizes(), seed=0, **options
    )
    if compiled:
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(model, **options):
    options = {"epochs": 2, **options}
    return model.fit(X, Y, batch_size=8, verbose=0, **options).history


def test_stages_train_by_their_own_terms_and_log_no_loss():
    model = make()
    before = [stage.get_weights()[0] for stage in model.stages]
    history = fit(model, validation_data=(X, Y))
    for stage, kernel in zip(model.stages, before, strict=True):
        assert not np.array_equal(stage.get_weights()[0], kernel)
    for k in (1, 2):
        np.testing.assert_allclose(history[f"stage_{k}_objective"], history[f"stage_{k}_size"])
        assert not {f"stage_{k}_loss", f"val_stage_{k}_loss"} & set(history)
    assert history["val_loss"] == history["val_stage_3_loss"]
    assert not model.heads[0].weights
    assert "no_head" not in str(model.get_layer("head_3").name)


def test_metrics_go_to_the_other_heads_and_a_sentence_says_so():
    model = make(compiled=False)
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.warns(UserWarning, match=r"`metrics` measure predictions.*none at depth 1, 2: the"):
        model.compile("sgd", loss, metrics=[accuracy])
    history = fit(model, validation_data=(X, Y))
    assert {key for key in history if "accuracy" in key} == {
        *("accuracy", "stage_3_accuracy", "val_accuracy", "val_stage_3_accuracy")
    }
    # One head is served, so the metric is the very object.
    assert float(accuracy.result()) == model.evaluate(X, Y, verbose=0)[1]


ASKED = {
    "exits": lambda m, _: m.predict_exits(X, verbose=0),
    "exit": lambda m, _: m(X, exits=1),
    "truncate": lambda m, _: m.truncate(2),
    "export": lambda m, path: trgl.export.export_exit(m, 1, path),
    "serving": lambda m, path: trgl.export.export_serving(m, path),
}


@pytest.mark.parametrize("case", ASKED)
def test_a_depth_without_a_head_is_refused_in_a_sentence(case, tmp_path):
    # Keras puts its own words around what is raised in a call.
    wanted = r"A depth can predict .* depth [12] of a model whose method is Sizes\(\), .*depth, 3\."
    with pytest.raises(ValueError, match=wanted):
        ASKED[case](make(), tmp_path / "out")


def test_the_last_depth_is_served():
    model = make()
    cut = model.truncate(3)
    np.testing.assert_allclose(
        cut.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6
    )


def test_in_turn_the_loss_without_a_prefix_is_what_is_minimised():
    history = fit(make(regime=trgl.regimes.Sequential(1)), epochs=None)
    assert history["loss"][:2] == [history[f"stage_{k}_objective"][k - 1] for k in (1, 2)]


def test_the_last_stage_must_predict():
    class Never(LocalMethod):
        def stage_predicts(self, stage):
            return False

    with pytest.raises(ValueError, match=r"The last stage must predict.*`return stage.is_last`"):
        make(Never())


def test_a_multiplier_needs_the_task_loss():
    class Both(Sizes):
        def stage_regularizer(self, stage):
            return trgl.regularizers.KineticEnergy(1.0)

    update = trgl.callbacks.MultiplierUpdate(h=1.0, s=1)
    with pytest.raises(ValueError, match=r"must have one\. Received: Both\(\).*depth 1, 2\. Leave"):
        fit(make(Both()), callbacks=[update])


def test_the_best_depth_is_sought_among_those_that_predict():
    logs = {"loss": 0.5, "stage_2_loss": 0.25, "stage_3_loss": 0.5, "stage_1_size": 0.0}
    assert trgl.callbacks.DepthProgbar.shorten(logs)["best_depth"] == 2


@pytest.mark.multi_device
@pytest.mark.parametrize("rule", ["memory", "time"])
def test_devices_are_chosen_without_the_head_that_is_not_there(rule):
    strategy = trgl.distribute.StageParallelStrategy(["CPU:0", "CPU:1"], stage_devices=rule)
    with strategy.scope():
        placed = make()
    fit(placed)
    plain = make()
    fit(plain)
    for one, other in zip(plain.get_weights(), placed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_is_saved_and_shown(tmp_path):
    model = make()
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = trgl.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    lines = []
    model.summary(print_fn=lines.append)
    assert "head 3" in lines[0]
    assert "head 1" not in lines[0]
