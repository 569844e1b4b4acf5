"""Where stages train in turn, every name and every callback speaks of the stage in training.

Rows are situations: the next report is one more row.
"""

import contextlib
import io
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.callbacks import BackupAndRestore
from keras_trgl.callbacks.monitors import direction
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.regimes import MultiLap, Parallel, Sequential, StopStage

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.integers(0, 3, 24)
VALIDATION = (X, Y[::-1].copy())
"""Its labels are noise, so its loss soon rises."""
K = 3
CALLBACKS = keras.callbacks
SGD = keras.optimizers.SGD


def make(regime, num_stages=K, optimizer=None, kind=GreedyModel, metrics=("accuracy",), **options):
    blocks = [
        ResidualBlock([keras.layers.Dense(6, "tanh")], input_shape=(6,) if k == 0 else None)
        for k in range(num_stages)
    ]
    model = kind.from_blocks(blocks, [1] * num_stages, LinearHead(3), regime=regime, seed=0)
    model.compile(
        optimizer or SGD(0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
        **options,
    )
    return model


def fit(model, *callbacks, **options):
    options = {"batch_size": 12, "verbose": 0, "validation_data": VALIDATION} | options
    return model.fit(X, Y, callbacks=list(callbacks), **options).history


def values(model, k):
    return [one.numpy() for one in [*model.stages[k].weights, *model.heads[k].weights]]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


class Watch(CALLBACKS.Callback):
    """Every stage's weights before an epoch's first step and after its last, by epoch."""

    def on_train_begin(self, logs=None):
        self.before, self.after = [], []

    def read(self):
        return [values(self.model, k) for k in range(self.model.num_stages)]

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.before.append(self.read())

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.after.append(self.read())


class Tells(GreedyModel):
    """A model with metrics of its own making."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        super().compute_metrics(x, y, y_pred, sample_weight)
        return {"largest": keras.ops.max(y_pred)}


def several(name):
    return [keras.metrics.SparseCategoricalAccuracy(name=f"{name}{k}") for k in range(K)]


# Names ------------------------------------------------------------------------------------------

LAPS = {"epochs": 2, "num_laps": 2}


@pytest.mark.parametrize(
    ("regime", "options"),
    [
        (Sequential([1, 2, 1]), {}),
        (MultiLap(**LAPS), {}),
        (Sequential([1, 2, 1], cache="memory"), {}),
        (Sequential(1), {"run_eagerly": True}),
        (Sequential(1), {"steps_per_execution": 2}),
        (Sequential(1), {"kind": Tells}),
        (Sequential(1), {"metrics": [[one] for one in several("own")]}),
        (Sequential(1), {"metrics": [keras.metrics.SparseCategoricalAccuracy(name="energy")]}),
        (Parallel(), {}),
    ],
)
def test_loss_and_val_loss_speak_of_the_stage_in_training(regime, options):
    logs = fit(make(regime, **options))
    names = {re.sub(r"^(val_)?stage_\d_", "", key) for key in logs} & set(logs)
    assert "loss" in names
    for epoch, stage in enumerate(logs.get("stage", [K])):
        for name in names - {"largest"}:
            for prefix in ("", "val_"):
                own = logs.get(f"{prefix}stage_{stage}_{name}")
                # With metrics of its own for every stage a name is one stage's alone.
                if own is not None and len(logs[name]) == len(logs["loss"]):
                    assert logs[f"{prefix}{name}"][epoch] == own[epoch], (epoch, prefix, name)


def test_each_stage_s_own_metrics_are_told_while_it_trains():
    logs = fit(make(Sequential(1), metrics=[[one] for one in several("own")]))
    for k in range(K):
        assert logs[f"val_own{k}"] == [logs[f"val_stage_{k + 1}_own{k}"][k]]


def test_what_a_subclass_tells_in_validation_is_of_the_stage_in_training():
    seen = []

    class Look(CALLBACKS.Callback):
        def on_epoch_end(self, epoch, logs=None):
            exits = self.model.predict_exits(X[-12:], verbose=0)
            seen.append((logs["val_largest"], [float(one.max()) for one in exits]))

    # What it returns is its last batch's.
    fit(make(Sequential(1), kind=Tells, metrics=()), Look(), validation_batch_size=12)
    for k, (told, exits) in enumerate(seen):
        assert told == pytest.approx(exits[k], rel=1e-5)


def test_batches_of_validation_are_told_by_the_stage_in_training():
    seen = []

    class Look(CALLBACKS.Callback):
        def on_test_batch_end(self, batch, logs=None):
            seen.append((logs["loss"], [logs[f"stage_{k}_loss"] for k in (1, 2, 3)]))

    fit(make(Sequential(1)), Look(), validation_batch_size=24)
    assert [told for told, _ in seen] == [losses[k] for k, (_, losses) in enumerate(seen)]


def test_evaluate_outside_fit_speaks_of_the_last_depth():
    model = make(Sequential(1))
    fit(model)
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["loss"] == logs["stage_3_loss"]
    assert model.evaluate(X, Y, verbose=0) == [logs["loss"], logs["accuracy"]]


@pytest.mark.parametrize("regime", [Sequential(1), MultiLap(**LAPS)])
@pytest.mark.parametrize("seed", range(2))
def test_the_progress_bar_ranks_trained_depths_only(regime, seed):
    said = io.StringIO()
    keras.utils.set_random_seed(seed)
    # At rate 0 all depths are untrained, and any may look best by chance.
    with contextlib.redirect_stdout(said):
        fit(make(regime, optimizer=SGD(0.0)), verbose=2)
    lines = [line for line in said.getvalue().splitlines() if " stage: " in line]
    assert lines
    for line in lines:
        best = re.search(r"best_depth: (\d)", line)
        lap = re.search(r"lap: (\d)", line)
        trained = K if lap and lap[1] == "2" else int(re.search(r" stage: (\d)", line)[1])
        assert (best is None) == (trained == 1)
        assert best is None or int(best[1]) <= trained


def test_the_progress_bar_of_an_evaluation_ranks_trained_depths_only(capsys):
    model = make(Sequential(1))
    fit(model, epochs=1)
    capsys.readouterr()
    model.evaluate(X, Y, verbose=2)
    assert "best_depth" not in capsys.readouterr().out


# Callbacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "visits"),
    [
        # Nothing improves by 10: every stage ends after patience 1, as it would alone.
        ({"monitor": "val_loss", "patience": 1, "min_delta": 10.0}, [2, 2, 2]),
        ({"monitor": "loss", "patience": 2, "min_delta": 10.0}, [3, 3, 3]),
        ({"monitor": "accuracy", "patience": 1, "min_delta": 10.0}, [2, 2, 2]),
        ({"monitor": "val_stage_2_loss", "patience": 1, "min_delta": 10.0}, [4, 2, 4]),
        ({"monitor": "stage_2_loss", "patience": 1, "min_delta": 10.0}, [4, 2, 4]),
        ({"monitor": "stage_3_accuracy", "patience": 1, "min_delta": 10.0}, [4, 4, 2]),
        # The first epochs of a stage, not those of the run.
        ({"monitor": "loss", "patience": 1, "min_delta": 10.0, "start_from_epoch": 2}, [4, 4, 4]),
        ({"monitor": "loss", "patience": 9}, [4, 4, 4]),
    ],
)
def test_early_stopping_ends_a_visit_and_begins_anew(options, visits):
    stop = CALLBACKS.EarlyStopping(**options)
    model = make(Sequential(4))
    logs = fit(model, stop)
    assert [logs["stage"].count(k) for k in (1, 2, 3)] == visits
    assert [int(one.iterations) for one in model.optimizer.optimizers] == [2 * n for n in visits]


def test_early_stopping_acts_on_a_stage_as_on_a_model_of_it_alone():
    def stop():
        return CALLBACKS.EarlyStopping("val_loss", patience=2, restore_best_weights=True)

    single, model, watch = make(Parallel(), num_stages=1), make(Sequential([9, 1, 1])), Watch()
    alone = fit(single, stop(), epochs=9)
    logs = fit(model, stop(), watch)
    assert logs["stage"].count(1) == len(alone["loss"]) < 9
    assert logs["val_loss"][: len(alone["loss"])] == alone["val_loss"]
    assert same(values(single, 0), values(model, 0))


def test_two_that_stop_end_one_visit():
    stops = [CALLBACKS.EarlyStopping("loss", patience=1, min_delta=10.0) for _ in range(2)]
    logs = fit(make(Sequential(4, stop=StopStage(1, min_delta=10.0))), *stops)
    assert logs["stage_epoch"] == [1, 2] * K


def test_what_ends_the_run_ends_all_of_it():
    class Enough(CALLBACKS.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    for order in (0, 1):
        callbacks = [Enough(), CALLBACKS.EarlyStopping("loss", patience=1, min_delta=10.0)]
        logs = fit(make(Sequential(4)), *(callbacks if order else callbacks[::-1]))
        assert logs["stage"] == [1, 1]


def test_a_callback_list_comes_back_as_it_was():
    stop = CALLBACKS.EarlyStopping("loss", patience=1, min_delta=10.0)
    model = make(Sequential(4))
    given = CALLBACKS.CallbackList([stop], add_history=True, model=model, epochs=12, steps=2)
    before = list(given.callbacks)
    for _ in range(2):
        logs = model.fit(X, Y, batch_size=12, callbacks=given, verbose=0).history
        assert logs["stage_epoch"][:6] == [1, 2] * K
        assert given.callbacks == before


RESTORES = {
    "early_stopping": lambda: (
        Sequential(5),
        [CALLBACKS.EarlyStopping("val_loss", patience=2, restore_best_weights=True)],
    ),
    "early_stopping_cached": lambda: (
        Sequential(5, cache="memory"),
        [CALLBACKS.EarlyStopping("val_loss", patience=2, restore_best_weights=True)],
    ),
    "stop_stage": lambda: (
        Sequential(5, stop=StopStage(2, "val_loss", restore_best=True)),
        [],
    ),
    "stop_stage_out_of_epochs": lambda: (
        Sequential(3, stop=StopStage(9, "val_loss", restore_best=True)),
        [],
    ),
    "stop_stage_cached": lambda: (
        Sequential(5, cache="memory", stop=StopStage(2, "val_loss", restore_best=True)),
        [],
    ),
}


@pytest.mark.parametrize("name", RESTORES)
def test_a_stage_has_its_best_weights_before_anything_is_trained_on_it(name):
    (regime, callbacks), watch = RESTORES[name](), Watch()
    model = make(regime)
    logs = fit(model, watch, *callbacks)
    moved = 0
    for k in range(K):
        epochs = [epoch for epoch, stage in enumerate(logs["stage"]) if stage == k + 1]
        best = min(epochs, key=lambda epoch: logs["val_loss"][epoch])
        moved += best != epochs[-1]
        for later in watch.before[epochs[-1] + 1 :]:
            assert same(later[k], watch.after[best][k])
        assert same(values(model, k), watch.after[best][k])
    assert moved, "The best epoch was the last one: nothing was shown."
    last = model.evaluate(*VALIDATION, verbose=0, return_dict=True)
    assert last["loss"] == pytest.approx(logs["val_loss"][best], rel=1e-5)


def test_best_weights_are_restored_from_a_backup(tmp_path):
    def regime():
        return Sequential(4, stop=StopStage(9, "val_loss", restore_best=True))

    class Killed(CALLBACKS.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    whole, first, second = (make(regime()) for _ in range(3))
    history = fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(first, Killed(), BackupAndRestore(tmp_path))
    assert fit(second, BackupAndRestore(tmp_path))["val_loss"] == history["val_loss"]
    assert all(same(values(whole, k), values(second, k)) for k in range(K))


def test_a_mode_that_was_inferred_does_not_make_a_finished_run_another(tmp_path):
    def stop():
        return CALLBACKS.EarlyStopping("stage_2_accuracy", patience=1, min_delta=10.0)

    backup = {"backup_dir": tmp_path, "delete_checkpoint": False}
    first = fit(make(Parallel()), stop(), BackupAndRestore(**backup), epochs=4)
    again = fit(make(Parallel()), stop(), BackupAndRestore(**backup), epochs=4)
    assert len(first["loss"]) == len(again["loss"]) == 2


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        # Nothing improves by 10: with patience 1 a stage's rate is halved from its second epoch on.
        ({"monitor": "loss"}, [0.125] * 3),
        ({"monitor": "val_loss"}, [0.125] * 3),
        ({"monitor": "val_stage_2_accuracy"}, [0.5, 0.125, 0.5]),
        ({"monitor": "loss", "cooldown": 2}, [0.25] * 3),
        ({"monitor": "loss", "patience": 9}, [0.5] * 3),
    ],
)
def test_a_plateau_cuts_the_rate_of_the_stage_in_training(options, rates):
    options = {"factor": 0.5, "patience": 1, "min_delta": 10.0} | options
    model = make(Sequential(3))
    logs = fit(model, CALLBACKS.ReduceLROnPlateau(**options))
    assert [float(one.learning_rate) for one in model.optimizer.optimizers] == rates
    # Every stage begins with its own rate.
    assert [logs["learning_rate"][epoch] for epoch in (0, 3, 6)] == [0.5] * 3
    assert {len(values) for values in logs.values()} == {9}


def test_a_scheduler_sets_the_rate_of_the_stage_in_training():
    model = make(Sequential(2))
    logs = fit(model, CALLBACKS.LearningRateScheduler(lambda epoch, rate: rate / 2))
    assert logs["learning_rate"] == [0.25, 0.125] * 3
    assert logs["learning_rate_stage_3"] == [0.5] * 4 + [0.25, 0.125]
    assert set(logs) >= {f"learning_rate_stage_{k}" for k in (1, 2, 3)}


@pytest.mark.parametrize(
    ("options", "reused"),
    [
        ({"monitor": "val_loss"}, False),
        ({"monitor": "val_loss"}, True),
        ({"monitor": "val_stage_2_loss"}, False),
        ({"monitor": "stage_3_accuracy"}, False),
        ({"monitor": "val_loss", "initial_value_threshold": -1.0}, False),
    ],
)
def test_a_checkpoint_keeps_the_best_epoch_of_every_stage(tmp_path, options, reused):
    path = str(tmp_path / "{stage:.0f}-{stage_epoch:.0f}.weights.h5")
    keep = CALLBACKS.ModelCheckpoint(path, save_best_only=True, save_weights_only=True, **options)
    if reused:
        fit(make(Sequential(3)), keep)
        for one in tmp_path.iterdir():
            one.unlink()
    logs = fit(make(Sequential(3)), keep)
    wanted, named = set(), re.match(r"(?:val_)?stage_(\d)_", keep.monitor)
    for stage in (1, 2, 3):
        best = options.get("initial_value_threshold", np.inf)
        for epoch in [e for e, one in enumerate(logs["stage"]) if one == stage]:
            value = logs[keep.monitor][epoch] * (-1 if "accuracy" in keep.monitor else 1)
            if (named is None or int(named[1]) == stage) and value < best:
                best = value
                wanted.add(f"{stage}-{logs['stage_epoch'][epoch]:.0f}.weights.h5")
    assert {one.name for one in tmp_path.iterdir()} == wanted


# Averages ---------------------------------------------------------------------------------------


def averaging(**options):
    return SGD(0.5, use_ema=True, ema_momentum=0.5, **options)


@pytest.mark.parametrize(
    "regime",
    [
        lambda: Sequential(2),
        lambda: Sequential(2, cache="memory"),
        lambda: Sequential(5, stop=StopStage(1, "loss", min_delta=10.0)),
    ],
)
def test_a_stage_s_average_is_settled_when_its_visit_ends(regime):
    watch, model = Watch(), make(regime(), optimizer=averaging())
    fit(model, watch)
    single = make(Parallel(), num_stages=1, optimizer=averaging())
    fit(single, epochs=2)
    assert same(watch.before[2][0], values(single, 0)), "not what the stage alone has"
    assert not same(watch.after[1][0], watch.before[2][0]), "nothing was settled"
    for k in range(K):
        for later in watch.before[2 * k + 2 :]:
            assert same(later[k], values(model, k)), f"stage {k + 1} moved under a later one"


@pytest.mark.parametrize(
    ("epochs", "stops"),
    [(1, False), (2, False), (None, True)],
)
def test_stages_that_did_not_step_keep_their_weights(epochs, stops):
    model = make(Sequential(2), optimizer=averaging())
    before = [values(model, k) for k in range(K)]

    class Enough(CALLBACKS.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = stops

    fit(model, Enough(), epochs=epochs)
    assert not same(before[0], values(model, 0))
    assert all(same(before[k], values(model, k)) for k in (1, 2))


def test_best_weights_outlive_the_averages():
    regime = Sequential(3, stop=StopStage(9, "val_loss", restore_best=True))
    model, watch = make(regime, optimizer=averaging()), Watch()
    logs = fit(model, watch)
    for k in range(K):
        best = 3 * k + int(np.argmin(logs["val_loss"][3 * k : 3 * k + 3]))
        assert same(values(model, k), watch.after[best][k])


# Epochs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regime", "parts"),
    [
        (lambda: Sequential(2), [1, 6]),
        (lambda: Sequential(2), [2, 6]),
        (lambda: MultiLap(**LAPS), [1, 3, 4, 6]),
    ],
)
def test_the_first_epochs_of_a_regime_go_on_by_initial_epoch(regime, parts):
    whole, model = make(regime()), make(regime())
    history, losses, first = fit(whole), [], 0
    for last in parts:
        logs = fit(model, initial_epoch=first, epochs=last)
        losses, first = losses + logs["loss"], last
    assert losses == history["loss"]
    assert all(same(values(whole, k), values(model, k)) for k in range(K))


def test_more_epochs_than_the_regime_has_are_an_error():
    wanted = (
        r"`epochs` must be at most the sum of the stages' epochs, 6 = 2 \+ 2 \+ 2. Received: "
        "epochs=7. Leave it out, or change the regime's `epochs`."
    )
    with pytest.raises(ValueError, match=wanted):
        fit(make(Sequential(2)), epochs=7)


# Rates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", [lambda: Parallel(), lambda: Sequential(1)])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: SGD(0.5),
        lambda: SGD(0.5, name="mine"),
        lambda: [SGD(0.5, name="a"), SGD(0.5), SGD(0.5)],
        lambda: [SGD(0.5, name=f"stage_{k}") for k in (3, 1, 2)],
        lambda: [SGD(0.5, name="same") for _ in range(3)],
    ],
)
def test_rates_are_logged_by_stage_whatever_optimizers_are_called(regime, optimizer):
    model = make(regime(), optimizer=optimizer())
    for one, rate in zip(model.optimizer.optimizers, (0.5, 0.25, 0.125), strict=True):
        one.learning_rate = rate
    logs = fit(model, CALLBACKS.LearningRateScheduler(lambda epoch, rate: rate))
    for k, rate in enumerate((0.5, 0.25, 0.125), start=1):
        assert set(logs[f"learning_rate_stage_{k}"]) == {rate}
    own = [0.125] if isinstance(model.regime, Parallel) else [0.5, 0.25, 0.125]
    assert logs["learning_rate"] == own


@pytest.mark.parametrize(
    ("move", "rates"),
    [
        (lambda rate: rate.assign(0.25), [0.25] * 3),
        (lambda rate: rate.assign(np.float64(0.25)), [0.25] * 3),
        (lambda rate: rate.assign(tf.constant(0.25)), [0.25] * 3),
        (lambda rate: rate.assign_add(0.5), [1.5, 1.0, 0.75]),
        (lambda rate: rate.assign_sub(0.25), [0.75, 0.25, 0.0]),
        (lambda rate: tf.function(lambda: rate.assign(0.25))(), [0.25] * 3),
    ],
)
def test_assigning_the_learning_rate_moves_every_stage(move, rates):
    model = make(Sequential(1), optimizer=[SGD(rate) for rate in (1.0, 0.5, 0.25)])
    rate = model.optimizer.learning_rate
    assert isinstance(rate, keras.Variable)
    assert float(rate) == float(keras.ops.convert_to_numpy(rate)) == float(tf.add(rate, 0)) == 0.25
    move(rate)
    assert [float(one.learning_rate) for one in model.optimizer.optimizers] == rates
    assert float(rate) == float(model.optimizer.learning_rate) == rates[-1]


def test_the_rate_of_a_schedule_is_a_number():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
    assert float(make(Sequential(1), optimizer=SGD(schedule)).optimizer.learning_rate) == 0.5


# Modes ------------------------------------------------------------------------------------------

KINDS = {
    "stop": lambda path, **given: CALLBACKS.EarlyStopping(**given),
    "plateau": lambda path, **given: CALLBACKS.ReduceLROnPlateau(**given),
    "keep": lambda path, **given: CALLBACKS.ModelCheckpoint(
        path / "best.weights.h5", save_best_only=True, save_weights_only=True, **given
    ),
}


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"monitor": "val_stage_1_accuracy"}, "max"),
        ({"monitor": "stage_2_loss"}, "min"),
        ({"monitor": "val_stage_2_mse"}, "min"),
        ({"monitor": "stage_1_objective"}, "min"),
        ({"monitor": "stage_1_energy"}, "min"),
        ({"monitor": "val_stage_1_accuracy", "mode": "min"}, "min"),
        ({"monitor": "val_loss"}, "auto"),
    ],
)
def test_modes_of_a_stage_s_numbers_are_inferred(given, mode, tmp_path):
    regime = Sequential(1) if "_2_" in given["monitor"] else Parallel()
    watching = [kind(tmp_path, **given) for kind in KINDS.values()]
    fit(make(regime, metrics=["accuracy", OneHotError(name="mse")]), *watching)
    assert [one.mode for one in watching] == [mode] * 3


class OneHotError(keras.metrics.MeanSquaredError):
    """A metric of which the least is best."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(keras.ops.one_hot(y_true, 3), y_pred, sample_weight)


def test_a_number_of_which_nothing_is_known_needs_a_mode():
    metric = keras.metrics.MeanMetricWrapper(lambda y, p: keras.ops.mean(p, -1), name="odd")
    with pytest.raises(ValueError, match=r"monitor=stage_1_odd.*Pass `mode='max'`"):
        fit(make(Parallel(), metrics=[metric]), CALLBACKS.EarlyStopping("stage_1_odd"))


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        (keras.metrics.SparseCategoricalAccuracy(), "max"),
        (keras.metrics.AUC(), "max"),
        (keras.metrics.MeanSquaredError(), "min"),
        (keras.metrics.Mean(), None),
        (object(), None),
    ],
)
def test_keras_s_metrics_tell_what_is_best(metric, best):
    assert direction(metric) == best


