"""The regimes in which stages train in turn, through `fit`."""

import csv
import functools

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.callbacks import DepthProgbar
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.regimes import MultiLap, Parallel, Sequential, StopStage

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6)).astype("float32")
Y = RNG.integers(0, 3, 20)
K = 3


def make(regime, num_stages=K, optimizer=None, dropout=0.3, **options):
    blocks = [
        ResidualBlock(
            [
                keras.layers.Dense(6, "tanh"),
                keras.layers.Dropout(dropout),
                keras.layers.BatchNormalization(),
            ],
            input_shape=(6,) if k == 0 else None,
        )
        for k in range(num_stages)
    ]
    model = GreedyModel.from_blocks(blocks, [1] * num_stages, LinearHead(3), regime=regime, seed=0)
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def fit(model, **options):
    return model.fit(X, Y, **({"batch_size": 10, "verbose": 0} | options)).history


@functools.cache
def trained(regime):
    """Give a model that was trained, and its history."""
    made = {"sequential": Sequential([1, 2, 2]), "one_lap": MultiLap([1, 2, 2], num_laps=1)}
    model = make(made[regime])
    return model, fit(model)


def own_variables(model, k, optimizer=True):
    """Give all variables of a stage and its head, moving statistics included."""
    slots = model.optimizer.optimizers[k].variables if optimizer else []
    return [*model.stages[k].variables, *model.heads[k].variables, *slots]


def values(model, k):
    return [one.numpy() for one in own_variables(model, k)]


