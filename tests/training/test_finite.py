"""Finite or stopped: what is not finite reaches no weight, whatever the part it comes from."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.callbacks import MultiplierUpdate
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import TRGL
from keras_trgl.regularizers import KineticEnergy

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@keras.saving.register_keras_serializable("test_finite")
class Root(keras.layers.Layer):
    """A square root, whose gradient at 0 is infinite, of numbers of which some are 0."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.relu(x))


@keras.saving.register_keras_serializable("test_finite")
class Overflow(keras.regularizers.Regularizer):
    """A penalty above the largest number."""

    def __call__(self, x):
        return keras.ops.sum(keras.ops.square(x * 1e30))


def features(n=24, scale=1.0):
    x = np.random.default_rng(0).normal(size=(n, 6)).astype("float32")
    x[n // 2 :] *= scale
    return x


def dense(**kwargs):
    return keras.layers.Dense(6, **kwargs)


def with_nan(x):
    x[-1, 0] = np.nan
    return x


SITUATIONS = {
    "nan_in_the_data": (
        lambda: [[keras.layers.BatchNormalization(), dense()]],
        lambda: with_nan(features()),
        "Stage 1: the task loss is not finite",
    ),
    "an_infinite_energy": (
        lambda: [[ResidualBlock([dense()])]],
        lambda: features(scale=1e20),
        "Stage 1: the objective is not finite.*inf.*energy of",
    ),
    "an_infinite_energy_of_a_later_stage": (
        lambda: [[keras.layers.Rescaling(1.0)], [ResidualBlock([dense()])]],
        lambda: features(scale=1e20),
        "Stage 2: the objective is not finite",
    ),
    "an_overflowing_penalty": (
        lambda: [[dense(kernel_regularizer=Overflow())]],
        features,
        "Stage 1: the objective is not finite",
    ),
    "a_penalty_of_the_head": (
        lambda: [[dense()], [dense(activity_regularizer=Overflow())]],
        features,
        "Stage 2: the objective is not finite",
    ),
    "the_gradient_of_a_root_at_zero": (
        lambda: [[dense(activation="relu"), Root()]],
        features,
        "Stage 1: a gradient is not finite. Received: NaN or infinity",
    ),
    "the_gradient_of_a_table": (
        lambda: [[keras.layers.Embedding(9, 4, embeddings_initializer="zeros"), Root()]],
        lambda: np.random.default_rng(0).integers(0, 9, (24, 5)),
        "Stage 1: a gradient is not finite",
    ),
}


@pytest.mark.filterwarnings("ignore:.*regularises residuals")
@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("name", SITUATIONS)
def test_what_is_not_finite_stops_the_step_before_any_weight_moves(name, eager):
    stages, x, said = SITUATIONS[name]
    stages, x = stages(), x()
    model = GreedyModel(stages, [LinearHead(3) for _ in stages], seed=0)
    model.build((None, *x.shape[1:]))
    # A decay of weights needs no gradient, and must not come before the check either.
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.5), LOSS, run_eagerly=eager)
    rows = slice(len(x) - 8, None)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"{said}.*Lower the learning rate"):
        model.fit(x[rows], np.arange(8) % 3, batch_size=8, verbose=0)
    for depth, stage in enumerate(model.stages, 1):
        for one in stage.get_weights():
            assert np.isfinite(one).all(), depth
    if len(stages) == 1:
        for one, was in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, was)


def test_a_step_that_is_stopped_can_be_followed_by_another():
    model = GreedyModel([[ResidualBlock([dense()])]], [LinearHead(3)], seed=0)
    model.compile(keras.optimizers.SGD(1e-3), LOSS)
    y = np.arange(24) % 3
    with pytest.raises(ValueError, match="the objective is not finite"):
        model.fit(features(scale=1e20), y, batch_size=8, verbose=0)
    history = model.fit(features(), y, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_under_a_loss_scale_a_gradient_that_overflows_halves_the_scale():
    keras.config.set_dtype_policy("mixed_float16")
    model = GreedyModel([[ResidualBlock([dense()])]], [LinearHead(3)], seed=0)
    model.build((None, 6))
    model.compile(keras.optimizers.SGD(1e-3), LOSS)
    scale = model.optimizer.optimizers[0].dynamic_scale
    scale.assign(2.0**60)
    before = model.get_weights()
    model.fit(features(8), np.arange(8) % 3, batch_size=8, verbose=0)
    assert float(scale.numpy()) == 2.0**59
    for one, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, was)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: TRGL(1e-39), "tau"),
        (lambda: TRGL([1.0, 1e-39]), "tau"),
        (lambda: TRGL(2e-39, rule="doubled").stage_tau(0, 2), "tau / 2"),
        (lambda: KineticEnergy(1e-39), "tau"),
        (lambda: setattr(KineticEnergy(), "tau", 1e-39), "tau"),
        (lambda: MultiplierUpdate(h=1.0, s=1, initial=1e-39), "initial / 2"),
    ],
    ids=["one", "list", "doubled", "regularizer", "setter", "multiplier"],
)
def test_a_tau_whose_weight_is_infinite_is_refused(make, name):
    with pytest.raises(ValueError, match=rf"`{name}` must be so large that 1/\(2τ\) is finite"):
        make()


def test_a_tau_whose_weight_is_finite_in_float64_is_taken_there():
    keras.config.set_floatx("float64")
    assert TRGL(1e-39).tau == 1e-39
