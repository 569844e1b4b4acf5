"""PredSim on the seam: what it equals, what its convolution is part of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.methods import PredSim, VanGL

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 24)


def make(method, seed=0, compiled=True, one_hot=False, **options):
    blocks = resnet(14, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(
        blocks, [2, 2, 2], LinearHead(3), method=method, seed=seed, **options
    )
    kind = keras.losses.CategoricalCrossentropy if one_hot else None
    loss = (kind or keras.losses.SparseCategoricalCrossentropy)(from_logits=True)
    if compiled:
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    return model


def fit(model, y=Y, **options):
    return model.fit(X, y, batch_size=8, epochs=2, verbose=0, **options).history


def test_without_a_share_of_its_own_it_is_vangl_bit_for_bit():
    one, other = make(PredSim(beta=0.0)), make(VanGL())
    logs = fit(one), fit(other)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logs[0] == logs[1]


def test_with_all_the_share_the_heads_do_not_move():
    model = make(PredSim(beta=1.0))
    before = [[v.numpy() for v in head.variables] for head in model.heads]
    stages = [stage.get_weights()[0].copy() for stage in model.stages]
    fit(model)
    for head, values in zip(model.heads, before, strict=True):
        for variable, value in zip(head.variables, values, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value)
    for stage, value in zip(model.stages, stages, strict=True):
        assert not np.array_equal(stage.get_weights()[0], value)


@pytest.mark.long
def test_one_hot_labels_are_the_same_labels():
    logs = fit(make(PredSim(0.9))), fit(make(PredSim(0.9), one_hot=True), np.eye(3)[Y])
    for key, values in logs[0].items():
        np.testing.assert_allclose(values, logs[1][key], rtol=1e-5)


@pytest.mark.long
def test_the_last_stage_may_have_the_task_loss_alone():
    logs = fit(make(PredSim(0.9, plain_last=True)))
    assert "stage_2_similarity" in logs
    assert "stage_3_similarity" not in logs
    np.testing.assert_allclose(logs["stage_3_objective"], logs["stage_3_loss"], rtol=1e-6)


@pytest.mark.long
def test_stages_of_a_run_with_k_stages_are_those_of_a_run_with_fewer():
    whole = make(PredSim(0.9))
    fit(whole)
    blocks = resnet(14, (8, 8, 1), widths=(4, 8, 8))[:4]
    part = GreedyModel.from_blocks(blocks, [2, 2], LinearHead(3), method=PredSim(0.9), seed=0)
    part.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    fit(part)
    for k in range(2):
        pairs = zip(whole.stages[k].get_weights(), part.stages[k].get_weights(), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)


def test_features_without_positions_go_through_a_dense_layer():
    layers = [[keras.layers.Dense(5, "relu")], [keras.layers.Dense(4, "relu")]]
    model = GreedyModel(layers, [LinearHead(3), LinearHead(3)], method=PredSim(0.5), seed=0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = RNG.normal(size=(12, 6)).astype("float32")
    logs = model.fit(x, Y[:12], verbose=0).history
    assert np.isfinite(logs["stage_1_similarity"]).all()


@pytest.mark.long
def test_its_convolution_is_trained_saved_and_in_no_prediction(tmp_path):
    model = make(PredSim(0.9))
    nets = [part.layers["similarity"] for part in model._network.parts]
    before = [net.kernel.numpy() for net in nets]
    fit(model)
    for net, value in zip(nets, before, strict=True):
        assert not np.array_equal(net.kernel.numpy(), value)
        held = {id(v) for v in model.variables}
        assert id(net.kernel) in held
    for one in (model.truncate(2), model.truncate(3)):
        served = {id(v) for v in one.variables}
        assert not served & {id(net.kernel) for net in nets}
    model.save(tmp_path / "model.keras")
    loaded = trgl.load_model(tmp_path / "model.keras")
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    fit(model)
    fit(loaded)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta": 1.5}, ValueError, "`beta` must be 0 to 1.*beta=1.5.*VanGL"),
        ({"beta": "0.9"}, TypeError, "`beta` must be a number.*'0.9'"),
    ],
)
def test_bad_shares_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        PredSim(**arguments)


@pytest.mark.parametrize(
    "regime",
    [
        trgl.regimes.Sequential(1, cache="memory"),
        trgl.regimes.MultiLap(2, num_laps=2),
        trgl.regimes.Buffered(capacity=2),
        trgl.regimes.Buffered(order="skewed"),
    ],
    ids=["cached", "multi_lap", "buffered", "skewed"],
)
def test_it_trains_in_every_regime(regime):
    model = make(PredSim(0.9), regime=regime)
    epochs = None if regime.visits(3) else 2
    logs = model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0).history
    assert any(np.isfinite(logs["stage_2_similarity"]))


def test_splitting_by_memory_counts_its_convolution():
    from keras_trgl.splitting.stage_bytes import stage_bytes

    blocks, shape = resnet(14, (8, 8, 1), widths=(4, 8, 8)), (None, 8, 8, 1)
    plain = stage_bytes(blocks, LinearHead(3), shape)
    counted = stage_bytes(blocks, LinearHead(3), shape, PredSim(0.9), 3)
    # A convolution keeps its input, the features, which the next stage does not share.
    assert counted(0, 2) >= plain(0, 2)
    decoder = stage_bytes(blocks, LinearHead(3), shape, TwoConvolutions(), 3)
    assert decoder(0, 2) - plain(0, 2) == 8 * 8 * 4 * 4
    assert trgl.splitting.by_memory(blocks, 3, LinearHead(3), method=PredSim(0.9))


class TwoConvolutions(trgl.methods.LocalMethod):
    def stage_layers(self, stage):
        row = [keras.layers.Conv2D(4, 3, padding="same") for _ in range(2)]
        return {"row": keras.Sequential(row)}


def test_the_published_value_comes_through_fit():
    keras.config.set_floatx("float64")
    features = np.array([[1.0, 2, 3, 4], [2, 2, 0, 4], [-1, 0, 1, 0]])
    stages = [[keras.layers.Activation("linear")]]
    model = GreedyModel(stages, [LinearHead(3)], method=PredSim(0.99), seed=0)
    model.build((None, 4))
    model._network.parts[0].layers["similarity"].kernel.assign(np.eye(4))

    def constant(y_true, y_pred):
        return 0.0 * y_pred[:, 0] + 1.25

    model.compile("sgd", constant)
    history = model.fit(features, np.array([0, 1, 0]), batch_size=3, verbose=0).history
    assert history["stage_1_similarity"][0] == pytest.approx(0.99 * 0.178070370, abs=1e-8)
    assert history["stage_1_objective"][0] == pytest.approx(0.188789666, abs=1e-8)


@pytest.mark.long
def test_devices_give_its_numbers_bit_for_bit():
    plain = make(PredSim(0.9))
    fit(plain)
    with trgl.distribute.StageParallelStrategy(["CPU:0", "CPU:1"]).scope():
        placed = make(PredSim(0.9))
    fit(placed)
    for a, b in zip(plain.get_weights(), placed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    net = placed._network.parts[2].layers["similarity"]
    assert "CPU:1" in net.kernel.value.device


def test_a_new_kernel_is_a_function_of_seed_and_place():
    kernels = [
        [part.layers["similarity"].kernel.numpy() for part in make(PredSim(0.9), s)._network.parts]
        for s in (0, 0, 1)
    ]
    for one, again, other in zip(*kernels, strict=True):
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other)
    assert not np.array_equal(kernels[0][1], kernels[0][2])
    tf.debugging.assert_all_finite(kernels[0][0], "kernels")
