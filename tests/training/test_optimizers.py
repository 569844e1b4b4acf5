"""One optimizer per stage behind one."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel, StageOptimizers
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead

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
    with pytest.raises(ValueError, match="`optimizer` must be new"):
        make(used)


def test_the_same_optimizer_twice_is_refused():
    shared = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="Every stage needs an optimizer of its own"):
        make([shared] * 3)


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
