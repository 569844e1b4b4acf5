"""Late gradients: the published schedule by hand, what waits, and who gets a sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linked import make

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.methods import DDG, TRGL, EndToEnd, FeaturesReplay
from keras_trgl.regimes import Buffered, MultiLap, Sequential

BOTH = {"features_replay": FeaturesReplay, "ddg": DDG}
RNG = np.random.default_rng(0)


@keras.saving.register_keras_serializable("tests")
class AtOnce(DDG):
    """DDG with nothing late."""

    def staleness(self, stage):
        return 0


@keras.saving.register_keras_serializable("tests")
class SquaredScale(keras.layers.Layer):
    """w²·x."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.built = True

    def call(self, x):
        return self.scale**2 * x

    def compute_output_shape(self, input_shape):
        return input_shape


class Watch(keras.callbacks.Callback):
    """Keeps the trained weights after every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([v.numpy() for v in self.model.trainable_variables])


BATCHES = [(1.0, 0.0), (2.0, 1.0), (1.0, 1.0), (0.5, 0.0)]
PUBLISHED = {
    # (w1, w2) after each batch: w1 = w2 = 1 at the start, plain SGD of rate 0.1.
    "end_to_end": [(0.8, 0.9), (0.756224, 0.880544), (0.822339, 0.908934), (0.799367, 0.898543)],
    "ddg": [(1, 0.9), (0.8, 0.74), (0.512, 0.77369), (0.574326, 0.77236)],
    "features_replay": [(1, 0.9), (0.8, 0.74), (0.5696, 0.77369), (0.613976, 0.771654)],
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", PUBLISHED)
def test_two_stages_go_the_published_way(name):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    head = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    blocks = [SquaredScale(), keras.layers.Identity()]
    model = GreedyModel.from_blocks(blocks, [1, 1], [LinearHead(1), head], method=name)
    model.build((None, 1))
    model.compile(
        keras.optimizers.SGD(0.1),
        lambda y, f: 0.5 * keras.ops.mean(keras.ops.square(f - y), axis=-1),
    )
    x, y = np.array(BATCHES).T.reshape(2, 4, 1)
    watch = Watch()
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[watch])
    found = [(float(w1), w2.item()) for w1, w2 in watch.seen]
    np.testing.assert_allclose(found, PUBLISHED[name], atol=1e-6)


def gradients_of(weights, x, y):
    """Give what a linear net of len(weights) layers has, by hand: inputs, gradients, and δ's."""
    inputs = [x]
    for w in weights:
        inputs.append(inputs[-1] @ w)
    delta, found, deltas = 2 * (inputs[-1] - y) / y.size, [], []
    for h, w in zip(inputs[-2::-1], weights[::-1], strict=True):
        deltas.insert(0, delta)
        found.insert(0, h.T @ delta)
        delta = delta @ w.T
    return inputs, found, deltas


def by_hand(name, weights, batches, rate, momentum):
    """Train a linear net of three stages and a head by the published schedule, in NumPy.

    Returns:
        List of the weights after each batch.
    """
    late, steps = [2, 1, 0, 0], []
    speed = [np.zeros_like(w) for w in weights]
    old, deltas, seen = [], [], []
    for t, (x, y) in enumerate(batches):
        inputs, found, new = gradients_of(weights, x, y)
        old.append((inputs, found))
        gradients, sent = [], {}
        for k in (0, 1, 2, 3):
            b = t - late[k]
            if k > 1:
                gradients.append(found[k])
                sent[1] = new[1]
            elif b < 0:
                gradients.append(None)
            elif name == "ddg":
                gradients.append(old[b][1][k])
            else:
                h, delta = old[b][0][k], deltas[t - 1][k]
                gradients.append(h.T @ delta)
                sent[k - 1] = delta @ weights[k].T
        deltas.append(sent)
        for k, g in enumerate(gradients):
            if g is not None:
                speed[k] = momentum * speed[k] - rate * g
        moved = [g is not None for g in gradients]
        weights = [w + v if m else w for w, v, m in zip(weights, speed, moved, strict=True)]
        seen.append(weights)
        steps.append(moved)
    return seen


def linear(method, **options):
    blocks = [keras.layers.Dense(4, use_bias=False) for _ in range(3)]
    model = GreedyModel.from_blocks(
        blocks, [1, 1, 1], keras.layers.Dense(2, use_bias=False), method=method, seed=1, **options
    )
    model.build((None, 5))
    return model


