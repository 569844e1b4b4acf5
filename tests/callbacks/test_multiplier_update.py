"""The method of multipliers, against NumPy on what the steps record."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.callbacks import MultiplierUpdate
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import TRGL, EndToEnd, VanGL
from keras_trgl.regimes import MultiLap, Parallel, Sequential
from keras_trgl.regularizers import KineticEnergy

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 6)).astype("float32")
Y = RNG.integers(0, 3, 37)
RATE = 0.5
STAGES = (1, 2)


def make(method=None, regime=None, optimizer=None, **options):
    """Two stages, of two residual blocks and of one."""
    blocks = [
        ResidualBlock([keras.layers.Dense(6, "tanh")], input_shape=(6,) if k == 0 else None)
        for k in range(3)
    ]
    model = GreedyModel.from_blocks(
        blocks,
        [2, 1],
        LinearHead(3),
        method=method or TRGL(0.5),
        regime=regime or Parallel(),
        seed=0,
    )
    model.compile(
        optimizer or keras.optimizers.SGD(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    return model


def fit(model, callbacks, **options):
    options = {"batch_size": 4, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=callbacks, **options).history


def moved(losses, h, s, initial):
    """λ at every batch of one visit, in the model's precision."""
    value, used = np.float32(initial), []
    for batch, loss in enumerate(losses, start=1):
        if batch % s == 0:
            value = value + np.float32(h) * np.float32(loss)
        used.append(value)
    return used


def check_rows(rows, h, s, initial):
    """Compare the rows of one visit; give λ at its end."""
    batches, losses, used = (list(column) for column in zip(*rows, strict=True))
    assert batches == list(range(1, len(rows) + 1))
    np.testing.assert_allclose(used, moved(losses, h, s, initial), rtol=1e-6)
    return used[-1]


def regularizer(model, k):
    return model.stages[k - 1].regularizer


@pytest.mark.parametrize("steps_per_execution", [1, 8])
@pytest.mark.parametrize(("h", "s"), [(1.0, 1), (0.1, 3), (2.5, 4)])
def test_it_is_what_numpy_makes_of_the_recorded_losses(h, s, steps_per_execution):
    callback = MultiplierUpdate(h, s, initial=0.7, record_steps=True)
    model = make(steps_per_execution=steps_per_execution)
    history = fit(model, callback, epochs=2)
    sizes = [4] * 9 + [1]
    assert set(callback.steps) == set(STAGES)
    for k in STAGES:
        rows = callback.steps[k]
        assert len(rows) == 20
        last = check_rows(rows, h, s, 0.7)
        assert last > 0.7
        assert float(regularizer(model, k).multiplier.numpy()) == np.float32(last)
        assert float(regularizer(model, k).weight.numpy()) == pytest.approx(1 / last)
        assert int(regularizer(model, k).batches.numpy()) == 20
        # The loss of a batch is a mean over it, also of the short last one.
        for epoch, logged in enumerate(history[f"stage_{k}_loss"]):
            losses = [row[1] for row in rows[10 * epoch : 10 * epoch + 10]]
            assert np.average(losses, weights=sizes) == pytest.approx(logged, rel=1e-5)


