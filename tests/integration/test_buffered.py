"""The buffered regime in `fit`: what equals the parallel one bit for bit, and what is stale."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.callbacks import MultiplierUpdate
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import TRGL
from keras_trgl.regimes import Buffered

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6)).astype("float32")
Y = RNG.integers(0, 3, 20)
WEIGHTS = np.linspace(0.5, 2.0, 20).astype("float32")
K = 3


def make(regime="parallel", optimizer=None, method="trgl", input_shape=(6,), **options):
    blocks = [
        ResidualBlock(
            [keras.layers.Dense(6, "tanh"), keras.layers.Dropout(0.3)],
            input_shape=input_shape if k == 0 else None,
        )
        for k in range(K)
    ]
    model = GreedyModel.from_blocks(
        blocks, [1] * K, LinearHead(3), method=method, regime=regime, seed=0
    )
    model.compile(
        optimizer() if optimizer else keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def fit(model, **options):
    options = {"batch_size": 8, "epochs": 2, "verbose": 0} | options
    return model.fit(X, Y, sample_weight=WEIGHTS, validation_data=(X, Y), **options).history


def iterations(model):
    return [int(one.iterations) for one in model.optimizer.optimizers]


def assert_equal(first, second):
    for group in ("model", "optimizer"):
        ours, theirs = first.state_variables()[group], second.state_variables()[group]
        assert len(ours) == len(theirs) > 0
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def assert_equal_logs(history, wanted):
    stale = {f"stage_{k}_staleness" for k in range(2, K + 1)}
    assert set(history) - stale == set(wanted)
    assert {name: history[name] for name in wanted} == wanted
    assert all(history[name] == [0.0] * len(wanted["loss"]) for name in stale)


STORES_OF_ONE = {"round_robin": Buffered(), "skewed": Buffered(order="skewed")}
SETTINGS = {
    # Three batches an epoch, the last one short, so two steps per execution do not divide it.
    "sgd": ({}, {}),
    "adam_two_steps_per_execution": (
        {"optimizer": lambda: keras.optimizers.Adam(0.01), "steps_per_execution": 2},
        {},
    ),
    "fewer_batches_than_stages": ({}, {"batch_size": 10}),
    "multipliers": ({"method": TRGL(0.5)}, {"update": (0.5, 2)}),
}


@functools.cache
def trained(regime, setting):
    """Give a model that was trained, and its history."""
    options, given = SETTINGS[setting]
    given = dict(given)
    update = given.pop("update", None)
    callbacks = [MultiplierUpdate(*update)] if update else []
    model = make(STORES_OF_ONE.get(regime, regime), **options)
    return model, fit(model, callbacks=callbacks, **given)


@pytest.mark.parametrize("order", STORES_OF_ONE)
@pytest.mark.parametrize("setting", SETTINGS)
def test_stores_of_one_are_parallel_bit_for_bit(order, setting):
    parallel, wanted = trained("parallel", setting)
    buffered, history = trained(order, setting)
    assert_equal(buffered, parallel)
    assert_equal_logs(history, wanted)
    if setting == "multipliers":
        assert wanted["stage_3_multiplier"][-1] > wanted["stage_3_multiplier"][0] > 1.0
    else:
        assert iterations(buffered) == [4 if "fewer" in setting else 6] * K


@pytest.mark.parametrize("order", STORES_OF_ONE)
def test_eager_steps_are_near(order):
    graph, _ = trained(order, "sgd")
    eager = make(STORES_OF_ONE[order], run_eagerly=True)
    fit(eager)
    assert iterations(eager) == iterations(graph) == [6, 6, 6]
    for one, other in zip(graph.weights, eager.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-4)


def test_a_model_that_is_built_by_its_data_has_stores_too():
    history = fit(make(Buffered(), input_shape=None), epochs=1)
    assert history["stage_3_staleness"] == [0.0]


class Watch(keras.callbacks.Callback):
    """Notes every stage's number of steps after every batch."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(iterations(self.model))


def test_skewed_stages_lag_and_catch_up_at_the_end_of_an_epoch():
    model, watch = make(STORES_OF_ONE["skewed"]), Watch()
    fit(model, batch_size=4, callbacks=[watch])
    assert watch.steps[:5] == [[1, 0, 0], [2, 1, 0], [3, 2, 1], [4, 3, 2], [5, 4, 3]]
    assert watch.steps[5] == [6, 5, 5]
    assert iterations(model) == [10, 10, 10]


