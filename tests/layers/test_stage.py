"""Stages: blocks in a row, with their regulariser in training mode alone."""

import keras
import numpy as np
import pytest

from keras_trgl.layers import ResidualBlock, Stage
from keras_trgl.regularizers import KineticEnergy

X = np.ones((2, 4), "float32")


def blocks(count=2):
    return [ResidualBlock([keras.layers.Dense(4, kernel_initializer="ones")]) for _ in range(count)]


def test_loss_is_the_energy_over_two_tau_in_training_mode():
    stage = Stage(blocks(), KineticEnergy(tau=0.25))
    stage(X, training=True)
    # r = 4 in every place, then x = 5 and r = 20: energies 16 and 400.
    assert float(stage.losses[0]) == pytest.approx(2 * (16 + 400))


def test_inference_adds_no_loss():
    stage = Stage(blocks(), KineticEnergy(tau=0.25))
    stage(X, training=False)
    assert stage.losses == []


def test_a_stage_without_residual_units_has_no_loss():
    stage = Stage([keras.layers.Dense(4)], KineticEnergy())
    stage(X, training=True)
    assert stage.losses == []


def test_units_inside_a_model_count():
    inner = keras.Sequential(blocks(3))
    assert len(Stage([inner, *blocks(1)]).residual_units) == 4


def test_a_stage_without_blocks_is_refused():
    with pytest.raises(ValueError, match="A stage needs a block"):
        Stage([])


def test_a_stage_makes_itself_again_from_its_configuration():
    stage = Stage(blocks(), name="first")
    again = Stage.from_config(stage.get_config())
    assert again.get_config() == stage.get_config()
