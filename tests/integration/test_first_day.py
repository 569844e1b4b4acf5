"""What people meet on their first day; rows are reports, and the next one is one more row."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl

L = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 6)).astype("float32"), np.arange(24) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make(optimizer="sgd", loss=LOSS, kind=trgl.GreedyModel, **options):
    rows = [[trgl.layers.ResidualBlock([L.Dense(6, activation="tanh")])] for _ in range(2)]
    model = kind(rows, [trgl.heads.LinearHead(3) for _ in rows], seed=0, **options)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def fitted():
    model = make()
    model.fit(X, Y, verbose=0)
    return model


@pytest.mark.parametrize("name", ["run.keras", "run.weights.h5"])
def test_a_folder_with_other_things_is_not_overwritten(tmp_path, name):
    model = make()
    model.build((None, 6))
    folder = tmp_path / name
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    save = model.save if name.endswith(".keras") else model.save_weights
    with pytest.raises(IsADirectoryError, match="Choose another name"):
        save(folder)
    assert (folder / "precious.txt").read_text() == "mine"


def test_a_model_saved_as_a_folder_is_overwritten(tmp_path):
    model = make()
    model.build((None, 6))
    for _ in range(2):
        model.save(tmp_path / "run", zipped=False)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(IsADirectoryError):
        model.save(tmp_path / "run", zipped=False)


def test_a_link_stays_one_and_its_file_is_written(tmp_path):
    model = make()
    model.build((None, 6))
    (tmp_path / "real").mkdir()
    link = tmp_path / "latest.keras"
    os.symlink(tmp_path / "real" / "first.keras", link)
    model.save(link)
    assert link.is_symlink()
    assert trgl.load_model(tmp_path / "real" / "first.keras").num_stages == 2
    assert [one.name for one in (tmp_path / "real").iterdir()] == ["first.keras"]


@pytest.mark.parametrize("scaled", [False, True])
def test_a_rate_set_on_the_optimizer_that_was_given_acts_from_the_next_fit_on(scaled):
    given = keras.optimizers.SGD(0.1)
    model = make(keras.optimizers.LossScaleOptimizer(given) if scaled else given)
    model.fit(X, Y, verbose=0)
    given.learning_rate = 0.0
    before = [one.numpy() for one in model.trainable_variables]
    model.fit(X, Y, verbose=0)
    for one, other in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert float(model.optimizer.learning_rate) == 0.0
    model.optimizer.learning_rate = 0.5
    model.fit(X, Y, verbose=0)
    assert float(model.optimizer.learning_rate) == 0.5


def sequences():
    rows = [[L.GRU(4, return_sequences=True)], [L.GRU(4)]]
    heads = [trgl.heads.LinearHead(3) for _ in rows]
    model = trgl.GreedyModel(rows, heads, "vangl", trgl.regimes.Buffered(2), seed=0)
    model.compile("sgd", LOSS)
    return model


class OwnLoss(trgl.GreedyModel):
    """Says itself what is minimised."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y_pred))


def test_a_loss_of_ones_own_needs_no_other():
    history = make(loss=None, kind=OwnLoss).fit(X, Y, verbose=0).history
    assert np.isfinite(history["stage_1_loss"][0])


def test_an_evaluation_of_no_rows_is_empty_and_names_are_those_of_the_list():
    model = make()
    model.fit(X, Y, verbose=0)
    assert len(model.metrics_names) == len(model.evaluate(X, Y, verbose=0)) == 2
    with pytest.warns(UserWarning, match="ran out of data"):
        assert model.evaluate(X[:0], Y[:0], verbose=0) == []


@pytest.mark.parametrize("name", ["TRGL", "trgl", "PredSim", "pred_sim", "EndToEnd", "VanGL"])
def test_a_method_is_known_by_its_class_or_as_python_would_write_it(name):
    model = make(method=name)
    assert type(model.method).__name__.lower() == name.replace("_", "").lower()


class Typo(trgl.methods.VanGL):
    """Asks for what there is not."""

    loss_names = None

    def stage_losses(self, step):
        return {"task": step.featurez}


def sized(dataset):
    return dataset.batch(8).take(3).filter(lambda x, y: True)


CACHED = trgl.regimes.Sequential(epochs=1, cache=trgl.regimes.feature_cache.FeatureCache(copies=1))
MISTAKES = {
    "tau after the model was made": (
        lambda: setattr(make().method, "tau", 0.1),
        AttributeError,
        r"Make another model with `TRGL\(tau=0.1\)`",
    ),
    "epochs after the model was made": (
        lambda: setattr(make(regime=trgl.regimes.Sequential(epochs=1)).regime, "epochs", 3),
        AttributeError,
        "is settled once a model has this Sequential",
    ),
    "batches of several lengths in stores": (
        lambda: sequences().fit(
            tf.data.Dataset.from_tensor_slices((tf.ragged.range([1, 2, 3, 4]), [0, 1, 2, 0]))
            .map(lambda x, y: (tf.cast(x[:, None], tf.float32), y))
            .padded_batch(2),
            verbose=0,
        ),
        ValueError,
        "must have one shape",
    ),
    "predictions of no rows": (
        lambda: make().predict_exits(X[:0], verbose=0),
        ValueError,
        "one row at least",
    ),
    "a backup where a file is": (
        lambda: make().fit(X, Y, callbacks=[trgl.callbacks.BackupAndRestore(__file__)], verbose=0),
        OSError,
        "`backup_dir` must be a folder",
    ),
    "a report where a file is": (
        lambda: trgl.diagnostics.report(fitted(), (X, Y), __file__),
        OSError,
        "`folder` must be a folder, or a place for one",
    ),
    "weights of classes in a list": (
        lambda: make().fit(X, Y, class_weight=[1.0, 2.0, 1.0], verbose=0),
        TypeError,
        "`class_weight` must be a dict of class index to weight. Received: a list",
    ),
    "weights of classes by name": (
        lambda: make().fit(X, Y, class_weight={"cat": 2.0}, verbose=0),
        TypeError,
        "key` must be an integer. Received: class_weight's key='cat'",
    ),
    "a folder that is not there": (
        lambda: make().save("nowhere/at/all.keras"),
        FileNotFoundError,
        "The folder to save in must be there",
    ),
    "no path": (lambda: make().save(None), TypeError, "ends in `.keras`"),
    "an input layer": (
        lambda: trgl.GreedyModel([[L.InputLayer((6,))]], [L.Dense(3)], "vangl"),
        TypeError,
        r"Leave it out, and call `model.build\(shape\)`",
    ),
    "an input": (
        lambda: trgl.GreedyModel([[keras.Input((6,))]], [L.Dense(3)], "vangl"),
        TypeError,
        "Leave `keras.Input` out",
    ),
    "a loss without a reduction": (
        lambda: make(loss=keras.losses.MeanSquaredError(reduction="none")),
        ValueError,
        "reduction='none'. Leave `reduction` out",
    ),
    "a typo in a method": (
        lambda: make(method=Typo()).fit(X, Y, verbose=0),
        AttributeError,
        "^'StageBatch' object has no attribute 'featurez'$",
    ),
    "a pipeline of unknown length": (
        lambda: make(regime=CACHED).fit(
            sized(tf.data.Dataset.from_tensor_slices((X, Y))), epochs=2, verbose=0
        ),
        ValueError,
        "assert_cardinality",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mistake, kind, said = MISTAKES[name]
    with pytest.raises(kind, match=said) as told:
        mistake()
    assert len(str(told.value).splitlines()) <= 5