def test_steps_per_execution_and_eager_steps_change_nothing():
    kept = []
    for options in ({}, {"steps_per_execution": 8}, {"run_eagerly": True}):
        callback = MultiplierUpdate(0.5, 3, record_steps=True)
        model = make(**options)
        fit(model, callback)
        kept.append((callback.steps, [variable.numpy() for variable in model.weights]))
    for steps, weights in kept[1:]:
        for k in STAGES:
            np.testing.assert_allclose(steps[k], kept[0][0][k], rtol=1e-5)
        for one, other in zip(weights, kept[0][1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


class Weights(keras.callbacks.Callback):
    """Weights before and after every epoch, by stage."""

    def __init__(self):
        super().__init__()
        self.pairs = []

    def now(self):
        return [
            [v.numpy() for v in (*stage.trainable_variables, *head.trainable_variables)]
            for stage, head in zip(self.model.stages, self.model.heads, strict=True)
        ]

    def on_epoch_begin(self, epoch, logs=None):
        self.pairs.append((self.now(),))

    def on_epoch_end(self, epoch, logs=None):
        self.pairs[-1] += (self.now(),)


def terms(inputs, labels, weights):
    """Features, task loss and energy of a stage, from its dense layers alone."""
    *blocks, kernel, bias = weights
    energy, features = 0.0, inputs
    for own, shift in zip(blocks[::2], blocks[1::2], strict=True):
        residual = tf.tanh(features @ own + shift)
        energy += tf.reduce_mean(residual**2)
        features = features + residual
    logits = features @ kernel + bias
    task = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return features, tf.reduce_mean(task), energy


@pytest.mark.parametrize("scaling", ["energy", "loss"])
def test_a_step_uses_the_loss_of_its_own_batch_before_its_gradient(scaling):
    h, s, initial = 0.8, 2, 1.5
    callback = MultiplierUpdate(h, s, initial, scaling, record_steps=True)
    kept = Weights()
    # One step an epoch, so that weights lie around single steps and logs are no means.
    history = fit(
        make(), [callback, kept], epochs=5, steps_per_epoch=1, batch_size=8, shuffle=False
    )
    multipliers = dict.fromkeys(STAGES, initial)
    for i, (before, after) in enumerate(kept.pairs):
        features, labels = X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]
        for k in STAGES:
            variables = [tf.Variable(array) for array in before[k - 1]]
            with tf.GradientTape() as tape:
                passed_on, task, energy = terms(features, labels, variables)
                if (i + 1) % s == 0:
                    multipliers[k] += h * float(task)
                value = multipliers[k]
                total = task + energy / value if scaling == "energy" else value * task + energy
            batch, loss, used = callback.steps[k][i]
            assert batch == i + 1
            assert loss == pytest.approx(float(task), rel=1e-5)
            assert used == pytest.approx(value, rel=1e-5)
            assert history[f"stage_{k}_multiplier"][i] == pytest.approx(value, rel=1e-5)
            assert history[f"stage_{k}_objective"][i] == pytest.approx(float(total), rel=1e-5)
            slopes = tape.gradient(total, variables)
            for variable, slope, wanted in zip(variables, slopes, after[k - 1], strict=True):
                np.testing.assert_allclose(variable - RATE * slope, wanted, rtol=1e-4, atol=1e-6)
            features = passed_on.numpy()


def test_scaling_the_loss_is_lambda_times_scaling_the_energy():
    moves = {}
    for scaling in ("energy", "loss"):
        callback = MultiplierUpdate(1.0, 1, 1.5, scaling, record_steps=True)
        kept = Weights()
        fit(make(), [callback, kept], steps_per_epoch=1, batch_size=8, shuffle=False)
        before, after = kept.pairs[0]
        moves[scaling] = [
            [new - old for old, new in zip(*stage, strict=True)]
            for stage in zip(before, after, strict=True)
        ]
    for k in STAGES:
        used = callback.steps[k][0][2]
        assert used > 2
        for one, other in zip(moves["energy"][k - 1], moves["loss"][k - 1], strict=True):
            np.testing.assert_allclose(used * one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ([2.3, 2.0, 1.8, 1.6, 1.5, 1.4], [1, 3, 3, 4.6, 4.6, 6]),
        ([2.2, 1.9, 1.6, 1.4, 1.2, 1.1], [1, 2.9, 2.9, 4.3, 4.3, 5.4]),
    ],
)
def test_the_table_of_the_method_is_met(losses, wanted):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    layer = KineticEnergy(tau=0.5)
    layer.build()
    layer.start_multiplier(1.0)
    used, weights = [], []
    for loss in losses:
        batch, multiplier = layer.next_multiplier(tf.constant(loss, "float64"), 1.0, 2)
        layer.move_multiplier(batch, multiplier)
        used.append(float(layer.multiplier.numpy()))
        weights.append(float(layer.weight.numpy()))
    np.testing.assert_allclose(used, wanted, rtol=1e-15)
    np.testing.assert_allclose(weights, 1 / np.array(wanted), rtol=1e-15)
    assert int(layer.batches.numpy()) == len(losses)


