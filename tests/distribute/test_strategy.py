"""Stages on two logical devices: where things are, and that the numbers stay the same."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.distribute import StageParallelStrategy
from keras_trgl.layers import BatchNormalization, ResidualBlock
from keras_trgl.regimes import Buffered, Sequential

pytestmark = [pytest.mark.multi_device, pytest.mark.sampled(1)]

CPUS = ["CPU:0", "CPU:1"]
FIRST, SECOND = (f"/job:localhost/replica:0/task:0/device:CPU:{k}" for k in range(2))
K = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4, 4, 2)).astype("float32")
Y = RNG.integers(0, 3, 20)
WEIGHTS = np.linspace(0.5, 2.0, 20).astype("float32")


def blocks(input_shape=(4, 4, 2)):
    def branch():
        return [
            keras.layers.Conv2D(2, 3, padding="same", use_bias=False),
            BatchNormalization(),
            keras.layers.Dropout(0.3),
        ]

    return [
        ResidualBlock(branch(), activation="relu", input_shape=input_shape if k == 0 else None)
        for k in range(K)
    ]


def make(strategy=None, regime="parallel", optimizer=None, input_shape=(4, 4, 2), **options):
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = trgl.GreedyModel.from_blocks(
            blocks(input_shape), [1] * K, trgl.heads.LinearHead(3), regime=regime, seed=0
        )
        model.compile(
            optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            **options,
        )
    return model


def fit(model, x=X, y=Y, callbacks=(), **options):
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, "sample_weight": WEIGHTS} | options
    return model.fit(x, y, callbacks=[*callbacks], **options).history


def fit_with_all(model, callbacks=(), **options):
    """Fit with multipliers and validation."""
    given = [trgl.callbacks.MultiplierUpdate(h=0.5, s=2), *callbacks]
    return fit(model, callbacks=given, validation_data=(X, Y), **options)


def assert_same_numbers(model, other):
    for one, two in ((model.variables, other.variables), (variables(model), variables(other))):
        assert len(one) == len(two) > 0
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def variables(model):
    return model.optimizer.variables


def held_by(model, k):
    """Give the TensorFlow variables of everything that belongs to stage k, by what they are."""
    step = model._trainer.steps.steps[k]
    groups = {
        "stage": model.stages[k].variables,
        "head": model.heads[k].variables,
        "optimizer": model.optimizer.optimizers[k].variables,
        "metrics": [one for metric in step.metrics for one in metric.variables],
    }
    return {name: [one.value for one in many] for name, many in groups.items()}


def assert_at_home(model, devices):
    for k, device in enumerate(devices):
        for name, many in held_by(model, k).items():
            assert many, name
            assert {one.device for one in many} == {device}, (k, name)
    assert any("seed" in one.path for one in model.stages[-1].variables), "Dropout has a state."


@pytest.fixture(scope="module")
def reference():
    keras.utils.set_random_seed(0)
    model = make()
    return model, fit_with_all(model)


@pytest.fixture(scope="module")
def placed():
    """A trained model with stage 1 on the first device, 2 and 3 on the second."""
    keras.utils.set_random_seed(0)
    strategy = StageParallelStrategy(CPUS, stage_devices=["CPU:0", "CPU:1", "CPU:1"])
    model = make(strategy)
    fit(model, epochs=1)
    return model


SETTINGS = {
    "two_devices": (lambda: StageParallelStrategy(CPUS), {}, {}),
    "one_device": (lambda: StageParallelStrategy(["CPU:1"]), {}, {}),
    "synchronous": (lambda: StageParallelStrategy(CPUS, schedule="synchronous"), {}, {}),
    "four_steps_per_execution": (
        lambda: StageParallelStrategy(CPUS),
        {"steps_per_execution": 4},
        {},
    ),
    "not_in_a_row": (
        lambda: StageParallelStrategy(CPUS, stage_devices=["CPU:1", "CPU:0", "CPU:1"]),
        {},
        {},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_devices_change_no_number(reference, name):
    strategy, options, fit_options = SETTINGS[name]
    model = make(strategy(), **options)
    history = fit_with_all(model, **fit_options)
    assert_same_numbers(model, reference[0])
    assert history == reference[1]


def test_adamw_a_short_run_and_one_batch_fewer_than_stages():
    def optimizer():
        return keras.optimizers.AdamW(0.01, weight_decay=0.01, clipnorm=1.0)

    models = [make(s, optimizer=optimizer()) for s in (None, StageParallelStrategy(CPUS))]
    for model in models:
        fit(model, batch_size=12)
    assert_same_numbers(*models)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    models = [make(s) for s in (None, StageParallelStrategy(CPUS))]
    histories = [fit(model, epochs=1) for model in models]
    assert_same_numbers(*models)
    assert histories[0] == histories[1]
    assert_at_home(models[1], [FIRST, FIRST, SECOND])


def test_the_buffered_regime_runs_on_the_same_devices():
    models = [
        make(s, Buffered(capacity=2, order="random")) for s in (None, StageParallelStrategy(CPUS))
    ]
    histories = [fit(model, epochs=1, batch_size=4) for model in models]
    assert_same_numbers(*models)
    assert histories[0] == histories[1]
    stores = models[1]._trainer.steps.stored.buffers
    assert [{one.device for one in store.variables} for store in stores] == [{FIRST}, {SECOND}]


def test_the_sequential_regime_runs_on_the_same_devices():
    models = [make(s, Sequential(epochs=1)) for s in (None, StageParallelStrategy(CPUS))]
    for model in models:
        fit(model, epochs=None)
    assert_same_numbers(*models)


def test_a_generator_is_read_from_its_first_batch():
    def batches():
        for _ in range(2):
            for start in range(0, 20, 8):
                part = slice(start, start + 8)
                yield X[part], Y[part], WEIGHTS[part]

    models = [make(s) for s in (None, StageParallelStrategy(CPUS))]
    for model in models:
        fit(model, batches(), None, sample_weight=None, batch_size=None, steps_per_epoch=3)
    assert_same_numbers(*models)


def test_stages_of_a_call_work_on_different_batches_and_catch_up():
    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.steps = []

        def on_train_batch_end(self, batch, logs=None):
            self.steps.append([int(one.iterations) for one in self.model.optimizer.optimizers])

    watch, model = Watch(), make(StageParallelStrategy(CPUS))
    fit(model, batch_size=4, epochs=1, callbacks=[watch])
    assert watch.steps == [[1, 0, 0], [2, 1, 0], [3, 2, 1], [4, 3, 2], [5, 4, 3]]
    assert [int(one.iterations) for one in model.optimizer.optimizers] == [5, 5, 5]


def test_a_batch_outside_fit_goes_through_all_stages():
    models = [make(s) for s in (None, StageParallelStrategy(CPUS))]
    logs = []
    for model in models:
        fit(model, epochs=1)
        logs.append(model.train_on_batch(X, Y, return_dict=True))
    assert logs[0] == logs[1]
    assert [int(one.iterations) for one in models[1].optimizer.optimizers] == [4, 4, 4]


# Where things are.


HOMES = [FIRST, SECOND, SECOND]


def test_every_variable_is_on_its_stages_device_after_build_and_fit(placed):
    with placed.distribute_strategy.scope():
        built = trgl.GreedyModel.from_config(placed.get_config())
        built.compile("adam", "mse")
    built.optimizer.build([])
    assert_at_home(built, HOMES)
    assert_at_home(placed, HOMES)


def test_every_variable_is_on_its_stages_device_after_load_and_restore(tmp_path, placed):
    placed.save(tmp_path / "model.keras")
    with placed.distribute_strategy.scope():
        loaded = trgl.load_model(tmp_path / "model.keras")
    for one, other in zip(loaded.weights, placed.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert_at_home(loaded, HOMES)
    first, again = (trgl.callbacks.BackupAndRestore(tmp_path, "epoch", False) for _ in range(2))
    fit(loaded, epochs=1, callbacks=[first])
    fit(loaded, callbacks=[again])
    assert again.restored_step == 3
    assert_at_home(loaded, HOMES)


def functions_of(graph):
    """Give the functions that a graph calls, and those that they call, by name."""
    return {one.signature.name: one for one in graph.as_graph_def().library.function}


def test_every_operation_of_a_stage_is_on_its_device(placed):
    for step, home in zip(placed._trainer.steps.steps, HOMES, strict=True):
        shared = step._train_last if step.depth == K else step._train
        (traced,) = shared._traced.values()
        graph = traced.graph
        captured = {inner.op.name: outer.device for outer, inner in graph.captures}
        placed = [op for op in graph.get_operations() if op.type not in UNPLACED]
        assert len(placed) > 100
        assert {(op.type, place_of(op, captured)) for op in placed} == {
            (op.type, home) for op in placed
        }


def place_of(op, captured):
    """Give an operation's device; without one, a variable is read where it lives."""
    if op.device or op.type not in ("ReadVariableOp", "Identity"):
        return op.device
    before = op.inputs[0].op
    return captured.get(before.name) or place_of(before, captured)