@pytest.mark.long
def test_a_skewed_run_saved_within_an_epoch_is_drained_first(tmp_path):
    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                self.model.save(tmp_path / "model.keras")
                self.steps = iterations(self.model)

    callback, model = Save(), make(STORES_OF_ONE["skewed"])
    fit(model, batch_size=4, epochs=1, callbacks=[callback])
    assert callback.steps == [3, 3, 3]
    assert iterations(model) == [5, 5, 5]
    assert iterations(keras.saving.load_model(tmp_path / "model.keras")) == [3, 3, 3]


def test_start_up_trains_on_no_garbage():
    model, watch = make(Buffered(capacity=3)), Watch()
    fit(model, batch_size=4, epochs=1, callbacks=[watch])
    assert watch.steps == [[1, 0, 0], [2, 2, 2], [3, 3, 3], [4, 4, 4], [5, 5, 5]]


def test_stores_begin_empty_in_every_fit_and_take_another_batch_size():
    model, watch = make(Buffered(capacity=3)), Watch()
    fit(model, batch_size=4, epochs=1)
    fit(model, batch_size=5, epochs=1, callbacks=[watch])
    assert watch.steps == [[6, 5, 5], [7, 7, 7], [8, 8, 8], [9, 9, 9]]


@pytest.mark.long
def test_random_picks_are_a_function_of_the_seed_and_go_on_in_a_second_fit():
    once, twice = (make(Buffered(capacity=2, order="random")) for _ in range(2))
    wanted = fit(once, batch_size=4)
    fit(twice, batch_size=4, epochs=1)
    history = fit(twice, batch_size=4, epochs=2, initial_epoch=1)
    assert_equal(once, twice)
    assert {name: values[1:] for name, values in wanted.items()} == history


# Staleness is measured: every batch says its number, in its features and in its labels.


@keras.saving.register_keras_serializable("tests")
class Pass(keras.layers.Layer):
    """Passes the tag on, beside it the number of its own step; notes what it gets."""

    def compute_output_shape(self, input_shape):
        return input_shape

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, x, training=None):
        tag = x[:, :1] * (self.scale - tf.stop_gradient(self.scale) + 1.0)
        if training:
            self.count.assign_add(1.0)
            tf.numpy_function(self.note, [x, self.count], [])
        return tf.concat([tag, tf.fill(tf.shape(tag), tf.convert_to_tensor(self.count))], 1)

    def note(self, x, count):
        log = self.__dict__.setdefault("seen", [])
        log.append((int(x[0, 0]), int(x[0, 1]), int(count)))


@keras.saving.register_keras_serializable("tests")
class Tag(keras.layers.Layer):
    """A head that gives the tag."""

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)

    def call(self, x):
        return x[:, :1]


def tagged(regime, **options):
    model = GreedyModel([Pass() for _ in range(K)], [Tag() for _ in range(K)], "vangl", regime, 0)
    model.build((None, 2))
    model.compile("sgd", keras.losses.MeanAbsoluteError(), **options)
    return model


def tags(num_batches, size=2, drop_remainder=True):
    numbers = np.repeat(np.arange(num_batches), size)
    x = np.stack([numbers, np.zeros_like(numbers)], 1).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, numbers[:, None].astype("float32"))).batch(
        size, drop_remainder=drop_remainder
    )


@pytest.mark.parametrize(
    ("regime", "drop_remainder"),
    [
        (Buffered(), True),
        (Buffered(order="skewed"), True),
        (Buffered(capacity=3), True),
        (Buffered(capacity=3), False),
        (Buffered(capacity=2, order="random", max_reuse=2, warm_up=0), False),
    ],
    ids=["round_robin", "skewed", "fixed_shape", "open_shape", "random"],
)
def test_labels_and_features_agree_at_every_stage(regime, drop_remainder):
    model = tagged(regime)
    history = model.fit(tags(8, drop_remainder=drop_remainder), epochs=1, verbose=0).history
    layers = [stage.blocks[0] for stage in model.stages]
    for k, layer in enumerate(layers, start=1):
        # |tag in the features − label| was 0 in every step.
        assert history[f"stage_{k}_loss"] == [0.0]
        assert [count for _, _, count in layer.seen] == list(range(1, len(layer.seen) + 1))
    # Which step of the writer a batch comes from tells which batch it was.
    for writer, reader in itertools.pairwise(layers):
        wrote = {count: tag for tag, _, count in writer.seen}
        assert all(wrote[made_at] == tag for tag, made_at, _ in reader.seen)
    if regime.capacity == 1:
        assert [tag for tag, _, _ in layers[-1].seen] == list(range(8))
        assert history["stage_3_staleness"] == [0.0]


