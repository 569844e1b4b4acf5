"""Keras's own inputs, callbacks and settings, on a `GreedyModel` of three stages."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 40)
LOSS = keras.losses.SparseCategoricalCrossentropy


def make(optimizer=None, metrics=("accuracy",), method="trgl", seed=0, **options):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(3), method=method, seed=seed)
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        LOSS(from_logits=True),
        metrics=list(metrics),
        **options,
    )
    return model


def assert_equal(first, second):
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


class Batches(keras.utils.PyDataset):
    """The arrays in batches of 16."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return X[part], Y[part]


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


def generator():
    while True:
        for index in range(3):
            yield X[16 * index : 16 * index + 16], Y[16 * index : 16 * index + 16]


def test_every_kind_of_input_gives_the_same_weights():
    models = [make() for _ in range(4)]
    models[0].fit(X, Y, batch_size=16, shuffle=False, epochs=2, verbose=0)
    models[1].fit(dataset(), epochs=2, verbose=0)
    models[2].fit(Batches(), shuffle=False, epochs=2, verbose=0)
    models[3].fit(generator(), steps_per_epoch=3, epochs=2, verbose=0)
    for other in models[1:]:
        assert_equal(models[0], other)


@pytest.mark.parametrize("workers", [0, 2])
def test_py_dataset_order_is_a_function_of_seed_and_epoch(workers):
    def orders(first_epoch, epochs):
        # What the model gets: workers ask for the next epoch's batches before this one ends.
        model = make(run_eagerly=True)
        given, step = [], model.train_step

        def watched(data):
            given.append([np.array_equal(data[0][0], X[16 * k]) for k in range(3)].index(True))
            return step(data)

        model.train_step = watched
        batches = Batches(workers=workers, max_queue_size=1)
        model.fit(batches, initial_epoch=first_epoch, epochs=epochs, verbose=0)
        return [given[start : start + 3] for start in range(0, len(given), 3)]

    whole, rest = orders(0, 6), orders(3, 6)
    assert all(sorted(order) == [0, 1, 2] for order in whole)
    assert len({tuple(order) for order in whole}) > 1
    assert rest == whole[3:]


def test_class_weight_is_the_sample_weight_of_the_same_numbers():
    by_class, by_sample = make(), make()
    weights = {0: 0.5, 1: 2.0, 2: 1.0}
    by_class.fit(X, Y, batch_size=16, class_weight=weights, epochs=2, verbose=0)
    by_sample.fit(
        X, Y, batch_size=16, sample_weight=np.vectorize(weights.get)(Y), epochs=2, verbose=0
    )
    assert_equal(by_class, by_sample)


def test_sample_weights_weigh_the_task_loss_alone():
    plain = make().train_on_batch(X, Y, return_dict=True)
    weighed = make().train_on_batch(X, Y, sample_weight=np.full(40, 3.0), return_dict=True)
    for k in (1, 2, 3):
        assert weighed[f"stage_{k}_energy"] == plain[f"stage_{k}_energy"]
        assert weighed[f"stage_{k}_loss"] == pytest.approx(3 * plain[f"stage_{k}_loss"], rel=1e-5)
        assert weighed[f"stage_{k}_objective"] == pytest.approx(
            3 * plain[f"stage_{k}_loss"] + plain[f"stage_{k}_energy"] / 2, rel=1e-5
        )


def test_logs_hold_every_stage_and_the_last_depth_without_prefix():
    history = make().fit(X, Y, epochs=2, validation_split=0.25, verbose=0).history
    names = {f"stage_{k}_{n}" for k in (1, 2, 3) for n in ("loss", "accuracy")}
    training = {f"stage_{k}_{n}" for k in (1, 2, 3) for n in ("objective", "energy")}
    assert set(history) == (
        names
        | training
        | {f"val_{name}" for name in names}
        | {"loss", "accuracy", "val_loss", "val_accuracy"}
    )
    assert history["loss"] == history["stage_3_loss"]
    assert history["val_accuracy"] == history["val_stage_3_accuracy"]