@pytest.mark.sampled(2)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", BOTH)
def test_three_stages_follow_the_schedule_by_hand_over_epochs_and_short_batches(name, parts):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    x, y = RNG.normal(size=(10, 5)), RNG.normal(size=(10, 2))
    model = linear(name)
    model.compile(keras.optimizers.SGD(0.125, momentum=0.875), "mse", micro_batches=parts)
    start, watch = [v.numpy() for v in model.trainable_variables], Watch()
    logs = model.fit(
        x, y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[watch]
    ).history
    batches = [(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)] * 3
    wanted = by_hand(name, start, batches, 0.125, 0.875)
    for step, (found, right) in enumerate(zip(watch.seen, wanted, strict=True)):
        for k, (one, other) in enumerate(zip(found, right, strict=True)):
            np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=f"weight {k}, step {step}")
    # A stage that waits counts no iteration; epochs do not begin anew.
    assert [int(one.iterations) for one in model.optimizer.optimizers] == [7, 8, 9]
    assert logs["stage_1_staleness"] == [2, 2, 2]
    assert logs["stage_2_staleness"] == [1, 1, 1]
    assert not {"stage_3_staleness", "stage_1_objective", "stage_2_loss"} & set(logs)


X = RNG.normal(size=(12, 6)).astype("float32")
Y = RNG.integers(0, 3, 12)


def fit(model, **options):
    options = {"epochs": 2, "batch_size": 4, **options}
    return model.fit(X, Y, verbose=0, **options).history


def assert_equal(first, second):
    for one, other in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", [(AtOnce, 3), (DDG, 1), (FeaturesReplay, 1)])
def test_with_nothing_late_it_is_end_to_end_bit_for_bit(case):
    method, num_stages = case
    late, whole = make(method(), num_stages), make(EndToEnd())
    logs = fit(late), fit(whole)
    assert_equal(late, whole)
    assert logs[0]["loss"] == logs[1]["loss"]


def test_a_replay_has_the_batch_s_own_masks_and_moves_no_statistics():
    # At its first update a stage's weights are those of the batch: there both methods agree.
    models = [make(method(), num_stages=2) for method in BOTH.values()]
    start = models[0].stages[0].get_weights()[0]
    for model in models:
        model.fit(X, Y, batch_size=4, epochs=1, steps_per_epoch=2, verbose=0)
    assert_equal(*models)
    assert (models[0].stages[0].get_weights()[0] != start).any()
    assert any("seed" in variable.path for variable in models[0].variables)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", BOTH)
def test_a_stage_that_waits_makes_no_step(name):
    model = make(name, optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.5))
    before = [[v.numpy() for v in stage.trainable_variables] for stage in model.stages]
    logs = fit(model, epochs=1, batch_size=6, steps_per_epoch=2)
    moved = [
        any((v.numpy() != one).any() for v, one in zip(stage.trainable_variables, old, strict=True))
        for stage, old in zip(model.stages, before, strict=True)
    ]
    first, second, third = model.optimizer.optimizers
    assert moved == [False, True, True]
    assert [int(one.iterations) for one in (first, second, third)] == [0, 1, 2]
    assert not any(v.numpy().any() for v in first.variables if "learning_rate" not in v.path)
    # A mean of no step would read as nothing late.
    assert np.isnan(logs["stage_1_staleness"])
    assert logs["stage_2_staleness"] == [1]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", BOTH)
def test_what_is_in_flight_is_no_one_s_to_drain_and_goes_with_the_run(name):
    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            held.append([np.asarray(v.numpy()) for v in self.model.state_variables()["stores"]])
            before = [v.numpy() for v in self.model.trainable_variables]
            self.model.drain()
            self.model.predict(X, verbose=0)
            for v, one in zip(self.model.trainable_variables, before, strict=True):
                np.testing.assert_array_equal(v.numpy(), one)

    held, model = [], make(name)
    fit(model, callbacks=[Look()])
    assert [int(stores[0]) for stores in held] == [3, 6]
    if name == "features_replay":
        lines = model._trainer.steps.stored.lines
        # With the one that a step works on: Δ_k + 1 inputs, K(K + 1)/2 together.
        kept = [1 if line is None else line.length + 1 for line in lines]
        assert (kept, sum(kept)) == ([3, 2, 1], 6)
        assert sum(one.shape == (4, 6) for one in held[-1]) == sum(kept) - len(kept)
    for variable in model.state_variables()["stores"]:
        # Counters alone are left; -1 is an empty place.
        value = np.asarray(variable.numpy())
        assert value.size == 0 if value.dtype.kind == "f" else (value <= 0).all()
    # Outside `fit` it is the model's, until one begins.
    for _ in range(3):
        logs = model.train_on_batch(X, Y, return_dict=True)
    assert np.isfinite(logs["loss"])
    assert int(model.state_variables()["stores"][0]) == 3
    assert model.optimizer.optimizers[0].iterations == 4 + 1


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", BOTH)
def test_gradients_travel_without_the_stages_loss_scales(name):
    def scaled():
        scales = [2.0**10, 2.0**3, 2.0**6]
        return [
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.25), initial_scale=one)
            for one in scales
        ]

    plain, own = make(name, optimizer=keras.optimizers.SGD(0.25)), make(name, optimizer=scaled())
    for model in (plain, own):
        fit(model)
    assert_equal(plain, own)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", BOTH)
