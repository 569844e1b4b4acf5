"""What every method does: one row per class."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.methods import (
    DDG,
    DGL,
    DNI,
    TRGL,
    AugLocal,
    EndToEnd,
    FeaturesReplay,
    InfoPro,
    InfoProL,
    PredSim,
    VanGL,
)

pytestmark = pytest.mark.sampled(2)

METHODS = {
    "trgl": TRGL(0.5),
    "trgl_sum": TRGL(50.0, "sum"),
    "vangl": VanGL(),
    "pred_sim": PredSim(0.9),
    "dgl": DGL(),
    "info_pro": InfoPro("softmax", reconstruction_weight=0.5),
    "info_pro_contrast": InfoPro("contrast", (2.0, 0.5), (0.5, 1.0), mean=0.5, std=0.25),
    "info_pro_l": InfoProL(0.5),
    "trgl_on_info_pro": TRGL(0.5, on=InfoPro("contrast")),
    "aug_local": AugLocal(1),
    "ddg": DDG(),
    "features_replay": FeaturesReplay(),
    "dni": DNI(8),
    "e2e": EndToEnd(),
}
FURTHER = {
    "dni": ("gradient_error",),
    "trgl_on_info_pro": ("reconstruction", "contrast"),
    "pred_sim": ("similarity",),
    "info_pro": ("reconstruction",),
    "info_pro_l": ("reconstruction",),
    "info_pro_contrast": ("reconstruction", "contrast"),
}
"""Terms that a method logs beside the task loss and the energy."""
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(16, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 16)


def make(method, **options):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [2, 1], LinearHead(3), method=method, seed=0)
    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    return model


@pytest.mark.parametrize("name", METHODS)
def test_it_trains_saves_and_loads(name, tmp_path):
    model = make(METHODS[name])
    history = model.fit(X, Y, batch_size=8, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.method) is type(METHODS[name])
    assert loaded.method.get_config() == METHODS[name].get_config()
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.parametrize("name", METHODS)
def test_eager_and_compiled_agree_and_sample_weights_count(name):
    weights = np.linspace(0.5, 2.0, 16)
    logs = [
        make(METHODS[name], run_eagerly=eager).train_on_batch(X, Y, weights, return_dict=True)
        for eager in (True, False)
    ]
    for key, value in logs[0].items():
        # Of what is late there is none in a first batch.
        assert value == pytest.approx(logs[1][key], rel=1e-4, nan_ok="staleness" in key)
    plain = make(METHODS[name]).train_on_batch(X, Y, return_dict=True)
    assert plain["loss"] != pytest.approx(logs[0]["loss"], rel=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_it_stays_finite_in_half_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    history = make(METHODS[name]).fit(X, Y, batch_size=8, epochs=2, verbose=0).history
    # A stage whose gradients all came with an overflow has no staleness.
    rest = {key: values for key, values in history.items() if "staleness" not in key}
    assert all(np.isfinite(values).all() for values in rest.values())


@pytest.mark.parametrize("name", METHODS)
def test_objective_is_what_the_method_says(name):
    logs = make(METHODS[name]).train_on_batch(X, Y, return_dict=True)
    method = METHODS[name]
    for k in (1, 2):
        if f"stage_{k}_objective" in logs:
            # Logged only where there is one.
            energy = logs.get(f"stage_{k}_energy", 0.0)
            own = energy / (2 * method.tau) if isinstance(method, TRGL) else 0.0
            share = 1.0 - getattr(method, "beta", 0.0)
            further = sum(logs.get(f"stage_{k}_{term}", 0.0) for term in FURTHER.get(name, ()))
            assert (energy > 0) == isinstance(method, TRGL)
            assert logs[f"stage_{k}_objective"] == pytest.approx(
                share * logs.get(f"stage_{k}_loss", 0.0) + own + further, rel=1e-5
            )


def test_sum_and_mean_energies_differ_by_the_number_of_features():
    mean = make(TRGL(1.0)).train_on_batch(X, Y, return_dict=True)
    total = make(TRGL(1.0, "sum")).train_on_batch(X, Y, return_dict=True)
    # Stage 2 is one block of 2x2 pixels and 8 channels.
    assert total["stage_2_energy"] == pytest.approx(32 * mean["stage_2_energy"], rel=1e-5)


def test_end_to_end_joins_the_stages():
    model = make(EndToEnd())
    assert model.num_stages == 1
    assert len(model.stages[0].blocks) == 3
    assert len(model.heads) == 1