def test_evaluate_and_batch_methods_give_loss_then_metrics_of_the_last_depth():
    model = make()
    loss, accuracy = model.evaluate(X, Y, verbose=0)
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert (loss, accuracy) == (logs["loss"], logs["accuracy"])
    logits = model.predict(X, verbose=0)
    assert accuracy == pytest.approx(np.mean(logits.argmax(1) == Y))
    assert loss == pytest.approx(float(LOSS(from_logits=True)(Y, logits)), rel=1e-5)
    assert model.test_on_batch(X, Y) == pytest.approx([loss, accuracy], rel=1e-5)
    assert len(model.train_on_batch(X, Y)) == 2
    assert isinstance(make(metrics=()).evaluate(X, Y, verbose=0), float)


def test_every_exit_can_be_asked_for():
    model = make()
    every = model(X, exits="all")
    arrays = model.predict_exits(X, verbose=0, batch_size=7)
    for k, array in enumerate(arrays, start=1):
        np.testing.assert_allclose(array, every[k - 1], atol=1e-6)
        np.testing.assert_allclose(array, model(X, exits=k), atol=1e-6)
        np.testing.assert_allclose(array, model.truncate(k)(X), atol=1e-6)
    np.testing.assert_allclose(model(X), every[-1], atol=1e-6)


def test_evaluate_after_fit_sees_the_moved_statistics_and_adds_no_energy():
    model = make()
    model.fit(X, Y, epochs=1, verbose=0)
    assert not any("energy" in name for name in model.evaluate(X, Y, return_dict=True, verbose=0))
    assert model.truncate(3).losses == []


def test_csv_and_tensorboard_get_every_stage(tmp_path):
    make().fit(
        X,
        Y,
        epochs=2,
        verbose=0,
        callbacks=[
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.TensorBoard(tmp_path / "board"),
        ],
    )
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert {"stage_1_energy", "stage_3_accuracy", "loss"} <= set(rows[0])
    (events,) = (tmp_path / "board" / "train").glob("events*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert "epoch_stage_2_objective" in tags


def test_checkpoint_on_an_early_stage_saves_a_whole_model(tmp_path):
    model = make()
    model.fit(
        X,
        Y,
        epochs=2,
        validation_data=(X, Y),
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(
                tmp_path / "best.keras",
                monitor="val_stage_1_loss",
                mode="min",
                save_best_only=True,
            )
        ],
    )
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), atol=1)
    assert list(tmp_path.iterdir()) == [tmp_path / "best.keras"]


def test_early_stopping_on_any_stage_stops():
    stop = keras.callbacks.EarlyStopping("stage_2_loss", mode="max", patience=1)
    history = make().fit(X, Y, epochs=20, verbose=0, callbacks=[stop]).history
    assert len(history["loss"]) < 20


@pytest.mark.parametrize("name", ["LearningRateScheduler", "ReduceLROnPlateau"])
def test_rates_of_all_stages_are_moved(name):
    callback = {
        "LearningRateScheduler": lambda: keras.callbacks.LearningRateScheduler(lambda e: 0.0078125),
        "ReduceLROnPlateau": lambda: keras.callbacks.ReduceLROnPlateau(
            "loss", mode="max", factor=0.15625, patience=1, cooldown=9, min_delta=0
        ),
    }[name]()
    model = make()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[callback])
    rates = [float(one.learning_rate.numpy()) for one in model.optimizer.optimizers]
    np.testing.assert_allclose(rates, 0.0078125, rtol=1e-6)


def test_moving_averages_are_swapped_in_and_kept_at_the_end():
    average = make(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5))
    plain = make(keras.optimizers.SGD(0.05))
    average.fit(X, Y, epochs=1, verbose=0, shuffle=False)
    plain.fit(X, Y, epochs=1, verbose=0, shuffle=False)
    differ = [
        np.abs(one.numpy() - other.numpy()).max()
        for one, other in zip(average.trainable_weights, plain.trainable_weights, strict=True)
    ]
    assert min(max(differ[:3]), max(differ[-2:])) > 0
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    make(keras.optimizers.SGD(0.05, use_ema=True)).fit(
        X, Y, epochs=2, validation_data=(X, Y), verbose=0, callbacks=[swap]
    )


