"""What every regime does: one row per class and order."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.regimes import Buffered, MultiLap, Parallel, Regime, Sequential

pytestmark = pytest.mark.sampled(3)

REGIMES = {
    "parallel": Parallel(),
    "sequential": Sequential(3),
    "sequential_train": Sequential(2, frozen="train"),
    "multi_lap": MultiLap(4, num_laps=2),
    "buffered_round_robin": Buffered(capacity=2),
    "buffered_random": Buffered(capacity=2, order="random"),
    "buffered_skewed": Buffered(order="skewed"),
}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.integers(0, 3, 16)
K = 2


def make(name, rate=0.05, **options):
    blocks = [
        ResidualBlock([keras.layers.Dense(6, "tanh")], input_shape=(6,) if k == 0 else None)
        for k in range(K)
    ]
    model = GreedyModel.from_blocks(blocks, [1] * K, LinearHead(3), regime=REGIMES[name], seed=0)
    model.compile(
        keras.optimizers.SGD(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    return model


def epochs(name):
    """Give `epochs` for `fit`: the regime's own, or three."""
    return None if REGIMES[name].visits(K) else 3


def fit(model, name, **options):
    return model.fit(X, Y, batch_size=4, epochs=epochs(name), verbose=0, **options).history


@pytest.mark.parametrize("name", REGIMES)
@pytest.mark.parametrize("num_stages", [2, 4])
def test_its_plan_names_stages_that_are_there_in_order(name, num_stages):
    plan = REGIMES[name].plan(num_stages)
    assert plan
    assert list(plan) == sorted(set(plan))
    assert set(plan) <= set(range(num_stages))
    hash(plan)


@pytest.mark.parametrize("name", REGIMES)
def test_its_plans_are_those_of_its_visits(name):
    regime = REGIMES[name]
    planned = [visit.plan for visit in regime.visits(K) for _ in range(visit.epochs)]
    assert planned == [regime.plan(K, epoch) for epoch in range(len(planned))]
    assert not planned or {k for plan in planned for k in plan} == set(range(K))


@pytest.mark.parametrize("name", REGIMES)
def test_it_makes_itself_again(name):
    config = keras.saving.serialize_keras_object(REGIMES[name])
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, type(REGIMES[name]))
    assert again.get_config() == REGIMES[name].get_config()


@pytest.mark.parametrize("name", REGIMES)
def test_it_trains_every_stage_saves_and_loads(name, tmp_path):
    model = make(name)
    before = model.evaluate(X, Y, return_dict=True, verbose=0)
    fit(model, name)
    after = model.evaluate(X, Y, return_dict=True, verbose=0)
    for k in range(1, K + 1):
        assert after[f"stage_{k}_loss"] < before[f"stage_{k}_loss"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.regime) is type(REGIMES[name])
    assert loaded.regime.get_config() == REGIMES[name].get_config()
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.parametrize("name", REGIMES)
def test_it_stays_finite_in_half_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    history = fit(make(name), name)
    assert np.isfinite(history["loss"]).all()
    for k in range(1, K + 1):
        # A stage that did not train in an epoch has no number for it.
        values = np.array(history[f"stage_{k}_loss"])
        trained = [k == stage for stage in history.get("stage", [k] * len(values))]
        np.testing.assert_array_equal(np.isfinite(values), trained)


@pytest.mark.parametrize("name", REGIMES)
def test_eager_equals_compiled(name):
    weights = np.linspace(0.5, 2.0, 16).astype("float32")
    graph, eager = make(name), make(name, run_eagerly=True)
    logs = [fit(model, name, sample_weight=weights) for model in (graph, eager)]
    for one, other in zip(graph.weights, eager.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)
    assert set(logs[0]) == set(logs[1])
    for key, values in logs[0].items():
        np.testing.assert_allclose(values, logs[1][key], rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", REGIMES)
def test_a_sample_weight_of_zero_leaves_the_task_out(name):
    model = make(name)
    before = [head.weights[0].numpy() for head in model.heads]
    fit(model, name, sample_weight=np.zeros(16, "float32"))
    for head, kernel in zip(model.heads, before, strict=True):
        np.testing.assert_array_equal(head.weights[0].numpy(), kernel)


def test_the_abstract_regime_has_no_plan():
    with pytest.raises(NotImplementedError, match="A regime has a `plan` for every epoch"):
        Regime().plan(2)
