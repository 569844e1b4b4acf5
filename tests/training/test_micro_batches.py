"""A batch in parts gives what the whole batch gives, but for batch normalization."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.layers import ResidualBlock

pytestmark = pytest.mark.sampled(2)

CLASSES, STEPS = 3, 5
rng = np.random.default_rng(0)
# Batches of 8, 8 and 6: the last has parts of its own size.
X = rng.normal(size=(22, 6)).astype("float32")
Y = rng.integers(0, CLASSES, 22)
WEIGHTS = rng.uniform(0.1, 2.0, 22).astype("float32")
TOKENS = rng.integers(1, 9, (22, STEPS)) * (np.arange(STEPS) < rng.integers(1, STEPS + 1, (22, 1)))
TAGS = rng.integers(0, CLASSES, (22, STEPS))
TAGS[rng.uniform(size=TAGS.shape) < 0.3] = -1
TAG_WEIGHTS = rng.uniform(0.1, 2.0, TAGS.shape).astype("float32")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy

layers = keras.layers


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def adamw():
    return keras.optimizers.AdamW(0.01, epsilon=1e-3)


def dense_blocks():
    decay = keras.regularizers.L2(0.01)
    units = [
        ResidualBlock([layers.Dense(8, "tanh", kernel_regularizer=decay), layers.Dense(8)])
        for _ in range(4)
    ]
    return [layers.Dense(8), *units]


def token_blocks():
    first = layers.Embedding(9, 8, mask_zero=True)
    return [first, *[layers.GRU(8, return_sequences=True) for _ in range(2)]]


class Pooled(trgl.heads.Head):
    """A prediction from the mean over the steps that the mask lets through."""

    def make_layers(self, input_shape):
        return [layers.GlobalAveragePooling1D(), layers.Dense(self.units)]


class PerToken(layers.Layer):
    """A prediction for every step, with the mask of the features."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense, self.supports_masking = units, layers.Dense(units), True

    def call(self, x):
        return self.dense(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)