# What is refused --------------------------------------------------------------------------------


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(12)


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return X[:12], Y[:12]


@pytest.mark.parametrize(
    ("data", "came"),
    [
        (lambda: batches().repeat(), "data without an end"),
        (lambda: batches().filter(lambda x, y: True).repeat(), "data without an end"),
        (lambda: Endless(), "data without an end"),
        (lambda: (one for one in [(X, Y)] * 9), "a generator, which cannot begin anew"),
    ],
)
def test_data_whose_epochs_do_not_end_are_refused(data, came):
    wanted = (
        "Where stages train in turn, a stage's epochs must end for the next one to begin. "
        f"Received: {came}. Pass `steps_per_epoch`."
    )
    with pytest.raises(ValueError, match=wanted):
        make(Sequential(1)).fit(data(), verbose=0)
    logs = make(Sequential(1)).fit(data(), steps_per_epoch=2, verbose=0).history
    assert logs["stage"] == [1, 2, 3]


def test_averages_that_are_swapped_at_an_epoch_s_end_are_refused():
    swap = CALLBACKS.SwapEMAWeights(swap_on_epoch=True)
    wanted = (
        "a stage's averages are settled when its visit ends. Received: "
        r"`SwapEMAWeights\(swap_on_epoch=True\)`, which exchanges them at that moment. Leave out"
    )
    with pytest.raises(ValueError, match=wanted):
        fit(make(Sequential(1), optimizer=averaging()), swap)
    fit(make(Sequential(1), optimizer=averaging()), CALLBACKS.SwapEMAWeights())
