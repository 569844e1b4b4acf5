"""What every regime plans: one row per class."""

import keras
import pytest

from keras_trgl.regimes import Parallel, Regime

REGIMES = {"parallel": Parallel()}


@pytest.mark.parametrize("name", REGIMES)
@pytest.mark.parametrize("num_stages", [1, 4])
def test_its_plan_names_stages_that_are_there_in_order(name, num_stages):
    plan = REGIMES[name].plan(num_stages)
    assert plan
    assert list(plan) == sorted(set(plan))
    assert set(plan) <= set(range(num_stages))
    hash(plan)


@pytest.mark.parametrize("name", REGIMES)
def test_it_makes_itself_again(name):
    config = keras.saving.serialize_keras_object(REGIMES[name])
    assert isinstance(keras.saving.deserialize_keras_object(config), type(REGIMES[name]))


def test_the_abstract_regime_has_no_plan():
    with pytest.raises(NotImplementedError):
        Regime().plan(2)
