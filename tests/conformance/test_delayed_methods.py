"""What methods with gradients from above do: devices, files, resumed runs, savings of memory."""

import functools

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.methods import DDG, DNI, FeaturesReplay

pytestmark = pytest.mark.sampled(1)

METHODS = {"features_replay": FeaturesReplay, "ddg": DDG, "dni": functools.partial(DNI, 8)}
OPTIONS = {"plain": {}, "micro_batches": {"micro_batches": 2}, "remat": {"remat": True}}
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(20, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 20)


def make(method, rate=0.2, optimizer=None, **options):
    first, second, third = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    drops = [keras.layers.Dropout(rate, seed=place) for place in range(2)]
    blocks = [first, drops[0], second, drops[1], third]
    model = GreedyModel.from_blocks(blocks, [2, 2, 1], LinearHead(3), method=method, seed=0)
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    return model


def fit(model, **options):
    options = {"epochs": 2, **options}
    # The last batch of an epoch is a short one.
    return model.fit(X, Y, batch_size=8, verbose=0, **options).history


def assert_equal(first, second):
    for one, other in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


@pytest.mark.multi_device
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("options", OPTIONS)
def test_devices_change_nothing(options, name):
    plain = make(METHODS[name](), **OPTIONS[options])
    with trgl.distribute.StageParallelStrategy(["CPU:0", "CPU:1"]).scope():
        placed = make(METHODS[name](), **OPTIONS[options])
    for model in (plain, placed):
        fit(model)
    assert_equal(plain, placed)


@pytest.mark.parametrize("name", METHODS)
def test_a_cut_run_goes_on_bit_for_bit_with_what_was_in_flight(name, whole_and_resumed):
    def fresh():
        return make(METHODS[name](), optimizer=keras.optimizers.Adam(0.01))

    (whole, logs), (resumed, resumed_logs) = whole_and_resumed(fresh, fit, 4)
    assert resumed_logs == logs
    assert_equal(whole, resumed)


@pytest.mark.parametrize("name", METHODS)
def test_remat_changes_nothing(name):
    plain, thrifty = make(METHODS[name]()), make(METHODS[name](), remat=True)
    for model in (plain, thrifty):
        fit(model)
    for one, other in zip(plain.get_weights(), thrifty.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_a_saved_model_and_its_last_depth_go_on(name, tmp_path):
    model = make(METHODS[name]())
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = trgl.load_model(tmp_path / "model.keras")
    wanted = model.predict(X, verbose=0)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), wanted)
    np.testing.assert_allclose(model.truncate(3).predict(X, verbose=0), wanted, atol=1e-6)
    trgl.export.export_exit(model, 3, tmp_path / "served")
    assert np.isfinite(fit(loaded)["loss"]).all()
    with pytest.raises(ValueError, match="A depth can predict where its stage trains a head"):
        trgl.export.export_exit(model, 1, tmp_path / "none")


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_half_precision_begins_near_full_precision(name):
    # Of one batch, as the first scale may be too large; half types draw other masks.
    full = make(METHODS[name](), rate=0).train_on_batch(X, Y, return_dict=True)
    keras.config.set_dtype_policy("mixed_float16")
    half = make(METHODS[name](), rate=0).train_on_batch(X, Y, return_dict=True)
    for key, number in full.items():
        np.testing.assert_allclose(half[key], number, rtol=0.02, err_msg=key)