def test_logs_of_a_larger_store_say_what_the_tags_say():
    # Eager steps are made in order, so how far the writer is can be counted.
    model, order = tagged(Buffered(capacity=3), run_eagerly=True), []
    layers = [stage.blocks[0] for stage in model.stages]
    for k, layer in enumerate(layers):
        layer.__dict__["note"] = lambda x, count, k=k: order.append((k, int(x[0, 1])))
    history = model.fit(tags(8), epochs=1, verbose=0).history
    made, stale = [0] * K, [[] for _ in range(K)]
    for k, made_at in order:
        stale[k].append(made[k - 1] - made_at)
        made[k] += 1
    for k in range(1, K):
        assert history[f"stage_{k + 1}_staleness"] == [pytest.approx(np.mean(stale[k]))]
        assert max(stale[k]) > 0
    graph = tagged(Buffered(capacity=3))
    assert graph.fit(tags(8), epochs=1, verbose=0).history == history


def test_incomplete_batches_are_trained_on_but_not_kept():
    numbers = np.repeat(np.arange(5), 4)[:18]
    x = np.stack([numbers, np.zeros_like(numbers)], 1).astype("float32")
    model = tagged(Buffered(capacity=2))
    model.fit(x, numbers[:, None], batch_size=4, shuffle=False, epochs=2, verbose=0)
    first, second, _ = (stage.blocks[0].seen for stage in model.stages)
    assert {tag for tag, _, _ in first} == set(range(5))
    assert {tag for tag, _, _ in second} == set(range(4))


def test_a_slow_stage_steps_half_as_often():
    n = 200
    regime = Buffered(order="random", slow_stage=2, slowdown=0.5)
    model = tagged(regime)
    model.fit(tags(n), epochs=1, verbose=0)
    first, slow, _ = iterations(model)
    assert first == n
    # Between two picks of stage 1 come picks of stage 2: geometric, mean 1/2, variance 3/4.
    assert abs(slow - n / 2) < 5 * np.sqrt(0.75 * n)
    even = tagged(Buffered(order="random"))
    even.fit(tags(n), epochs=1, verbose=0)
    assert abs(iterations(even)[1] - n) < 5 * np.sqrt(2 * n)


RATES = [0.05, 0.05, 0.005, 0.005]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_change_of_the_learning_rate_begins_a_warm_up(policy):
    keras.config.set_dtype_policy(policy)
    model, watch = make(Buffered(capacity=2, warm_up=2)), Watch()
    drop = keras.callbacks.LearningRateScheduler(lambda epoch, rate: RATES[epoch])
    fit(model, batch_size=7, epochs=4, callbacks=[drop, watch])
    # Stage 1 is a batch ahead within a warm-up: at the start, and in the third epoch.
    ahead = [first - last for first, _, last in watch.steps]
    assert ahead == [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_a_schedule_begins_no_warm_up():
    rate = keras.optimizers.schedules.CosineDecay(0.1, 12)
    model, watch = make(Buffered(capacity=2), lambda: keras.optimizers.SGD(rate)), Watch()
    fit(model, batch_size=7, epochs=3, callbacks=[watch])
    assert [one[0] - one[2] for one in watch.steps] == [1] + [0] * 8


def test_a_generator_is_read_from_its_first_batch():
    def batches():
        for start in range(0, 20, 8):
            yield X[start : start + 8], Y[start : start + 8]

    models = [make(Buffered()), make()]
    for model in models:
        model.fit(batches(), steps_per_epoch=3, verbose=0)
    assert_equal(*models)


@pytest.mark.multi_device
def test_several_replicas_are_refused():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = make(Buffered())
    wanted = (
        r"`Buffered` trains on one replica. Received: a strategy with several. Use `Parallel\(\)` "
        "with replicas."
    )
    with pytest.raises(ValueError, match=wanted):
        model.fit(X, Y, batch_size=8, verbose=0)


def test_a_loss_that_is_not_finite_names_its_stage():
    model = make(Buffered(capacity=2))
    kernel = model.heads[1].weights[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match=r"Stage 2: the task loss is not finite. Received: nan"):
        fit(model)
