"""TRGL's energy added to another method: the sum of the two, and nothing else."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.callbacks import MultiplierUpdate
from keras_trgl.heads import LinearHead
from keras_trgl.methods import DGL, TRGL, EndToEnd, InfoPro, LocalMethod, PredSim, VanGL
from keras_trgl.regularizers import KineticEnergy

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(16, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 16)


def make(method):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [2, 1], LinearHead(3), method=method, seed=0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(model, **options):
    return model.fit(X, Y, batch_size=8, epochs=2, verbose=0, **options).history


def test_on_vangl_it_is_trgl_bit_for_bit():
    one, other = make(TRGL(0.5, on=VanGL())), make(TRGL(0.5))
    logs = fit(one), fit(other)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logs[0] == logs[1]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("on", [PredSim(0.5), DGL(), InfoPro("contrast")], ids=repr)
def test_the_energy_is_added_to_what_the_other_minimises(on):
    plain, more = (make(m).train_on_batch(X, Y, return_dict=True) for m in (on, TRGL(0.25, on=on)))
    for k in (1, 2):
        energy = more[f"stage_{k}_energy"]
        assert energy > 0
        assert more[f"stage_{k}_objective"] == pytest.approx(
            plain[f"stage_{k}_objective"] + energy / 0.5, rel=1e-5
        )
    added = {key for key in more if key.endswith("energy")}
    assert {key: more[key] for key in plain if "objective" not in key} == pytest.approx(
        {key: plain[key] for key in plain if "objective" not in key}, rel=1e-5
    )
    assert set(more) - set(plain) == added


def test_a_term_called_energy_of_the_other_is_added_to():
    class Half(LocalMethod):
        needs_energy = "mean"

        def stage_losses(self, step):
            return {"task": step.task_loss, "energy": 0.5 * step.energy}

    logs = make(TRGL(1.0, on=Half())).train_on_batch(X, Y, return_dict=True)
    for k in (1, 2):
        total = logs[f"stage_{k}_loss"] + logs[f"stage_{k}_energy"]
        assert logs[f"stage_{k}_objective"] == pytest.approx(total, rel=1e-5)


def test_multipliers_move_the_energy_s_weight():
    history = fit(make(TRGL(0.5, on=DGL())), callbacks=[MultiplierUpdate(h=1.0, s=1)])
    assert history["stage_1_multiplier"][1] > history["stage_1_multiplier"][0] > 1.0


def test_what_predicts_nothing_has_no_loss_to_move_multipliers_by():
    with pytest.raises(ValueError, match=r"so every stage must have one.*on=.*head at depth 1\."):
        fit(make(TRGL(0.5, on=InfoPro("contrast"))), callbacks=[MultiplierUpdate(h=1.0, s=1)])


def test_it_makes_itself_again_with_the_other():
    method = TRGL(0.5, on=InfoPro("contrast", (2.0, 1.0)))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method))
    assert again.get_config() == method.get_config()
    assert type(again.on) is InfoPro
    assert repr(TRGL(0.5, on=DGL())) == "TRGL(tau=0.5, on=DGL())"


class Own(LocalMethod):
    def stage_regularizer(self, stage):
        return KineticEnergy(1.0)


@pytest.mark.parametrize(
    ("on", "error", "message"),
    [
        (EndToEnd(), TypeError, r"`on` must be a local method.*on=EndToEnd\(\)"),
        ("info_pro", TypeError, r"`on` must be a local method.*`on=InfoPro\(\)`"),
        (InfoPro, TypeError, "`on` must be a local method.*Give an object"),
        (TRGL(1.0), ValueError, r"`on` must leave the regulariser to `TRGL`.*TRGL\(tau=1\.0\)"),
        (Own(), ValueError, r"`on` must leave the regulariser to `TRGL`.*Received: on=Own"),
    ],
)
def test_what_has_a_regulariser_or_no_stages_is_refused(on, error, message):
    with pytest.raises(error, match=message):
        TRGL(0.5, on=on)