def test_setting_tau_starts_it_anew():
    layer = KineticEnergy(tau=0.5)
    layer.build()
    layer.move_multiplier(*layer.next_multiplier(tf.constant(2.0), 1.0, 1))
    layer.tau = 0.25
    numbers = [float(one.numpy()) for one in (layer.multiplier, layer.weight, layer.batches)]
    assert numbers == [0.5, 2.0, 0.0]


def test_batches_that_a_loss_scale_skips_are_counted():
    keras.config.set_dtype_policy("mixed_float16")
    model = make(
        optimizer=keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.01), initial_scale=2.0**40
        )
    )
    callback = MultiplierUpdate(1.0, 2, 1.0, record_steps=True)
    fit(model, callback)
    for k, optimizer in zip(STAGES, model.optimizer.optimizers, strict=True):
        # Every overflow halves the scale: no update in all these batches.
        assert int(optimizer.iterations.numpy()) == 0
        assert int(regularizer(model, k).batches.numpy()) == len(callback.steps[k]) == 10
        assert check_rows(callback.steps[k], 1.0, 2, 1.0) > 1.0


def test_accumulated_batches_are_counted_one_by_one():
    model = make(optimizer=keras.optimizers.SGD(RATE, gradient_accumulation_steps=2))
    callback, kept = MultiplierUpdate(0.5, 3, 1.0, record_steps=True), Weights()
    fit(model, [callback, kept], steps_per_epoch=1, epochs=10)
    for k in STAGES:
        check_rows(callback.steps[k], 0.5, 3, 1.0)
        changed = [
            any((old != new).any() for old, new in zip(before[k - 1], after[k - 1], strict=True))
            for before, after in kept.pairs
        ]
        assert changed == [False, True] * 5


def two_replicas():
    # Collectives of two strategies in one process have the same keys, so shapes must agree: none.
    plain = tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], plain).scope():
        return make()


@pytest.mark.multi_device
@pytest.mark.parametrize("examples", [32, 37, 33])
def test_two_replicas_have_the_multiplier_of_one(examples):
    """The last batch of 5 splits into 3 and 2; that of 1 leaves a replica without an example."""
    kept = []
    for model in (make(), two_replicas()):
        callback = MultiplierUpdate(0.5, 1, 1.0, record_steps=True)
        history = model.fit(
            X[:examples], Y[:examples], batch_size=8, verbose=0, callbacks=callback
        ).history
        kept.append((model, history, callback.steps))
    (one, wanted, rows), (two, history, replica_rows) = kept
    for k in STAGES:
        for name in ("multiplier", "batches"):
            value, other = (getattr(regularizer(m, k), name).numpy() for m in (one, two))
            np.testing.assert_allclose(other, value, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(replica_rows[k], rows[k], rtol=1e-6)
    assert set(history) == set(wanted)
    for name, values in wanted.items():
        # Replicas' means of unlike size, or of nothing, make another energy and objective.
        if examples == 32 or name.split("_")[-1] not in ("energy", "objective"):
            np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)


VISITS = {
    "sequential": (lambda: Sequential(epochs=2), 1, 20),
    "multi_lap": (lambda: MultiLap(epochs=2, num_laps=2), 2, 10),
}