def trained(parts, data=(X, Y), make=dense_blocks, sizes=(2, 3), head=None, **options):
    """Give the history and the weights of two epochs."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(options.pop("policy", "float32"))
    fit = {key: options.pop(key) for key in ("sample_weight", "callbacks") if key in options}
    made = {key: options.pop(key) for key in ("regime", "method") if key in options}
    more = [keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="ce")]
    more = options.pop("weighted_metrics", more)
    head = head or trgl.heads.LinearHead(CLASSES)
    model = trgl.GreedyModel.from_blocks(make(), list(sizes), head, seed=0, **made)
    model.compile(
        options.pop("optimizer", sgd)(),
        options.pop("loss", CROSS_ENTROPY(from_logits=True)),
        metrics=["accuracy"],
        weighted_metrics=more,
        micro_batches=parts,
        **options,
    )
    history = model.fit(*data, batch_size=8, epochs=2, verbose=0, **fit).history
    return history, model.state_variables()


def multiplier():
    return {"callbacks": [trgl.callbacks.MultiplierUpdate(h=0.5, s=2, initial=2.0)]}


TAGGED = {"data": (TOKENS, TAGS), "make": token_blocks, "sizes": (2, 1), "method": "vangl"}
CASES = {
    "plain": lambda: {},
    "adamw": lambda: {"optimizer": adamw},
    "sample weights": lambda: {"sample_weight": WEIGHTS},
    "weighted mean": lambda: {
        "sample_weight": WEIGHTS,
        "loss": CROSS_ENTROPY(from_logits=True, reduction="mean_with_sample_weight"),
    },
    "sum": lambda: {
        "loss": CROSS_ENTROPY(from_logits=True, reduction="sum"),
        "optimizer": lambda: keras.optimizers.SGD(0.01),
    },
    "multiplier": multiplier,
    "multiplier of the loss": lambda: {
        "callbacks": [trgl.callbacks.MultiplierUpdate(h=0.5, s=1, initial=2.0, scaling="loss")],
        "optimizer": adamw,
    },
    "mixed_float16": lambda: {"policy": "mixed_float16"},
    "buffered": lambda: {"regime": trgl.regimes.Buffered(capacity=2, max_reuse=2)},
    "skewed": lambda: {"regime": trgl.regimes.Buffered(order="skewed")},
    "in turn": lambda: {"regime": trgl.regimes.Sequential(epochs=1)},
    "several steps": lambda: {"steps_per_execution": 2},
    "eager": lambda: {"run_eagerly": True},
    "embedding and masks inside": lambda: {
        **TAGGED,
        "data": (TOKENS, Y),
        "head": Pooled(CLASSES),
        "optimizer": adamw,
    },
    "masked predictions": lambda: {
        **TAGGED,
        "data": (TOKENS, np.maximum(TAGS, 0)),
        "head": PerToken(CLASSES),
        "optimizer": adamw,
    },
    "ignored class": lambda: {
        **TAGGED,
        "head": PerToken(CLASSES),
        "loss": CROSS_ENTROPY(from_logits=True, ignore_class=-1),
        "weighted_metrics": ["accuracy"],
    },
    "ignored class, masked, weighted mean": lambda: {
        **TAGGED,
        "head": PerToken(CLASSES),
        "sample_weight": TAG_WEIGHTS,
        "weighted_metrics": ["accuracy"],
        "loss": CROSS_ENTROPY(
            from_logits=True, ignore_class=-1, reduction="mean_with_sample_weight"
        ),
    },
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("case", "parts"), [("plain", 4), *((case, 3) for case in CASES)])
def test_parts_train_as_the_whole_batch(case, parts):
    (history, states), (one, whole) = (trained(n, **CASES[case]()) for n in (parts, 1))
    half = case == "mixed_float16"
    near = {"rtol": 5e-3, "atol": 5e-3} if half else {"rtol": 2e-4, "atol": 2e-5}
    assert history.keys() == one.keys()
    for name, values in one.items():
        np.testing.assert_allclose(history[name], values, err_msg=name, **near)
    for name, variables in whole.items():
        for found, wanted in zip(states[name], variables, strict=True):
            np.testing.assert_allclose(found.numpy(), wanted.numpy(), err_msg=name, **near)


def test_one_part_is_the_path_without_parts():
    (history, states), (one, whole) = (trained(n) for n in (1, 1))
    assert history == one
    steps = trgl.GreedyModel.from_blocks(dense_blocks(), [2, 3], trgl.heads.LinearHead(3))
    steps.compile(sgd(), "mse")
    assert [step._parts for step in steps._trainer.steps.steps] == [None, None]
    assert states.keys() == whole.keys()


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_of_fewer_examples_than_parts_has_as_many_parts_as_examples(size):
    found, wanted = (trained(n, data=(X[:size], Y[:size]))[0]["stage_1_objective"] for n in (7, 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def normalized_blocks():
    return [
        layers.Dense(8),
        *[ResidualBlock([layers.Dense(8), layers.BatchNormalization()]) for _ in range(3)],
    ]


def test_batch_normalization_takes_each_parts_statistics():
    found, wanted = (
        trained(n, make=normalized_blocks, sizes=(2, 2))[0]["stage_1_loss"] for n in (4, 1)
    )
    assert np.isfinite(found).all()
    assert not np.allclose(found, wanted, rtol=1e-4)


def test_the_stage_hands_on_the_features_of_all_parts_in_order():
    model = trgl.GreedyModel.from_blocks(dense_blocks(), [2, 3], trgl.heads.LinearHead(3), seed=0)
    model.build((None, 6))
    model.compile(sgd(), CROSS_ENTROPY(from_logits=True), micro_batches=3)
    wanted = model.stages[0](X)
    step = model._trainer.steps.steps[0]
    batch = (tf.constant(X), tf.constant(Y), None, None)
    run = tf.function(lambda: step.train(batch), autograph=False)
    np.testing.assert_allclose(run(), wanted, rtol=1e-6, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_whole_update():
    model = trgl.GreedyModel.from_blocks(
        normalized_blocks(), [2, 2], trgl.heads.LinearHead(3), seed=0
    )
    model.build((None, 6))
    model.compile(sgd(), CROSS_ENTROPY(from_logits=True), micro_batches=4)
    before = [v.numpy() for v in model.stages[0].variables]
    bad = X[:8].copy()
    bad[-1] = np.nan
    with pytest.raises(ValueError, match="Stage 1: the task loss is not finite"):
        model.fit(bad, Y[:8], batch_size=8, verbose=0)
    for one, value in zip(model.stages[0].variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), value)


class Seen(trgl.GreedyModel):
    """Counts the examples that its metrics see."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        seen = tf.shape(x)[0], tf.shape(y_pred)[0]
        return {**results, "inputs": seen[0], "predictions": seen[1]}


def test_an_override_of_metrics_sees_the_whole_batch():
    model = Seen.from_blocks(dense_blocks(), [2, 3], trgl.heads.LinearHead(3), seed=0)
    model.compile(sgd(), CROSS_ENTROPY(from_logits=True), metrics=["accuracy"], micro_batches=4)
    logs = model.train_on_batch(X[:8], Y[:8], return_dict=True)
    assert (logs["inputs"], logs["predictions"]) == (8, 8)


def test_the_number_of_parts_is_saved(tmp_path):
    model = trgl.GreedyModel.from_blocks(dense_blocks(), [2, 3], trgl.heads.LinearHead(3), seed=0)
    model.compile(sgd(), CROSS_ENTROPY(from_logits=True), micro_batches=4)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = trgl.load_model(tmp_path / "model.keras")
    assert [step.micro_batches for step in again._trainer.steps.steps] == [4, 4]


@pytest.mark.filterwarnings("ignore:With `jit_compile=True`")
@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"micro_batches": 0}, ValueError, "`micro_batches` must be at least 1"),
        ({"micro_batches": 2.0}, TypeError, "`micro_batches` must be an integer"),
        ({"micro_batches": 2, "jit_compile": True}, ValueError, "XLA takes fixed shapes"),
    ],
)
def test_parts_that_cannot_be_are_refused(options, kind, said):
    model = trgl.GreedyModel.from_blocks(dense_blocks(), [2, 3], trgl.heads.LinearHead(3))
    with pytest.raises(kind, match=said):
        model.compile(sgd(), "mse", **options)


def test_replicas_are_told_what_to_do():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = trgl.GreedyModel.from_blocks(dense_blocks(), [2, 3], trgl.heads.LinearHead(3))
        with pytest.raises(ValueError, match="gradient_accumulation_steps"):
            model.compile(sgd(), "mse", micro_batches=2)