UNPLACED = {"Placeholder", "NoOp"}
"""Arguments of a function, which are where its caller has them, and nothing."""


def test_the_step_calls_every_stage_on_its_device_and_none_waits_for_another(placed):
    stored = placed._trainer.steps.stored
    x, y, weight = tf.constant(X[:8]), tf.constant(Y[:8]), tf.constant(WEIGHTS[:8])

    def step(x, y, weight):
        placed.distribute_strategy.run(lambda: stored((x, y, weight, None)))

    graph = tf.function(step, autograph=False).get_concrete_function(x, y, weight).graph
    calls = [op for op in graph.get_operations() if op.type == "StatefulPartitionedCall"]
    branches = [op for op in graph.get_operations() if op.type == "If"]
    # Stage 1 always steps; stages 2 and 3 where there is a batch, and two writes to stores.
    assert [op.device for op in calls] == [FIRST]
    trains = [op for op in branches if len(op.outputs) == 1 and _touches_training(op)]
    assert [op.device for op in trains] == [SECOND, SECOND]
    waits_for = {op.name: ancestors(op) for op in [*calls, *trains]}
    for one, other in itertools.permutations([calls[0], trains[0]], 2):
        assert one.name not in waits_for[other.name], "The two devices work at once."


def _touches_training(op):
    body = op.get_attr("then_branch").name
    return "StatefulPartitionedCall" in {node.op for node in functions_of(op.graph)[body].node_def}