def moving(model, k):
    return [one.numpy() for one in model.stages[k].variables if "moving" in one.path]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def assert_equal(first, second, stages=range(K)):
    for k in stages:
        for one, other in zip(own_variables(first, k), own_variables(second, k), strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


class Watch(keras.callbacks.Callback):
    """Notes every stage's values at the start and after every epoch."""

    def on_train_begin(self, logs=None):
        self.before, self.moved, self.statistics = self.read(), [], []

    def read(self):
        model = self.model
        return [(values(model, k), moving(model, k)) for k in range(model.num_stages)]

    def on_epoch_end(self, epoch, logs=None):
        after = self.read()
        pairs = list(zip(self.before, after, strict=True))
        self.moved.append([k for k, (a, b) in enumerate(pairs) if not same(a[0], b[0])])
        self.statistics.append([k for k, (a, b) in enumerate(pairs) if not same(a[1], b[1])])
        self.before = after


def test_only_the_stage_whose_turn_it_is_changes():
    watch = Watch()
    fit(make(Sequential([1, 2, 1])), callbacks=[watch])
    assert watch.moved == [[0], [1], [1], [2]]
    assert watch.statistics == watch.moved


def test_statistics_of_frozen_stages_go_on_moving_in_training_mode():
    watch = Watch()
    model = make(Sequential(1, frozen="train"))
    fit(model, callbacks=[watch])
    assert watch.statistics == [[0], [0, 1], [0, 1, 2]]
    # Only the statistics: weights and optimizers of frozen stages stay.
    single = make(Sequential(1), num_stages=1)
    fit(single)
    for one, other in zip(
        single.stages[0].trainable_variables, model.stages[0].trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_frozen_modes_differ_from_the_second_stage_on():
    inference, training = make(Sequential(1)), make(Sequential(1, frozen="train"))
    logs = [fit(model) for model in (inference, training)]
    assert logs[0]["loss"][0] == logs[1]["loss"][0]
    assert logs[0]["loss"][1] != logs[1]["loss"][1]


def test_a_cache_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="only if frozen stages are in inference mode"):
        make(Sequential(1, cache="memory", frozen="train"))


def test_one_lap_is_sequential_bit_for_bit():
    (sequential, wanted), (one_lap, history) = trained("sequential"), trained("one_lap")
    assert_equal(one_lap, sequential)
    np.testing.assert_equal(history, wanted)


def test_first_stage_is_that_of_a_model_of_one_stage():
    model, history = trained("sequential")
    single = make(Parallel(), num_stages=1)
    wanted = fit(single, epochs=1)
    assert_equal(model, single, stages=[0])
    assert history["stage_1_loss"][:1] == wanted["loss"]


def test_a_later_stage_trains_on_the_features_of_the_frozen_ones():
    model, alone = make(Sequential(1), num_stages=2), make(Parallel(), num_stages=1)
    given = {"shuffle": False}
    fit(model, callbacks=[StopAfter(1)], **given)
    for one, other in zip(own_variables(alone, 0), own_variables(model, 1), strict=True):
        one.assign(other)
    features = np.asarray(model.stages[0](X, training=False))
    wanted = alone.fit(features, Y, batch_size=10, verbose=0, **given).history
    history = fit(model, initial_epoch=1, **given)
    assert history["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    for one, other in zip(values(alone, 0), values(model, 1), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


class StopAfter(keras.callbacks.Callback):
    """Stops the run after some epochs."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.epochs:
            self.model.stop_training = True


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_run_that_was_stopped_goes_on_as_one(after):
    whole, history = trained("sequential")
    model = make(Sequential([1, 2, 2]))
    first = fit(model, callbacks=[StopAfter(after)])
    second = fit(model, initial_epoch=after)
    assert_equal(model, whole)
    np.testing.assert_equal({key: first[key] + second[key] for key in first}, history)


def test_a_saved_run_goes_on_as_one(tmp_path):
    # Files of Keras hold no state of dropout.
    whole, model = (make(Sequential([1, 2, 2]), dropout=0.0) for _ in range(2))
    fit(whole)
    fit(model, callbacks=[StopAfter(2)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit(loaded, initial_epoch=2)
    assert_equal(loaded, whole)


def test_epochs_left_out_are_the_sum_and_more_an_error():
    model, history = trained("sequential")
    assert len(history["loss"]) == 5
    wanted = (
        r"`epochs` must be at most the sum of the stages' epochs, 5 = 1 \+ 2 \+ 2. "
        "Received: epochs=6. Leave it out, or change the regime's `epochs`."
    )
    with pytest.raises(ValueError, match=wanted):
        fit(model, epochs=6)


def test_a_list_of_epochs_of_another_length_is_an_error_at_once():
    with pytest.raises(ValueError, match=r"`epochs` must have one number per stage, 3."):
        make(Sequential([1, 2]))


def test_history_is_one_run_that_says_where_it_stood():
    model = make(MultiLap([2, 4, 2], num_laps=2))
    history = model.fit(X, Y, batch_size=10, validation_data=(X, Y), verbose=0)
    assert history.epoch == list(range(8))
    logs = history.history
    assert logs["stage"] == [1, 2, 2, 3] * 2
    assert logs["lap"] == [1] * 4 + [2] * 4
    assert logs["stage_epoch"] == [1, 1, 2, 1] * 2
    assert {len(values) for values in logs.values()} == {8}
    for k in range(1, K + 1):
        turn = [stage == k for stage in logs["stage"]]
        np.testing.assert_array_equal(np.isfinite(logs[f"stage_{k}_loss"]), turn)
        assert np.isfinite(logs[f"val_stage_{k}_loss"]).all()
    # The unprefixed entries are the training stage's, in validation too.
    for name in ("", "val_"):
        picked = [logs[f"{name}stage_{stage}_loss"][e] for e, stage in enumerate(logs["stage"])]
        assert logs[f"{name}loss"] == picked


def test_csv_logger_writes_a_row_per_epoch(tmp_path):
    fit(make(Sequential(1)), callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["stage"], row["lap"]) for row in rows] == [
        ("0", "1", "1"),
        ("1", "2", "1"),
        ("2", "3", "1"),
    ]
    assert all(np.isfinite(float(row["loss"])) for row in rows)


def test_a_stage_that_stops_gives_way_and_the_last_one_ends_the_run():
    patience, total = 2, 9
    regime = Sequential(total, stop=StopStage(patience, monitor="val_loss"))
    # Labels of the validation data are noise, so the loss soon rises.
    model = make(regime, optimizer=keras.optimizers.SGD(0.5))
    logs = fit(model, validation_data=(X, Y[::-1].copy()))
    wanted, epoch = [], 0
    for k in range(1, K + 1):
        best, wait, visit = np.inf, 0, 0
        while wait < patience and visit < total:
            value = logs[f"val_stage_{k}_loss"][epoch]
            best, wait = (value, 0) if value < best else (best, wait + 1)
            visit, epoch = visit + 1, epoch + 1
            wanted.append((k, visit))
    assert list(zip(logs["stage"], logs["stage_epoch"], strict=True)) == wanted
    assert len(wanted) < total * K


def test_a_run_with_early_stops_goes_on_as_one():
    regime = {"epochs": 4, "stop": StopStage(patience=1, monitor="accuracy", min_delta=0.5)}
    whole, parts = make(Sequential(**regime)), make(Sequential(**regime))
    history = fit(whole)
    # Nothing improves by half: every stage stops in its second epoch.
    assert history["stage_epoch"] == [1, 2] * K
    first = fit(parts, callbacks=[StopAfter(3)])
    second = fit(parts, initial_epoch=3)
    np.testing.assert_equal({key: first[key] + second[key] for key in first}, history)
    assert_equal(parts, whole)


def test_a_new_fit_forgets_the_stops_of_the_last():
    model = make(Sequential(3, stop=StopStage(patience=1, monitor="accuracy", min_delta=0.9)))
    assert fit(model)["stage_epoch"] == fit(model)["stage_epoch"] == [1, 2] * K


def test_a_name_that_is_not_logged_is_an_error_that_gives_those_that_are():
    model = make(Sequential(2, stop=StopStage(patience=1, monitor="auc")))
    with pytest.raises(ValueError, match="watches 'auc', so the logs must have 'stage_1_auc'"):
        fit(model)


def test_slots_of_an_optimizer_survive_between_laps():
    model, seen = make(MultiLap(2, num_laps=2)), []

    class Slots(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append([values(self.model, k) for k in range(K)])

        def on_epoch_end(self, epoch, logs=None):
            seen.append([values(self.model, k) for k in range(K)])

    fit(model, callbacks=[Slots()])
    # Stage 1 ends its first lap in epoch 0 and goes on in epoch 3, momentum and all.
    assert same(seen[1][0], seen[6][0])
    momentum = [v.numpy() for v in model.optimizer.optimizers[0].variables if "momentum" in v.path]
    assert momentum
    assert all(np.abs(one).max() > 0 for one in momentum)
    assert [int(one.iterations) for one in model.optimizer.optimizers] == [4, 4, 4]
    # Laps of one stage alone are one run: what lies between them does not touch it.
    single = make(Parallel(), num_stages=1)
    fit(single, epochs=1)
    fit(single, epochs=4, initial_epoch=3)
    assert_equal(model, single, stages=[0])


@pytest.mark.parametrize(("name", "kind"), [("sequential", Sequential), ("multi_lap", MultiLap)])
def test_a_regime_may_be_given_by_name(name, kind):
    model = make(name)
    assert isinstance(model.regime, kind)
    assert model.regime.get_config() == kind().get_config()


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"`regime` must be .*'sequential'.* Received: .*'series'"):
        make("series")


def test_train_on_batch_trains_the_first_stage():
    model = make(Sequential(1))
    before = [values(model, k) for k in range(K)]
    logs = model.train_on_batch(X, Y, return_dict=True)
    assert [same(before[k], values(model, k)) for k in range(K)] == [False, True, True]
    assert logs["loss"] == logs["stage_1_loss"]


def test_train_on_batch_gives_the_results_of_the_stage_that_trained():
    loss, accuracy = make(Sequential(1)).train_on_batch(X, Y)
    logs = make(Sequential(1)).train_on_batch(X, Y, return_dict=True)
    assert (loss, accuracy) == (logs["loss"], logs["accuracy"])


def test_steps_per_execution_change_nothing():
    whole, history = trained("sequential")
    model = make(Sequential([1, 2, 2]), steps_per_execution=2)
    np.testing.assert_equal(fit(model), history)
    assert_equal(model, whole)


@pytest.mark.parametrize(
    ("regime", "shown"),
    [
        (Sequential(1), [" stage: 1 -", " stage: 2 -", " stage: 3 -"]),
        (
            MultiLap(2, num_laps=2),
            [f" stage: {k} - lap: {lap} -" for lap in (1, 2) for k in (1, 2, 3)],
        ),
    ],
)
@pytest.mark.parametrize("verbose", [1, 2])
def test_the_progress_bar_says_which_stage_trains(regime, shown, verbose, capsys):
    make(regime).fit(X, Y, batch_size=10, verbose=verbose)
    text = capsys.readouterr().out
    places = [text.index(one) for one in shown]
    assert places == sorted(places)
    assert ("lap" in text) == ("lap" in shown[0])
    assert "stage_" not in text
    assert "best_depth" not in text


def test_the_progress_bar_of_other_runs_says_no_stage(capsys):
    model, bar = make(Sequential(1)), DepthProgbar()
    fit(model, verbose=1, callbacks=[bar])
    capsys.readouterr()
    model.evaluate(X, Y, verbose=1, callbacks=[bar])
    assert " stage:" not in capsys.readouterr().out
    fit(make(Parallel()), verbose=2)
    assert " stage:" not in capsys.readouterr().out
