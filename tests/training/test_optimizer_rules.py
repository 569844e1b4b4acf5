"""Every optimizer rule acts on a stage as it acts on a plain Keras model of that stage."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel, StageOptimizers
from keras_trgl.heads import LinearHead
from keras_trgl.layers import BatchNormalization, ResidualBlock

pytestmark = pytest.mark.sampled(2)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.integers(0, 3, 24)
LOSS = keras.losses.SparseCategoricalCrossentropy


def make(optimizer, normalized=False, **options):
    def branch():
        last = [BatchNormalization()] if normalized else []
        return [keras.layers.Dense(6, "tanh"), *last]

    blocks = [ResidualBlock(branch(), input_shape=(6,) if k == 0 else None) for k in range(3)]
    model = GreedyModel.from_blocks(blocks, [2, 1], LinearHead(3), method="vangl", seed=0)
    model.compile(optimizer, LOSS(from_logits=True), **options)
    return model


def plain(k):
    """Stage k and its head, counted from 0, as a plain model with the same initial weights."""
    twin = make("sgd")
    x = inputs = keras.Input((6,))
    for block in twin.stages[k].blocks:
        x = block(x)
    return keras.Model(inputs, twin.heads[k](x))


def variables(model, k):
    return [*model.stages[k].trainable_variables, *model.heads[k].trainable_variables]


def assert_near(first, second, atol=1e-6):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=atol)


def fit(model, x=X):
    return model.fit(x, Y, batch_size=8, epochs=4, shuffle=False, verbose=0).history


def decay_without_bias():
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


SCHEDULES = keras.optimizers.schedules
RULES = {
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.05),
    "clipvalue": lambda: keras.optimizers.SGD(0.1, clipvalue=0.01),
    "global_clipnorm": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.05),
    "cosine": lambda: keras.optimizers.Adam(SCHEDULES.CosineDecay(0.05, 6)),
    "decay": decay_without_bias,
    "accumulation": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=3),
    "ema": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
    "ema_overwrite": lambda: keras.optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "lion": lambda: keras.optimizers.Lion(0.001),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=64.0
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_copied_optimizer_trains_stage_1_as_plain_keras_does(rule):
    model, alone = make(RULES[rule]()), plain(0)
    alone.compile(RULES[rule](), LOSS(from_logits=True))
    ours, theirs = fit(model), fit(alone)
    np.testing.assert_allclose(ours["stage_1_loss"], theirs["loss"], rtol=1e-5)
    assert_near(variables(model, 0), alone.trainable_variables)


@pytest.mark.parametrize("rule", RULES)
def test_listed_optimizer_trains_stage_2_as_plain_keras_does(rule):
    # Stage 1 stands still, so stage 2 sees the same features in every epoch.
    model, alone = make([keras.optimizers.SGD(0.0), RULES[rule]()]), plain(1)
    features = model.stages[0](X).numpy()
    alone.compile(RULES[rule](), LOSS(from_logits=True))
    ours, theirs = fit(model), fit(alone, features)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
    assert_near(variables(model, 1), alone.trainable_variables)


def test_averages_are_in_the_weights_after_fit():
    rate, momentum = 0.25, 0.5
    model = make(keras.optimizers.SGD(rate, use_ema=True, ema_momentum=momentum))
    seen = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([v.numpy() for v in model.trainable_variables])

    model.fit(X, Y, batch_size=8, epochs=1, verbose=0, callbacks=[Record()])
    assert len(seen) == 3
    for position, variable in enumerate(model.trainable_variables):
        average = seen[0][position]
        for values in seen[1:]:
            average = momentum * average + (1 - momentum) * values[position]
        np.testing.assert_allclose(variable.numpy(), average, atol=1e-6)


def test_averages_are_swapped_in_for_validation_and_out_again():
    model = make(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9))
    seen = {"train": [], "test": []}

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen["train"].append([v.numpy() for v in model.trainable_variables])

        def on_test_begin(self, logs=None):
            seen["test"].append([v.numpy() for v in model.trainable_variables])

    swap = keras.callbacks.SwapEMAWeights()
    model.fit(X, Y, epochs=1, batch_size=8, validation_data=(X, Y), verbose=0,
              callbacks=[swap, Record()])  # fmt: skip
    (tested,) = seen["test"]
    for position, values in enumerate(tested):
        average = seen["train"][0][position]
        for step in seen["train"][1:]:
            average = 0.9 * average + 0.1 * step[position]
        np.testing.assert_allclose(values, average, atol=1e-6)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_excluded_scale_does_not_decay_under_a_loss_scale(policy, wrapped):
    keras.config.set_dtype_policy(policy)

    def template(decay):
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=decay)
        optimizer.exclude_from_weight_decay(var_names=["gamma"])
        return keras.optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer

    decayed, free = make(template(0.5), normalized=True), make(template(0.0), normalized=True)
    for model in (decayed, free):
        model.train_on_batch(X, Y)
    for k in range(2):
        dense, scale = decayed.stages[k].blocks[0].branch
        other_dense, other_scale = free.stages[k].blocks[0].branch
        np.testing.assert_array_equal(scale.gamma.numpy(), other_scale.gamma.numpy())
        assert np.abs(dense.kernel.numpy() - other_dense.kernel.numpy()).max() > 1e-4


def test_exclusion_by_the_facade_reaches_the_optimizers_inside_loss_scales():
    keras.config.set_dtype_policy("mixed_float16")
    facade = StageOptimizers([keras.optimizers.SGD(0.1, weight_decay=0.5) for _ in range(2)])
    facade.scale_losses()
    facade.exclude_from_weight_decay(var_names=["kernel"])
    model, free = make(facade), make(keras.optimizers.SGD(0.1))
    for one in (model, free):
        one.train_on_batch(X, Y)
    kernels = [m.heads[0].layers_in_a_row[-1].kernel.numpy() for m in (model, free)]
    np.testing.assert_array_equal(*kernels)


def test_exclusion_by_list_of_variables_is_copied():
    model = make("sgd")
    kernel = model.heads[1].layers_in_a_row[-1].kernel
    template = keras.optimizers.SGD(0.0, weight_decay=0.5)
    template.exclude_from_weight_decay(var_list=[kernel])
    model.compile(template, LOSS(from_logits=True))
    before = [v.numpy() for v in (kernel, model.heads[0].layers_in_a_row[-1].kernel)]
    model.train_on_batch(X, Y)
    np.testing.assert_array_equal(kernel.numpy(), before[0])


def test_a_facade_that_trains_another_model_is_refused_at_compile():
    facade = StageOptimizers([keras.optimizers.SGD(0.1) for _ in range(2)])
    make(facade).train_on_batch(X, Y)
    with pytest.raises(ValueError, match="must be new"):
        make(facade)


def test_a_model_can_be_compiled_again_with_its_own_optimizers_after_freezing():
    model = make(keras.optimizers.SGD(0.1, momentum=0.9))
    model.train_on_batch(X, Y)
    model.stages[0].trainable = False
    before = [v.numpy() for v in model.stages[0].variables]
    model.compile(model.optimizer, LOSS(from_logits=True))
    model.train_on_batch(X, Y)
    for variable, value in zip(model.stages[0].variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert int(model.optimizer.iterations.numpy()) == 2


def test_names_and_configurations_of_optimizers_can_be_mixed_in_a_list():
    model = make(["adam", {"class_name": "SGD", "config": {"learning_rate": 0.5}}])
    adam, sgd = model.optimizer.optimizers
    assert isinstance(adam, keras.optimizers.Adam)
    assert isinstance(sgd, keras.optimizers.SGD)
    assert float(sgd.learning_rate.numpy()) == 0.5


@pytest.mark.parametrize("count", [1, 3])
def test_a_facade_of_another_length_is_refused(count):
    facade = StageOptimizers([keras.optimizers.SGD() for _ in range(count)])
    with pytest.raises(ValueError, match=f"a list of 2, one per stage. Received: {count}"):
        make(facade)