def ancestors(op):
    seen, todo = set(), [op]
    while todo:
        one = todo.pop()
        for before in [*(tensor.op for tensor in one.inputs), *one.control_inputs]:
            if before.name not in seen:
                seen.add(before.name)
                todo.append(before)
    return seen


@pytest.mark.parametrize("what", ["predict", "evaluate"])
def test_predictions_and_evaluation_run_on_the_stages_devices(placed, what):
    x, y, weight = tf.constant(X[:8]), tf.constant(Y[:8]), tf.constant(WEIGHTS[:8])

    def step(x, y, weight):
        if what == "predict":
            return placed(x)
        return placed.distribute_strategy.run(lambda: placed.test_step((x, y, weight)))

    graph = tf.function(step, autograph=False).get_concrete_function(x, y, weight).graph
    found = [op.device for op in graph.get_operations() if op.type == "Conv2D"]
    assert found == HOMES


def test_steps_that_call_python_are_refused_for_remote_devices(monkeypatch):
    strategy = StageParallelStrategy(CPUS)
    model = make(strategy)
    monkeypatch.setattr(strategy, "is_remote", True)
    with pytest.raises(ValueError, match="which workers in other processes cannot"):
        trgl.callbacks.MultiplierUpdate(1.0, 2, record_steps=True).set_model(model)


