"""What every local method does, beyond test_methods.py: invariants, regimes, devices, files.

One row per class; `TERMS` of test_methods.py says what each logs.
"""

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.methods import DGL, TRGL, AugLocal, InfoPro, InfoProL, LocalMethod, PredSim, VanGL
from keras_trgl.regimes import Buffered, Sequential

pytestmark = pytest.mark.sampled(1)

METHODS = {
    "info_pro_contrast": lambda: InfoPro("contrast"),
    "info_pro": lambda: InfoPro("softmax", 2.0),
    "info_pro_l": InfoProL,
    "trgl_on_info_pro": lambda: TRGL(0.5, on=InfoPro("contrast")),
    "aug_local": lambda: AugLocal(1),
    "vangl": VanGL,
    "trgl": lambda: TRGL(0.5),
    "pred_sim": lambda: PredSim(0.9),
    "dgl": DGL,
    "dgl_cnn": lambda: DGL("cnn"),
}
NOT_A_PREFIX = {"aug_local"}
"""Methods whose early stages depend on the later ones."""
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(16, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 16)
K = 3


def make(method, num_stages=K, optimizer=None, sizes=None, **options):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))[:num_stages]
    sizes = sizes or [1] * num_stages
    model = GreedyModel.from_blocks(blocks, sizes, LinearHead(3), method=method, seed=0, **options)
    model.compile(
        optimizer or keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def fit(model, **options):
    options = {"epochs": 2, **options}
    return model.fit(X, Y, batch_size=8, verbose=0, **options).history


def values(model):
    return [weight.numpy() for weight in model.weights]


def assert_equal(first, second):
    for one, other in zip(values(first), values(second), strict=True):
        np.testing.assert_array_equal(one, other)


def trained(model, k):
    return [v.numpy() for v in model._network.parts[k].trainable_variables]


class Scaled(LocalMethod):
    """Another method, with the objective of one stage times a factor."""

    def __init__(self, on, depth, factor):
        self.on, self.depth, self.factor = on, depth, factor
        self.needs_data = on.needs_data
        for name in ("stage_head", "stage_layers", "stage_predicts", "stage_regularizer"):
            setattr(self, name, getattr(on, name))

    def stage_losses(self, step):
        factor = self.factor if step.stage.depth == self.depth else 1.0
        return {name: factor * loss for name, loss in self.on.stage_losses(step).items()}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("depth", range(1, K + 1))
def test_a_factor_on_one_objective_moves_that_stage_s_gradients_alone(name, depth):
    plain, scaled = (
        make(Scaled(METHODS[name](), depth, 1.0)),
        make(Scaled(METHODS[name](), depth, 4.0)),
    )
    starts = [trained(plain, k) for k in range(K)]
    for model in (plain, scaled):
        model.train_on_batch(X, Y)
    for k in range(K):
        rows = zip(starts[k], trained(plain, k), trained(scaled, k), strict=True)
        for start, one, other in rows:
            if k + 1 == depth:
                np.testing.assert_allclose(other - start, 4 * (one - start), atol=2e-5)
            else:
                np.testing.assert_array_equal(one, other)
    assert any(
        (a != b).any() for a, b in zip(starts[depth - 1], trained(plain, depth - 1), strict=True)
    )


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NOT_A_PREFIX])
def test_early_stages_are_those_of_a_run_with_fewer(name):
    whole, part = make(METHODS[name]()), make(METHODS[name](), num_stages=2)
    for model in (whole, part):
        fit(model)
    # The last stage of the shorter run may have a head, or an objective, of its own.
    for one, other in zip(trained(whole, 0), trained(part, 0), strict=True):
        np.testing.assert_array_equal(one, other)


SAME = {
    "buffered": lambda: {"regime": Buffered(capacity=1)},
    "skewed": lambda: {"regime": Buffered(order="skewed")},
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("regime", SAME)
def test_a_store_of_one_batch_is_the_parallel_regime(name, regime):
    plain, stored = make(METHODS[name]()), make(METHODS[name](), **SAME[regime]())
    logs = fit(plain), fit(stored)
    assert_equal(plain, stored)
    assert set(logs[0]) == {key for key in logs[1] if "staleness" not in key}


@pytest.mark.parametrize("name", METHODS)
def test_in_turn_a_cache_changes_nothing(name):
    models = [
        make(METHODS[name](), regime=Sequential(1, cache=cache)) for cache in (None, "memory")
    ]
    logs = [fit(model, epochs=None) for model in models]
    assert_equal(*models)
    for k in range(1, K + 1):
        assert np.isfinite(logs[0][f"stage_{k}_objective"][k - 1])


@pytest.mark.multi_device
@pytest.mark.parametrize("name", METHODS)
def test_devices_change_nothing(name):
    plain = make(METHODS[name]())
    with trgl.distribute.StageParallelStrategy(["CPU:0", "CPU:1"]).scope():
        placed = make(METHODS[name]())
    for model in (plain, placed):
        fit(model)
    assert_equal(plain, placed)


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_a_cut_run_goes_on_bit_for_bit(name, whole_and_resumed):
    def fresh():
        return make(METHODS[name](), optimizer=keras.optimizers.Adam(0.01))

    (whole, _), (resumed, _) = whole_and_resumed(fresh, fit, 3)
    assert_equal(whole, resumed)


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_model_trains_on_as_it_would_have(name, tmp_path):
    model = make(METHODS[name]())
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = trgl.load_model(tmp_path / "model.keras")
    assert_equal(model, loaded)
    for one in (model, loaded):
        fit(one)
    assert_equal(model, loaded)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_cut_off_or_exported_has_no_net_of_the_method(name, tmp_path):
    model = make(METHODS[name]())
    fit(model)
    inner = {
        id(v) for part in model._network.parts for n in part.layers.values() for v in n.weights
    }
    cut = model.truncate(K)
    assert not inner & {id(weight) for weight in cut.weights}
    wanted = model.predict(X, verbose=0)
    np.testing.assert_allclose(cut.predict(X, verbose=0), wanted, atol=1e-6)
    cut.save(tmp_path / "cut.keras")
    loaded = trgl.load_model(tmp_path / "cut.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), wanted, atol=1e-6)
    trgl.export.export_exit(model, K, tmp_path / "served")


@pytest.mark.parametrize("name", METHODS)
def test_remat_changes_nothing_and_micro_batches_log_the_same_names(name):
    plain, thrifty, parts = (make(METHODS[name](), sizes=[2, 1]) for _ in range(3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    thrifty.compile(keras.optimizers.SGD(0.05), loss, remat=True)
    parts.compile(keras.optimizers.SGD(0.05), loss, micro_batches=2)
    logs = [m.train_on_batch(X, Y, return_dict=True) for m in (plain, thrifty, parts)]
    for one, other in zip(values(plain), values(thrifty), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert set(logs[0]) == set(logs[1]) == set(logs[2])
    assert np.isfinite(list(logs[2].values())).all()


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_half_precision_begins_near_full_precision(name):
    full = make(METHODS[name]()).train_on_batch(X, Y, return_dict=True)
    keras.config.set_dtype_policy("mixed_float16")
    half = make(METHODS[name]()).train_on_batch(X, Y, return_dict=True)
    assert set(full) == set(half)
    for key, number in full.items():
        np.testing.assert_allclose(half[key], number, rtol=0.02, atol=0.005, err_msg=key)