def test_the_progress_bar_is_short(capsys):
    make().fit(X, Y, epochs=1, verbose=2, validation_data=(X, Y))
    shown = capsys.readouterr().out
    assert "stage_" not in shown
    assert "best_depth" in shown
    assert "val_accuracy" in shown


def test_another_progress_bar_is_left_alone(capsys):
    make().fit(X, Y, epochs=1, verbose=2, callbacks=[keras.callbacks.ProgbarLogger()])
    assert "stage_1_loss" in capsys.readouterr().out


def test_terminate_on_nan_stops_without_an_error():
    model = make()
    model.heads[2].layers_in_a_row[-1].bias.assign(np.full(3, np.nan))
    history = model.fit(
        X, Y, epochs=5, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()]
    ).history
    assert len(history["loss"]) == 1


def test_frozen_parts_keep_their_weights_and_pass_features_on():
    model = make()
    model.stages[1].trainable = False
    model.heads[1].trainable = False
    model.stages[0].blocks[0].branch[0].trainable = False
    model.compile("sgd", LOSS(from_logits=True))
    frozen = [*model.stages[1].weights, *model.heads[1].weights]
    frozen.append(model.stages[0].blocks[0].branch[0].kernel)
    moving = model.heads[2].layers_in_a_row[-1].kernel
    before = [v.numpy() for v in frozen]
    old = moving.numpy()
    history = model.fit(X, Y, epochs=1, verbose=0).history
    for variable, value in zip(frozen, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert np.abs(moving.numpy() - old).max() > 0
    assert np.isfinite(history["stage_2_loss"]).all()
    text = []
    model.summary(print_fn=text.append)
    assert text[0].count("nothing (frozen)") == 2


def test_a_stage_without_weights_trains_its_head_alone():
    model = GreedyModel(
        [[keras.layers.Flatten()], [keras.layers.Dense(4)]], [keras.layers.Dense(3)] * 2, seed=0
    )
    model.compile("sgd", LOSS(from_logits=True))
    with pytest.warns(UserWarning, match="there is none in stage 2: there it trains as `VanGL`"):
        model.build((None, *X.shape[1:]))
    history = model.fit(X, Y, epochs=3, verbose=0).history
    assert history["stage_1_loss"][-1] < history["stage_1_loss"][0]
    assert "stage_1_energy" not in history


@pytest.mark.long
def test_xla_trains_and_warns_that_memory_is_not_saved():
    with pytest.warns(UserWarning, match="memory is not saved"):
        model = make(jit_compile=True)
    plain = make()
    got = model.train_on_batch(X, Y, return_dict=True)
    wanted = plain.train_on_batch(X, Y, return_dict=True)
    for name, value in wanted.items():
        assert got[name] == pytest.approx(value, rel=1e-3, abs=1e-4)


def test_regression_with_one_unit_trains():
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [2, 1], LinearHead(1), seed=0)
    model.compile("adam", "mse", metrics=["mae"])
    history = model.fit(X, X.mean((1, 2, 3)), epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert "stage_1_mae" in history


def test_weighted_metrics_and_metric_objects_are_copied_for_every_stage():
    shared = keras.metrics.SparseCategoricalAccuracy(name="hits")
    model = make(metrics=[shared], weighted_metrics=["accuracy"])
    history = model.fit(X, Y, epochs=1, verbose=0, sample_weight=np.ones(40)).history
    assert {"stage_1_hits", "stage_3_hits", "stage_2_weighted_accuracy"} <= set(history) or {
        "stage_1_hits",
        "stage_3_hits",
        "stage_2_accuracy",
    } <= set(history)


def test_summary_says_what_trains_what(capsys):
    make().summary()
    text = capsys.readouterr().out
    assert "3 stages, TRGL(tau=1.0)" in text
    assert text.count("LinearHead") == 3
    assert "loss 2, stage_2" in text
    assert "No gradient crosses a stage." in text
