"""The kinetic energy and its weight."""

import keras
import numpy as np
import pytest

from keras_trgl.regularizers import KineticEnergy, kinetic_energy

# methods 9 A.
R1 = np.array([1, -2, 0, 1, 2, 0, -1, 1], "float32").reshape(2, 1, 2, 2)
R2 = np.array([0.5, -1.5], "float32").reshape(2, 1, 1, 1)


def test_energy_is_the_sum_over_blocks_of_means():
    assert float(kinetic_energy([R1, R2])) == pytest.approx(2.75)


def test_sum_reduction_is_the_norm_per_example():
    assert float(kinetic_energy([R1, R2], "sum")) == pytest.approx(7.25)


def test_energy_of_no_block_is_zero():
    assert float(kinetic_energy([])) == 0.0


@pytest.mark.parametrize(("tau", "objective"), [(0.5, 3.45), (1.0, 2.075), (1e6, 0.700001375)])
def test_loss_is_the_energy_over_two_tau(tau, objective):
    regularizer = KineticEnergy(tau)
    regularizer([np.array(1.5), np.array(1.25)])
    assert 0.7 + float(regularizer.losses[0]) == pytest.approx(objective, rel=1e-7)


def test_assigning_tau_moves_the_weight():
    regularizer = KineticEnergy(1.0)
    regularizer.build()
    regularizer.tau = 0.25
    assert float(regularizer.weight.numpy()) == 2.0
    assert regularizer.tau == 0.25
    regularizer([np.array(1.0)])
    assert float(regularizer.losses[0]) == 2.0


def test_the_weight_is_not_trained():
    regularizer = KineticEnergy()
    regularizer.build()
    assert regularizer.trainable_variables == []
    names = [one.name for one in regularizer.non_trainable_variables]
    assert names == ["weight", "multiplier", "batches"]


def test_weight_is_exact_in_float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    regularizer = KineticEnergy(0.3)
    regularizer.build()
    assert float(regularizer.weight.numpy()) == 0.5 / 0.3


@pytest.mark.parametrize("tau", [0, -1.0, float("inf"), float("nan")])
def test_tau_not_above_zero_is_refused(tau):
    with pytest.raises(ValueError, match="`tau` must be above 0 and finite"):
        KineticEnergy(tau)
    regularizer = KineticEnergy()
    with pytest.raises(ValueError, match="`tau` must be above 0 and finite"):
        regularizer.tau = tau


def test_tau_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="`tau` must be a number above 0"):
        KineticEnergy("1")


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean', 'sum'"):
        KineticEnergy(reduction="median")
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean', 'sum'"):
        kinetic_energy([R1], "median")
