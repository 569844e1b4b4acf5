"""Keras's callbacks read any stage's metric, and what they save or set is right."""

import csv

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = RNG.integers(0, 3, 40)
CALLBACKS = keras.callbacks


def make(optimizer=None, **options):
    blocks = [
        ResidualBlock([keras.layers.Dense(6, "tanh")], input_shape=(6,) if k == 0 else None)
        for k in range(3)
    ]
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(3), seed=0)
    model.compile(
        optimizer or keras.optimizers.SGD(0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def weights(model):
    return [variable.numpy() for variable in model.weights]


class Weights(keras.callbacks.Callback):
    """The weights at the end of every epoch."""

    def on_train_begin(self, logs=None):
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(weights(self.model))


def test_the_best_checkpoint_of_stage_1_has_the_weights_of_its_best_epoch(tmp_path):
    kept = Weights()
    history = (
        make()
        .fit(
            X,
            Y,
            epochs=6,
            validation_data=(X[:20], Y[:20]),
            verbose=0,
            callbacks=[
                kept,
                CALLBACKS.ModelCheckpoint(
                    tmp_path / "best.keras",
                    monitor="val_stage_1_accuracy",
                    mode="max",
                    save_best_only=True,
                ),
            ],
        )
        .history
    )
    best = int(np.argmax(history["val_stage_1_accuracy"]))
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    for one, other in zip(kept.epochs[best], weights(loaded), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_of_weights_alone_is_written_each_epoch(tmp_path):
    model = make()
    path = str(tmp_path / "{epoch:02d}-{stage_1_loss:.2f}.weights.h5")
    model.fit(
        X, Y, epochs=2, verbose=0,
        callbacks=[CALLBACKS.ModelCheckpoint(path, save_weights_only=True)],
    )  # fmt: skip
    names = sorted(one.name for one in tmp_path.iterdir())
    assert [name[:3] for name in names] == ["01-", "02-"]
    other = make()
    other.load_weights(tmp_path / names[-1])
    for one, same in zip(weights(model), weights(other), strict=True):
        np.testing.assert_array_equal(one, same)


def test_early_stopping_puts_the_best_weights_of_all_stages_back():
    kept = Weights()
    stop = CALLBACKS.EarlyStopping(
        "stage_2_loss", mode="max", patience=2, restore_best_weights=True
    )
    model = make()
    history = model.fit(X, Y, epochs=9, verbose=0, callbacks=[kept, stop]).history
    assert history["stage_2_loss"] == sorted(history["stage_2_loss"], reverse=True)
    assert len(history["loss"]) == 3
    for one, other in zip(kept.epochs[0], weights(model), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_terminate_on_nan_stops_wherever_the_nan_is(k, eager):
    model = make(run_eagerly=eager)
    model.heads[k].layers_in_a_row[-1].bias.assign([np.nan] * 3)
    history = model.fit(
        X, Y, batch_size=8, epochs=5, verbose=0, callbacks=[CALLBACKS.TerminateOnNaN()]
    ).history
    assert len(history["loss"]) == 1


def test_nan_raises_again_in_a_fit_without_terminate_on_nan():
    model = make()
    model.fit(X, Y, verbose=0, callbacks=[CALLBACKS.TerminateOnNaN()])
    model.heads[1].layers_in_a_row[-1].bias.assign([np.nan] * 3)
    with pytest.raises(ValueError, match="Stage 2: the task loss is not finite"):
        model.fit(X, Y, verbose=0)


def test_a_scheduler_moves_each_stage_from_its_own_rate():
    model = make([keras.optimizers.SGD(rate, name=f"s{rate}") for rate in (0.5, 0.25, 0.125)])
    history = model.fit(
        X, Y, epochs=2, verbose=0,
        callbacks=[CALLBACKS.LearningRateScheduler(lambda epoch, rate: rate / 2)],
    ).history  # fmt: skip
    rates = [float(one.learning_rate.numpy()) for one in model.optimizer.optimizers]
    assert rates == [0.125, 0.0625, 0.03125]
    assert history["learning_rate_s0.5"] == [0.25, 0.125]


def test_rates_are_logged_by_stage():
    history = make().fit(
        X, Y, epochs=1, verbose=0,
        callbacks=[CALLBACKS.LearningRateScheduler(lambda epoch: 0.125)],
    ).history  # fmt: skip
    assert [history[f"learning_rate_stage_{k}"] for k in (1, 2, 3)] == [[0.125]] * 3


def test_reduce_on_plateau_reads_a_stage_and_reaches_all():
    model = make()
    model.fit(
        X, Y, epochs=3, verbose=0,
        callbacks=[
            CALLBACKS.ReduceLROnPlateau(
                "stage_1_loss", mode="max", factor=0.5, patience=1, cooldown=9
            )
        ],
    )  # fmt: skip
    assert [float(one.learning_rate.numpy()) for one in model.optimizer.optimizers] == [0.25] * 3


def test_the_csv_log_is_the_history(tmp_path):
    history = make().fit(
        X, Y, epochs=3, validation_split=0.25, verbose=0,
        callbacks=[CALLBACKS.CSVLogger(tmp_path / "log.csv")],
    ).history  # fmt: skip
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == set(history) | {"epoch"}
    for name, values in history.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values)


def test_objective_is_loss_plus_half_the_energy_in_every_epoch():
    history = make().fit(X, Y, batch_size=16, epochs=3, verbose=0).history
    for k in (1, 2, 3):
        np.testing.assert_allclose(
            history[f"stage_{k}_objective"],
            np.add(history[f"stage_{k}_loss"], np.divide(history[f"stage_{k}_energy"], 2)),
            rtol=1e-5,
        )


def test_validation_runs_as_often_as_asked():
    history = make().fit(X, Y, epochs=4, validation_data=(X, Y), validation_freq=2, verbose=0)
    assert len(history.history["val_stage_1_loss"]) == 2
    assert len(history.history["stage_1_loss"]) == 4


def test_a_validation_split_is_the_last_part_of_the_data():
    split, given = make(), make()
    first = split.fit(X, Y, validation_split=0.25, epochs=2, verbose=0).history
    second = given.fit(X[:30], Y[:30], validation_data=(X[30:], Y[30:]), epochs=2, verbose=0)
    assert first == second.history


@pytest.mark.parametrize(("steps", "epochs"), [(2, 3), (7, 2)])
def test_steps_per_epoch_counts_steps_across_passes_over_the_data(steps, epochs):
    model = make()
    model.fit(X, Y, batch_size=8, steps_per_epoch=steps, epochs=epochs, verbose=0)
    counts = [int(one.iterations.numpy()) for one in model.optimizer.optimizers]
    assert counts == [steps * epochs] * 3
    whole = make()
    whole.fit(X, Y, batch_size=8, steps_per_epoch=steps * epochs, verbose=0)
    for one, other in zip(weights(model), weights(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def test_batch_methods_return_every_stage_on_request():
    model = make()
    train = model.train_on_batch(X, Y, return_dict=True)
    test = model.test_on_batch(X, Y, return_dict=True)
    both = {f"stage_{k}_{n}" for k in (1, 2, 3) for n in ("loss", "accuracy")}
    assert set(test) == both | {"loss", "accuracy"}
    assert set(train) == set(test) | {
        f"stage_{k}_{n}" for k in (1, 2, 3) for n in ("objective", "energy")
    }
    assert train["loss"] == train["stage_3_loss"]


def test_stage_losses_of_evaluate_are_the_losses_of_the_exits():
    model = make()
    model.fit(X, Y, verbose=0)
    logs = model.evaluate(X, Y, batch_size=16, verbose=0, return_dict=True)
    for k, logits in enumerate(model.predict_exits(X, verbose=0), start=1):
        shifted = logits - logits.max(1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        assert logs[f"stage_{k}_loss"] == pytest.approx(-log_p[np.arange(40), Y].mean(), rel=1e-5)
        assert logs[f"stage_{k}_accuracy"] == pytest.approx((logits.argmax(1) == Y).mean())


def test_class_weights_and_sample_weights_weigh_metrics_that_ask_for_it():
    weight = np.where(Y == 0, 0.0, 1.0)
    model = make(weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="w")])
    logs = model.evaluate(X, Y, sample_weight=weight, verbose=0, return_dict=True)
    for k, logits in enumerate(model.predict_exits(X, verbose=0), start=1):
        hits = logits.argmax(1) == Y
        assert logs[f"stage_{k}_w"] == pytest.approx(hits[Y != 0].mean())
        assert logs[f"stage_{k}_accuracy"] == pytest.approx(hits.mean())


def test_export_works_after_fit(tmp_path):
    import tensorflow as tf

    model = make()
    model.fit(X, Y, verbose=0)
    model.export(tmp_path / "served", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "served"))
    served = loaded.serve(X)
    np.testing.assert_allclose(served, model.predict(X, verbose=0), atol=1e-6)