def test_a_batch_that_a_loss_scale_has_overflown_trains_no_stage_below(name):
    keras.config.set_dtype_policy("mixed_float16")
    inner = [keras.optimizers.SGD(0.25) for _ in range(3)]
    scales = [2.0**10, 2.0**10, 2.0**30]
    model = make(
        name,
        optimizer=[
            keras.optimizers.LossScaleOptimizer(one, initial_scale=scale)
            for one, scale in zip(inner, scales, strict=True)
        ],
    )
    before = [v.numpy() for v in model.stages[1].trainable_variables]
    fit(model, epochs=1)
    for v, one in zip(model.stages[1].trainable_variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), one)
    # The scale that was too large is halved, and theirs are as they were.
    found = [float(one.dynamic_scale) for one in model.optimizer.optimizers]
    assert found == [2.0**10, 2.0**10, 2.0**27]
    fit(model, epochs=10)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert any(
        (v.numpy() != one).any()
        for v, one in zip(model.stages[1].trainable_variables, before, strict=True)
    )


@pytest.mark.parametrize(
    "rate",
    [0.5, keras.optimizers.schedules.ExponentialDecay(0.5, 100, 0.5)],
    ids=["rate", "schedule"],
)
def test_the_first_of_several_stages_may_learn_at_twice_the_rate(rate, tmp_path):
    method, template = FeaturesReplay(doubles_first_rate=True), keras.optimizers.SGD(rate)
    model = make(method, optimizer=template)
    model.save(tmp_path / "model.keras")
    for one in (model, trgl.load_model(tmp_path / "model.keras")):
        rates = [float(own.learning_rate) for own in one.optimizer.optimizers]
        assert rates == [1.0, 0.5, 0.5]
        if rate == 0.5:
            one.optimizer.learning_rate = 0.25
            one.optimizer.learning_rate.assign_sub(0.125)
            rates = [float(own.learning_rate) for own in one.optimizer.optimizers]
            assert rates == [0.25, 0.125, 0.125]
    alone, listed = make(method, num_stages=1, optimizer="sgd"), [keras.optimizers.SGD(0.5)] * 2
    assert float(alone.optimizer.optimizers[0].learning_rate) == pytest.approx(0.01)
    listed = make(method, 2, [keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.5)])
    assert float(listed.optimizer.optimizers[0].learning_rate) == 0.5


def test_a_subclass_s_own_loss_and_metrics_are_those_of_the_last_depth():
    class Own(GreedyModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            asked.append(x.shape[-1])
            return 2.0 * super().compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
            )

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            return {"rows": tf.shape(y_pred)[0]}

    asked = []
    for method in BOTH.values():
        blocks = [keras.layers.Dense(5), keras.layers.Dense(4)]
        model = Own.from_blocks(blocks, [1, 1], LinearHead(3), method=method(), seed=0)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        assert fit(model, epochs=1)["rows"] == [4]
    assert set(asked) == {6}


def under_replicas(method):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        fit(make(method))


REFUSED = {
    "sequential": (
        lambda m: GreedyModel([SquaredScale()], [LinearHead(1)], m, regime=Sequential(1)),
        r"must step on every batch\. Received: method=.*regime=Sequential\(epochs=1\)\. Use `Par",
    ),
    "multi_lap": (
        lambda m: GreedyModel([SquaredScale()], [LinearHead(1)], m, regime=MultiLap(2, 2)),
        r"must step on every batch.*Use `Parallel\(\)`, or a local method",
    ),
    "buffered": (
        lambda m: GreedyModel([SquaredScale()], [LinearHead(1)], m, regime=Buffered()),
        r"must step on every batch.*regime=Buffered",
    ),
    "xla": (
        lambda m: make(m, jit_compile=True),
        r"XLA takes fixed shapes\. Received: jit_compile=True with method=.*Leave `jit_compile`",
    ),
    "replicas": (
        under_replicas,
        r"those of one replica\. Received: method=.*or use `EndToEnd\(\)`",
    ),
    "energy": (
        lambda m: TRGL(1.0, on=m),
        r"`on` must be a local method, whose stages learn one by",
    ),
    "truncate": (lambda m: make(m).truncate(2), r"A depth can predict .* depth 2 of .* depth, 3\."),
    "exits": (lambda m: make(m).predict_exits(X, verbose=0), r"A depth can predict .* depth 1 of"),
    "exit": (lambda m: make(m)(X, exits=1), r"A depth can predict .* depth 1 of a model whose"),
    "multiplier": (
        lambda m: fit(make(m), callbacks=[trgl.callbacks.MultiplierUpdate(h=1.0, s=1)]),
        r"`MultiplierUpdate` moves the weight of the energy, so a stage must have one",
    ),
}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence(case, name):
    call, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call(BOTH[name]())