def test_a_prediction_within_an_epoch_sees_all_stages_at_the_same_batch():
    class Predict(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.predict(X, verbose=0)
            self.steps = [int(one.iterations) for one in self.model.optimizer.optimizers]
            assert len(set(self.steps)) == 1

    watch = Predict()
    fit(make(StageParallelStrategy(CPUS)), epochs=1, callbacks=[watch])
    assert watch.steps == [3, 3, 3]


@pytest.mark.parametrize("split", ["memory", "time"])
@pytest.mark.parametrize("input_shape", [(4, 4, 2), None], ids=["known", "unknown"])
def test_stages_are_placed_by_cost_at_build(split, input_shape, monkeypatch):
    costs = iter([1.0, 1.0, 5.0])
    target = {"memory": "stage_bytes", "time": "profile"}[split]

    class Times:
        def stage_seconds(self, start, end):
            return next(costs)

    fakes = {
        "stage_bytes": lambda *_, **__: lambda start, end: next(costs),
        "profile": lambda *_, **__: Times(),
    }
    monkeypatch.setattr(f"keras_trgl.network.placement.{target}", fakes[target])
    model = make(StageParallelStrategy(CPUS, stage_devices=split), input_shape=input_shape)
    build(model)
    assert_at_home(model, [FIRST, FIRST, SECOND])


def build(model):
    with model.distribute_strategy.scope():
        model.build((None, 4, 4, 2))
        model.optimizer.build([])


def test_costs_decide_where_the_cut_is(monkeypatch):
    costs = iter([5.0, 1.0, 1.0])
    monkeypatch.setattr(
        "keras_trgl.network.placement.stage_bytes", lambda *_: lambda start, end: next(costs)
    )
    # Without costs the first two stages would share a device, and were made there.
    model = make(StageParallelStrategy(CPUS, stage_devices="memory"), input_shape=None)
    build(model)
    assert_at_home(model, [FIRST, SECOND, SECOND])
    fit(model, epochs=1)
    assert_at_home(model, [FIRST, SECOND, SECOND])


def test_stages_are_timed_for_real():
    model = make(StageParallelStrategy(CPUS, stage_devices="time"))
    assert model.placement.devices in ([FIRST, FIRST, SECOND], [FIRST, SECOND, SECOND])


def test_the_summary_and_the_report_tell_the_devices(placed):
    strategy, lines = placed.distribute_strategy, []
    placed.summary(print_fn=lines.append)
    rows = [line for line in "\n".join(lines).splitlines() if line.startswith("stage")]
    assert [row.split()[-1] for row in rows] == ["CPU:0", "CPU:1", "CPU:1"]
    report = strategy.report(placed)
    assert {device: row["stages"] for device, row in report.items()} == {
        FIRST: [1],
        SECOND: [2, 3],
    }
    size = sum(
        int(tf.size(one)) * one.dtype.size
        for k in (1, 2)
        for many in held_by(placed, k).values()
        for one in many
    )
    assert report[SECOND]["variable_bytes"] == size > 0


# Saving.


@pytest.mark.parametrize("way", ["two_to_one", "one_to_two"])
@pytest.mark.parametrize("kind", ["keras", "weights", "checkpoint"])
def test_what_is_saved_on_some_devices_goes_on_on_others(tmp_path, reference, placed, way, kind):
    source = placed if way == "two_to_one" else reference[0]
    target = make(None if way == "two_to_one" else placed.distribute_strategy)
    if kind == "keras":
        source.save(tmp_path / "model.keras")
        scope = target.distribute_strategy.scope()
        with scope if way == "one_to_two" else contextlib.nullcontext():
            target = trgl.load_model(tmp_path / "model.keras")
    elif kind == "weights":
        source.save_weights(tmp_path / "model.weights.h5")
        target.load_weights(tmp_path / "model.weights.h5")
    else:
        parts = [
            tf.train.Checkpoint(
                **{
                    group: [one.value for one in many]
                    for group, many in model.state_variables().items()
                    if group in ("model", "optimizer")
                }
            )
            for model in (source, target)
        ]
        parts[1].read(parts[0].write(str(tmp_path / "checkpoint"))).assert_consumed()
    for a, b in zip(source.weights, target.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    if kind != "weights":
        assert_same_optimizers(source, target)
    if way == "one_to_two":
        assert_at_home_weights(target, HOMES)


def assert_same_optimizers(source, target):
    assert len(variables(source)) == len(variables(target)) > 0
    for a, b in zip(variables(source), variables(target), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def assert_at_home_weights(model, devices):
    for k, device in enumerate(devices):
        held = held_by(model, k)
        assert {one.device for name in ("stage", "head", "optimizer") for one in held[name]} == {
            device
        }


@pytest.mark.parametrize("way", ["two_to_one", "one_to_two"])
def test_a_backup_within_an_epoch_goes_on_on_other_devices(tmp_path, reference, way):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.training_run.steps_done == 5:
                raise KeyboardInterrupt

    before, after = way.split("_to_")
    strategies = {"one": lambda: None, "two": lambda: StageParallelStrategy(CPUS)}

    def backup():
        return trgl.callbacks.BackupAndRestore(tmp_path, save_freq=2)

    with pytest.raises(KeyboardInterrupt):
        fit_with_all(make(strategies[before]()), callbacks=[Stop(), backup()])
    model, again = make(strategies[after]()), backup()
    history = fit_with_all(model, callbacks=[again])
    assert again.restored_step == 4
    assert_same_numbers(model, reference[0])
    assert history == reference[1]


def test_a_truncated_and_an_exported_model_need_no_second_device(tmp_path, placed):
    wanted = placed.predict(X, verbose=0)
    np.testing.assert_array_equal(placed.truncate(K).predict(X, verbose=0), wanted)
    np.testing.assert_allclose(placed.predict_exits(X, verbose=0)[-1], wanted, atol=1e-6)
    with placed.distribute_strategy.scope(), pytest.raises(ValueError, match="outside the scope"):
        placed.export(tmp_path / "saved", verbose=False)
    placed.export(tmp_path / "saved", verbose=False)
    text = (tmp_path / "saved" / "saved_model.pb").read_bytes()
    assert b"CPU:1" not in text
    again = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(again.serve(X), wanted, atol=1e-5)


def test_every_depth_of_a_placed_model_can_be_served(tmp_path, placed):
    report = trgl.export.export_serving(placed, tmp_path)
    assert report.signatures[-1] == "all_exits"
    assert b"CPU:1" not in (report.path / "saved_model.pb").read_bytes()
    served = tf.saved_model.load(report.path).signatures["exit_3"](inputs=tf.constant(X))
    np.testing.assert_allclose(served["logits"], placed.predict(X, verbose=0), atol=1e-5)


# At the door.


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"devices": []}, ValueError, r"must be a list of device names. Received: devices=\[\]"),
        ({"devices": "GPU:0"}, ValueError, "must be a list of device names"),
        ({"devices": ["GPU:7"]}, ValueError, r"A device must be one of .*Received: 'GPU:7'"),
        ({"devices": ["nothing"]}, ValueError, "A device must be one of"),
        ({"devices": [3]}, TypeError, "A device must be a name, as in 'GPU:0'. Received: 3"),
        ({"devices": ["CPU:0", FIRST]}, ValueError, f"Received twice: {FIRST}"),
        ({"devices": CPUS, "schedule": "fast"}, ValueError, "`schedule` must be one of"),
        ({"devices": CPUS, "timeout": 0}, ValueError, "`timeout` must be above 0"),
        ({"devices": CPUS, "stage_devices": "size"}, ValueError, "`stage_devices` must be one of"),
        ({"devices": ["CPU:0"], "stage_devices": ["CPU:1"]}, ValueError, "among `devices`"),
        ({"devices": None}, TypeError, "must be a list of device names. Received: devices=None"),
        ({"devices": 2}, TypeError, r"must be a list .*For one device write `\['GPU:0'\]`"),
        ({"devices": set(CPUS)}, TypeError, "must be a list of device names"),
        ({"devices": (one for one in CPUS)}, TypeError, "must be a list of device names"),
        ({"devices": np.array(CPUS)}, TypeError, "must be a list of device names"),
        ({"devices": trgl.distribute.LocalWorkers}, TypeError, "must be a list of device names"),
        ({"devices": [CPUS]}, TypeError, "A device must be a name"),
        (
            {"devices": tf.config.list_physical_devices("CPU")},
            TypeError,
            "A device must be a name.*Received: PhysicalDevice.* has it as `name`",
        ),
        ({"devices": ["CPU"]}, ValueError, "A device must be one of"),
        ({"devices": [""]}, ValueError, "A device must be one of"),
        (
            {"devices": ["10.0.0.2:7000"]},
            ValueError,
            "one that `connect` gave. Received: '10.0.0.2",
        ),
        (
            {"devices": ["/job:worker/replica:0/task:0/device:CPU:0"]},
            ValueError,
            "A worker's device must be one that `connect` gave",
        ),
        ({"devices": CPUS, "stage_devices": "CPU:0"}, ValueError, "one of 'memory', 'time', None"),
        ({"devices": CPUS, "stage_devices": 1}, TypeError, "`stage_devices` must be a list"),
        ({"devices": CPUS, "stage_devices": {1: "CPU:0"}}, TypeError, "must be a list"),
        ({"devices": CPUS, "stage_devices": np.array(CPUS)}, TypeError, "must be a list"),
        ({"devices": CPUS, "stage_devices": [0, 1, 1]}, TypeError, "must be a name.*Received: 0"),
        ({"devices": CPUS, "schedule": None}, ValueError, "`schedule` must be one of"),
        ({"devices": CPUS, "timeout": "60"}, TypeError, "`timeout` must be a number above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, kind, said):
    with pytest.raises(kind, match=said) as error:
        StageParallelStrategy(**arguments)
    assert str(error.value).count("\n") < 5


@pytest.mark.parametrize("model", [None, trgl.GreedyModel, 3])
def test_a_report_is_of_a_model(model):
    with pytest.raises(TypeError, match=r"must be a `GreedyModel`, made already. Received: "):
        StageParallelStrategy(CPUS).report(model)


def test_a_model_needs_as_many_stages_as_devices():
    with (
        StageParallelStrategy(CPUS).scope(),
        pytest.raises(ValueError, match="Received: 2 devices for 1 stages"),
    ):
        trgl.GreedyModel([blocks()], [trgl.heads.LinearHead(3)])


def test_stage_devices_name_one_for_every_stage():
    with (
        StageParallelStrategy(CPUS, stage_devices=CPUS).scope(),
        pytest.raises(ValueError, match=r"Received: 2 devices for 3 stages. `None` shares"),
    ):
        trgl.GreedyModel.from_blocks(blocks(), [1] * K, trgl.heads.LinearHead(3))


def test_a_layer_built_elsewhere_is_refused():
    built = blocks()
    built[2].build((None, 4, 4, 2))
    strategy = StageParallelStrategy(CPUS)
    with (
        strategy.scope(),
        pytest.raises(ValueError, match=r"Layers of stage 3 must be made on its device, .*CPU:1"),
    ):
        trgl.GreedyModel.from_blocks(built, [1] * K, trgl.heads.LinearHead(3))
    with strategy.scope(), tf.device("CPU:1"):
        built[2] = blocks()[2]
        built[2].build((None, 4, 4, 2))
    with strategy.scope():
        model = trgl.GreedyModel.from_blocks(built, [1] * K, trgl.heads.LinearHead(3))
    assert model.stages[2].blocks[0] is built[2]


def test_a_model_made_outside_the_scope_is_refused():
    model, strategy = make(), StageParallelStrategy(CPUS)
    with strategy.scope(), pytest.raises(ValueError, match=r"made outside\. Make it inside"):
        model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must be made inside this strategy's scope"):
        strategy.report(model)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_strategies_do_not_nest(order):
    both = [StageParallelStrategy(CPUS), tf.distribute.MirroredStrategy(CPUS)]
    outer, inner = (both[k] for k in order)
    said = "Strategies do not nest" if order == (1, 0) else "Mixing different"
    with outer.scope(), pytest.raises(RuntimeError, match=said), inner.scope():
        pass


def test_one_program_for_several_devices_is_refused():
    with pytest.raises(ValueError, match="XLA compiles for one device"):
        make(StageParallelStrategy(CPUS), jit_compile=True)


def test_idle_stages_cannot_be_moved_away():
    regime = Sequential(epochs=1, idle_device="CPU:0")
    with pytest.raises(ValueError, match="Every stage has its device already"):
        make(StageParallelStrategy(CPUS), regime)