@pytest.mark.parametrize("name", VISITS)
@pytest.mark.parametrize(
    ("tau", "initial", "starts"),
    [(0.75, None, (1.5, 1.5)), ([0.25, 2.0], None, (0.5, 4.0)), ([0.25, 2.0], 3.0, (3.0, 3.0))],
    ids=["tau", "taus", "initial"],
)
def test_it_starts_anew_at_every_visit(name, tau, initial, starts):
    regime, num_visits, batches = VISITS[name]
    callback = MultiplierUpdate(0.5, 4, initial, record_steps=True)
    model = make(TRGL(tau), regime())
    history = fit(model, callback)
    for k, start in zip(STAGES, starts, strict=True):
        rows = callback.steps[k]
        assert len(rows) == num_visits * batches
        for visit in range(num_visits):
            part = rows[visit * batches : (visit + 1) * batches]
            assert part[0][2] == start
            last = check_rows(part, 0.5, 4, start)
        assert float(regularizer(model, k).multiplier.numpy()) == np.float32(last)
        idle = np.array(history["stage"]) != k
        np.testing.assert_array_equal(np.isnan(history[f"stage_{k}_multiplier"]), idle)
        np.testing.assert_array_equal(np.isnan(history[f"stage_{k}_tau"]), idle)


def test_it_goes_on_over_epochs_and_over_a_later_fit_that_goes_on():
    callback = MultiplierUpdate(0.5, 4, 1.0, record_steps=True)
    model = make()
    fit(model, callback, epochs=2)
    first = {k: list(callback.steps[k]) for k in STAGES}
    fit(model, callback, epochs=3, initial_epoch=2)
    for k in STAGES:
        assert [len(first[k]), len(callback.steps[k])] == [20, 10]
        check_rows(first[k] + callback.steps[k], 0.5, 4, 1.0)
    fit(model, callback)
    for k in STAGES:
        check_rows(callback.steps[k], 0.5, 4, 1.0)


def test_logs_reach_the_history_the_csv_file_and_tensorboard(tmp_path):
    model = make()
    callbacks = [
        MultiplierUpdate(0.5, 3, 1.0, record_steps=True),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board"),
    ]
    history = fit(model, callbacks, epochs=2)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    (events,) = (tmp_path / "board" / "train").glob("events*")
    board = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            if value.HasField("tensor"):
                board.setdefault(value.tag, []).append(value.tensor)
    for k in STAGES:
        # λ at the end of each epoch.
        wanted = [callbacks[0].steps[k][last][2] for last in (9, 19)]
        for name, values in (
            (f"stage_{k}_multiplier", wanted),
            (f"stage_{k}_tau", np.divide(wanted, 2)),
        ):
            np.testing.assert_allclose(history[name], values, rtol=1e-6)
            np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-6)
            shown = [float(tf.make_ndarray(one)) for one in board[f"epoch_{name}"]]
            np.testing.assert_allclose(shown, values, rtol=1e-6)


def test_it_is_saved_with_the_model(tmp_path):
    model = make()
    fit(model, MultiplierUpdate(0.5, 3, 1.0))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for k in STAGES:
        for name in ("multiplier", "weight", "batches"):
            value = getattr(regularizer(model, k), name).numpy()
            np.testing.assert_array_equal(getattr(regularizer(loaded, k), name).numpy(), value)
        assert float(regularizer(loaded, k).multiplier.numpy()) > 1.0
    # It goes on where the saved one stood.
    callback = MultiplierUpdate(0.5, 3, 1.0, record_steps=True)
    fit(loaded, callback, epochs=2, initial_epoch=1)
    for k in STAGES:
        assert callback.steps[k][0][0] == 11
        assert callback.steps[k][0][2] == float(regularizer(model, k).multiplier.numpy())


def test_the_last_weight_stays_in_a_fit_without_the_callback():
    model = make()
    fit(model, MultiplierUpdate(0.5, 3, 1.0))
    weights = [float(regularizer(model, k).weight.numpy()) for k in STAGES]
    history = fit(model, None, batch_size=37)
    assert not [name for name in history if "multiplier" in name or name.endswith("_tau")]
    for k, weight in zip(STAGES, weights, strict=True):
        assert weight < 1.0
        assert float(regularizer(model, k).weight.numpy()) == weight
        assert history[f"stage_{k}_objective"][0] == pytest.approx(
            history[f"stage_{k}_loss"][0] + weight * history[f"stage_{k}_energy"][0], rel=1e-5
        )


