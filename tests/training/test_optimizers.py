"""One optimizer per stage behind one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel, StageOptimizers
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.regimes import Sequential
from keras_trgl.training.optimizers import copy_optimizer

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 16)


def make(optimizer, **options):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(3), seed=0)
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options
    )
    return model


def test_one_optimizer_is_copied_for_every_stage_with_its_settings():
    model = make(keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=2.0))
    inner = model.optimizer.optimizers
    assert len({id(one) for one in inner}) == 3
    assert [one.name for one in inner] == ["stage_1", "stage_2", "stage_3"]
    for one in inner:
        assert (one.weight_decay, one.clipnorm) == (0.1, 2.0)


def test_a_list_gives_each_stage_its_own():
    rates = [0.5, 0.25, 0.125]
    model = make([keras.optimizers.SGD(rate) for rate in rates])
    assert [float(one.learning_rate.numpy()) for one in model.optimizer.optimizers] == rates


def test_a_ready_facade_is_taken_as_it_is():
    facade = StageOptimizers([keras.optimizers.SGD(0.5) for _ in range(3)])
    assert make(facade).optimizer is facade


def test_setting_the_rate_reaches_every_stage():
    model = make("sgd")
    model.optimizer.learning_rate = 0.5
    assert [float(one.learning_rate.numpy()) for one in model.optimizer.optimizers] == [0.5] * 3


def test_schedules_run_on_each_stage_own_steps():
    model = make(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.5, 4)))
    model.fit(X, Y, batch_size=8, epochs=1, verbose=0)
    for one in model.optimizer.optimizers:
        assert int(one.iterations.numpy()) == 2
        assert float(one.learning_rate.numpy()) == pytest.approx(0.25)


def step_of(optimizer, k):
    """How far stage k's weights moved in one step."""
    model = make(optimizer)
    before = [v.numpy() for v in model._trainer.steps.trainable_variables(k)]
    model.train_on_batch(X, Y)
    after = [v.numpy() for v in model._trainer.steps.trainable_variables(k)]
    return np.sqrt(
        sum(np.sum((one - other) ** 2) for one, other in zip(before, after, strict=True))
    )


def test_global_clipnorm_is_the_norm_of_one_stage():
    for k in range(3):
        step = step_of(keras.optimizers.SGD(1.0, global_clipnorm=1e-3), k)
        assert step == pytest.approx(1e-3, rel=1e-2)


def test_weight_decay_leaves_excluded_variables_alone():
    template = keras.optimizers.SGD(1.0, weight_decay=0.5)
    template.exclude_from_weight_decay(var_names=["gamma", "beta"])
    model = make(template)
    plain = make(keras.optimizers.SGD(1.0))
    for each in (model, plain):
        each.train_on_batch(X, Y)

    def norm(each):
        return each.stages[0].blocks[0].branch[-1]

    def kernel(each):
        return each.stages[0].blocks[0].branch[0].kernel

    np.testing.assert_array_equal(norm(model).gamma.numpy(), norm(plain).gamma.numpy())
    assert np.abs(kernel(model).numpy() - kernel(plain).numpy()).max() > 1e-3


def test_exclusions_can_be_given_to_the_facade():
    facade = StageOptimizers([keras.optimizers.SGD(1.0, weight_decay=0.5) for _ in range(3)])
    facade.exclude_from_weight_decay(var_names=["gamma"])
    model, plain = make(facade), make(keras.optimizers.SGD(1.0))
    for each in (model, plain):
        each.train_on_batch(X, Y)
    gammas = [m.stages[2].blocks[0].branch[-1].gamma.numpy() for m in (model, plain)]
    np.testing.assert_array_equal(*gammas)


def test_accumulated_gradients_are_one_large_step():
    twice = make(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    before = twice.stages[0].blocks[0].branch[0].kernel.numpy()
    twice.train_on_batch(X[:8], Y[:8])
    np.testing.assert_array_equal(before, twice.stages[0].blocks[0].branch[0].kernel.numpy())
    twice.train_on_batch(X[8:], Y[8:])
    assert np.abs(before - twice.stages[0].blocks[0].branch[0].kernel.numpy()).max() > 0


def test_a_list_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"a list of 3, one per stage. Received: 2 optimizers"):
        make(["sgd", "sgd"])


def test_a_used_optimizer_is_refused():
    used = keras.optimizers.SGD()
    used.build([keras.Variable([1.0])])
    with pytest.raises(ValueError, match="`optimizer` must be new, or built on this model's own"):
        make(used)


def test_the_same_optimizer_twice_is_a_recipe():
    shared, own = keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.25)
    inner = make([shared, own, shared]).optimizer.optimizers
    assert [float(one.learning_rate.numpy()) for one in inner] == [0.5, 0.25, 0.5]
    assert inner[1] is own
    assert len({*map(id, inner), id(shared)}) == 4


def test_the_same_optimizer_twice_in_a_facade_is_refused():
    shared = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="Every stage needs an optimizer of its own"):
        make(StageOptimizers([shared] * 3))


def test_the_facade_applies_nothing_itself():
    model = make("sgd")
    with pytest.raises(NotImplementedError, match=r"Use `optimizers\[k\]"):
        model.optimizer.apply([])


def test_a_facade_outside_a_model_cannot_be_built():
    with pytest.raises(ValueError, match=r"Pass it to `model.compile"):
        StageOptimizers([keras.optimizers.SGD()]).build([])


def test_an_empty_facade_is_refused():
    with pytest.raises(ValueError, match="`optimizers` must hold one per stage"):
        StageOptimizers([])


