"""The energy's weight, stage by stage."""

import functools

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import TRGL
from keras_trgl.types import StagePlace

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6)).astype("float32")
Y = RNG.integers(0, 3, 8)


@keras.saving.register_keras_serializable("test_trgl")
def growing(tau, stage, num_stages):
    return tau * stage / num_stages


@keras.saving.register_keras_serializable("test_trgl")
def falling_to_zero(tau, stage, num_stages):
    return tau * (num_stages - stage)


@keras.saving.register_keras_serializable("test_trgl")
def no_number(tau, stage, num_stages):
    return str(tau)


def unregistered(tau, stage, num_stages):
    return tau


def make(method, num_stages=3):
    blocks = [
        ResidualBlock([keras.layers.Dense(6, "tanh")], input_shape=(6,) if k == 0 else None)
        for k in range(num_stages)
    ]
    model = GreedyModel.from_blocks(blocks, [1] * num_stages, LinearHead(3), method=method, seed=0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def taus(method, num_stages):
    places = [StagePlace(k + 1, num_stages, (), (), (), None, ()) for k in range(num_stages)]
    return [method.stage_regularizer(place).tau for place in places]


@pytest.mark.parametrize(
    ("num_stages", "wanted"),
    [
        (1, [2.0]),
        (2, [1.0, 2.0]),
        (3, [1.0, 2.0, 2.0]),
        (4, [1.0, 1.0, 2.0, 2.0]),
        (5, [1.0, 1.0, 2.0, 2.0, 2.0]),
    ],
)
def test_doubled_is_tau_in_the_second_half_and_half_of_it_in_the_first(num_stages, wanted):
    assert taus(TRGL(2.0, rule="doubled"), num_stages) == wanted


def test_constant_is_tau_everywhere_and_the_default():
    assert TRGL().rule == "constant"
    assert taus(TRGL(0.3), 3) == taus(TRGL(0.3, rule="constant"), 3) == [0.3] * 3


def test_a_function_is_asked_for_stages_counted_from_1():
    assert taus(TRGL(2.0, rule=growing), 4) == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("rule", ["constant", "doubled", growing])
def test_the_rule_weighs_the_energy_of_every_stage(rule):
    method = TRGL(0.5, rule=rule)
    logs = make(method).train_on_batch(X, Y, return_dict=True)
    for k in (1, 2, 3):
        own = logs[f"stage_{k}_energy"] / (2 * method.stage_tau(k - 1, 3))
        assert own > 0
        assert logs[f"stage_{k}_objective"] == pytest.approx(logs[f"stage_{k}_loss"] + own)


@pytest.mark.parametrize("rule", ["constant", "doubled", growing])
def test_the_rule_is_saved_by_its_name(rule, tmp_path):
    model = make(TRGL(0.5, rule=rule))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").method
    assert loaded.rule is rule or loaded.rule == rule
    assert loaded.get_config() == model.method.get_config()
    assert taus(loaded, 3) == taus(model.method, 3)


def test_a_config_from_before_there_were_rules_is_constant():
    assert TRGL.from_config({"tau": 0.5, "reduction": "mean"}).rule == "constant"


@pytest.mark.parametrize(
    "rule",
    [unregistered, lambda tau, stage, num_stages: tau, functools.partial(growing, 1.0)],
    ids=["function", "lambda", "partial"],
)
def test_a_function_that_is_not_registered_is_refused(rule):
    with pytest.raises(ValueError, match=r"must be registered.*register_keras_serializable"):
        TRGL(rule=rule)


def test_a_registered_lambda_is_refused():
    rule = keras.saving.register_keras_serializable("test_trgl")(lambda tau, stage, count: tau)
    with pytest.raises(ValueError, match="must be registered"):
        TRGL(rule=rule)


@pytest.mark.parametrize("rule", ["doubled", growing])
def test_a_rule_beside_a_list_is_refused(rule):
    with pytest.raises(ValueError, match=r"from one number. Received: tau=\[0.5, 1.0\]"):
        TRGL([0.5, 1.0], rule=rule)


@pytest.mark.parametrize("rule", ["varying", None, 2.0])
def test_an_unknown_rule_is_refused(rule):
    with pytest.raises(ValueError, match="`rule` must be one of 'constant', 'doubled'"):
        TRGL(rule=rule)


def test_a_list_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"one value per stage, 3. Received: tau=\[0.5, 1.0\]"):
        make(TRGL([0.5, 1.0]))


def test_a_rule_that_gives_no_number_above_zero_is_refused():
    with pytest.raises(ValueError, match=r"`rule\(tau, 3, 3\)` must be above 0"):
        make(TRGL(rule=falling_to_zero))
    with pytest.raises(TypeError, match=r"`rule\(tau, 1, 3\)` must be a number above 0"):
        make(TRGL(rule=no_number))