def test_a_stage_without_energy_is_passed_over():
    blocks = [
        keras.layers.Dense(6, "tanh"),
        ResidualBlock([keras.layers.Dense(6, "tanh")]),
    ]
    model = GreedyModel.from_blocks(blocks, [1, 1], LinearHead(3), method=TRGL(0.5), seed=0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = MultiplierUpdate(0.5, 3, 1.0, record_steps=True)
    with pytest.warns(UserWarning, match="residual"):
        history = fit(model, callback)
    assert "stage_1_multiplier" not in history
    assert history["stage_1_objective"] == pytest.approx(history["stage_1_loss"])
    assert not callback.steps.get(1)
    check_rows(callback.steps[2], 0.5, 3, 1.0)


def test_weight_decay_is_kept_in_the_objective():
    blocks = [
        ResidualBlock([keras.layers.Dense(6, "tanh", kernel_regularizer="l2")], input_shape=(6,))
    ]
    model = GreedyModel.from_blocks(blocks, [1], LinearHead(3), method=TRGL(0.5), seed=0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    decay = 0.01 * float(np.sum(np.square(model.stages[0].trainable_variables[0].numpy())))
    logs = fit(model, MultiplierUpdate(0.5, 1, 1.0), batch_size=37)
    (task,), (energy,), (multiplier,) = (
        logs[f"stage_1_{name}"] for name in ("loss", "energy", "multiplier")
    )
    assert multiplier == pytest.approx(1.0 + 0.5 * task)
    assert logs["stage_1_objective"][0] == pytest.approx(task + energy / multiplier + decay)


@pytest.mark.parametrize("method", [VanGL(), EndToEnd()], ids=["vangl", "e2e"])
def test_a_method_without_energy_is_refused(method):
    with pytest.raises(ValueError, match=r"so a stage must have one. Received: a model without"):
        fit(make(method), MultiplierUpdate(1.0, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"h": 0.0}, ValueError, "`h` must be above 0 and finite. Received: h=0.0"),
        ({"h": float("nan")}, ValueError, "`h` must be above 0 and finite. Received: h=nan"),
        ({"h": "1"}, TypeError, "`h` must be a number above 0. Received: h='1'"),
        ({"s": 0}, ValueError, "`s` must be at least 1. Received: s=0"),
        ({"s": 2.0}, TypeError, "`s` must be an integer. Received: s=2.0"),
        ({"initial": -1.0}, ValueError, "`initial` must be above 0 and finite. Received: init"),
        ({"scaling": "both"}, ValueError, "`scaling` must be one of 'energy', 'loss'. Received"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, error, said):
    with pytest.raises(error, match=said):
        MultiplierUpdate(**{"h": 1.0, "s": 2, **arguments})


@pytest.mark.filterwarnings("ignore:With `jit_compile=True` XLA orders:UserWarning")
def test_records_under_xla_are_refused():
    with pytest.raises(ValueError, match=r"which XLA cannot. Received: jit_compile=True"):
        fit(make(jit_compile=True), MultiplierUpdate(1.0, 2, record_steps=True))


@pytest.mark.filterwarnings("ignore:With `jit_compile=True` XLA orders:UserWarning")
def test_it_moves_under_xla():
    kept = []
    for jit_compile in (False, True):
        model = make(jit_compile=jit_compile)
        fit(model, MultiplierUpdate(0.5, 3, 1.0))
        kept.append([float(regularizer(model, k).multiplier.numpy()) for k in STAGES])
    np.testing.assert_allclose(kept[1], kept[0], rtol=1e-5)


def test_two_of_them_are_refused():
    with pytest.raises(ValueError, match=r"may hold one MultiplierUpdate. Received: 2 of them"):
        fit(make(), [MultiplierUpdate(1.0, 2), MultiplierUpdate(1.0, 3)])