class Halved(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of a user, neither registered nor with a configuration."""

    def __init__(self, *starts):
        self.start = starts[0]

    def __call__(self, step):
        return self.start * 0.5 ** keras.ops.cast(step, "float32")


class Signed(keras.optimizers.Optimizer):
    """An optimizer of a user with slots, without a configuration of its own."""

    def __init__(self, learning_rate, beta, *more):
        super().__init__(learning_rate)
        self.beta, self.more = beta, list(more)

    def build(self, variables):
        super().build(variables)
        self.means = self.add_optimizer_variables(variables, "mean")

    def update_step(self, gradient, variable, learning_rate):
        mean = self.means[self._get_variable_index(variable)]
        self.assign(mean, self.beta * mean + gradient)
        step = keras.ops.sign(mean) * keras.ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, step)


class Eager(keras.optimizers.SGD):
    def __init__(self, *args):
        super().__init__(*args)
        self.counter = self.add_variable(shape=(), name="counter")


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=0.5),
    "own_schedule": lambda: keras.optimizers.SGD(Halved(0.1), momentum=0.9),
    "function_as_rate": lambda: keras.optimizers.SGD(lambda: 0.03),
    "own": lambda: Signed(0.01, 0.5, 1, 2),
    "own_with_schedule": lambda: Signed(Halved(0.01), 0.5),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(Signed(0.01, 0.5), initial_scale=4.0),
    "average": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
}


def weights_after(optimizer, epochs=2):
    model = make(optimizer)
    model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0)
    return [one.numpy() for one in model.weights]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_copies_train_as_a_list_of_live_ones_does(name):
    copied = weights_after(OPTIMIZERS[name]())
    live = weights_after([OPTIMIZERS[name]() for _ in range(3)])
    for one, other in zip(copied, live, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_copy_has_the_settings_of_its_template(name):
    template = OPTIMIZERS[name]()
    copy = copy_optimizer(template, "another")
    assert copy.name == "another"
    assert not copy.built
    assert [v.dtype for v in copy.variables] == [v.dtype for v in template.variables]
    assert not {*map(id, copy.variables)} & {*map(id, template.variables)}
    kept = ("momentum", "nesterov", "weight_decay", "clipnorm", "use_ema", "beta", "more")
    for key in (*kept, "ema_momentum", "initial_scale"):
        assert getattr(copy, key, None) == getattr(template, key, None)
    if "own_" in name:
        assert copy.learning_rate is not None


def test_a_copy_under_float64_is_exact():
    keras.config.set_floatx("float64")
    rate, momentum = np.float64(0.1) / 3, np.float64(0.9)
    copy = copy_optimizer(keras.optimizers.SGD(rate, momentum=momentum), "another")
    assert copy.learning_rate.numpy() == rate
    assert type(copy.momentum) is np.float64


class Chosen(keras.optimizers.SGD):
    def __new__(cls, rate):
        return super().__new__(cls)


REFUSED = {Eager: r"holds variables \(counter\)", Chosen: "has a `__new__` with arguments"}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_optimizer_that_cannot_be_copied_asks_for_a_list(kind):
    with pytest.raises(ValueError, match=rf"{REFUSED[kind]}.*Give a list with an optimizer"):
        make(kind(0.1))
    assert len(make([kind(0.1) for _ in range(3)]).optimizer.optimizers) == 3


def single(optimizer):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [3], LinearHead(3), method="vangl", seed=0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_single_stage_uses_the_very_optimizer(name):
    optimizer = OPTIMIZERS[name]()
    model = single(optimizer)
    assert model.optimizer.optimizers == [optimizer]
    model.fit(X, Y, batch_size=8, verbose=0)
    assert int(optimizer.iterations.numpy()) == 2
    # As in plain Keras, a model may be compiled again with the optimizer that it had.
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, batch_size=8, verbose=0)
    assert int(optimizer.iterations.numpy()) == 4


def test_the_rate_of_the_kept_optimizer_acts():
    optimizer = keras.optimizers.SGD(0.1)
    model = single(optimizer)
    optimizer.learning_rate = 0.0
    before = [one.numpy() for one in model.trainable_weights]
    model.fit(X, Y, batch_size=8, verbose=0)
    for one, other in zip(before, model.trainable_weights, strict=True):
        np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.parametrize("scaled", [False, True])
def test_the_kept_optimizer_acts_after_its_stage_was_moved(scaled):
    """The second run starts where the first one moved both stages to and fro."""

    def made():
        inner = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1)
        return inner, keras.optimizers.LossScaleOptimizer(inner) if scaled else inner

    def run(idle_device):
        kept = [made() for _ in range(2)]
        blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
        regime = Sequential([1, 1], idle_device=idle_device)
        model = GreedyModel.from_blocks(blocks, [2, 1], LinearHead(3), regime=regime, seed=0)
        for inner, _ in kept:
            inner.exclude_from_weight_decay(
                var_list=[] if not model.built else [model.stages[0].weights[0]]
            )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile([one for _, one in kept], loss)
        with tf.device("CPU:1"):
            model.fit(X, Y, batch_size=8, verbose=0)
            assert [one for _, one in kept] == model.optimizer.optimizers
            for inner, _ in kept:
                inner.learning_rate = 0.01
            model.fit(X, Y, batch_size=8, verbose=0)
        assert [int(inner.iterations.numpy()) for inner, _ in kept] == [4, 4]
        assert [float(one.learning_rate.numpy()) for one in model.optimizer.optimizers] == [
            pytest.approx(0.01)
        ] * 2
        return [one.numpy() for one in model.weights]

    for one, other in zip(run(None), run("CPU:0"), strict=True):
        np.testing.assert_array_equal(one, other)
