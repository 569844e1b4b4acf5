"""Synthetic gradients: with true ones it is end to end, by hand, and who gets a sentence."""

import keras
import numpy as np
import pytest
from linked import make

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.methods import DNI, TRGL, EndToEnd, FeaturesReplay
from keras_trgl.methods.dni import Synthesizer
from keras_trgl.regimes import Buffered, Sequential

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)).astype("float32")
Y = RNG.integers(0, 3, 12)


@keras.saving.register_keras_serializable("tests")
class TrueGradient(DNI):
    """DNI whose stages take the gradient that came from above."""

    def stage_losses(self, step):
        losses = super().stage_losses(step)
        if not step.stage.is_last:
            losses["task"] = keras.ops.sum(step.features * step.labels.gradients)
        return losses


@keras.saving.register_keras_serializable("tests")
class ReplayAtOnce(FeaturesReplay):
    """Features Replay with nothing late."""

    def staleness(self, stage):
        return 0


def plain(method, optimizer):
    """Three stages of a layer each."""
    blocks = [keras.layers.Dense(6, "tanh") for _ in range(3)]
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(3), method=method, seed=0)
    model.build((None, 6))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(model, **options):
    options = {"epochs": 2, "batch_size": 8, **options}
    return model.fit(X, Y, verbose=0, **options).history


def network_of(model):
    layers = [*(block for stage in model.stages for block in stage.blocks), model.heads[-1]]
    return [w for layer in layers for w in layer.get_weights()]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("method", [TrueGradient(8), ReplayAtOnce()], ids=["dni", "replay"])
def test_with_the_true_gradient_it_is_end_to_end(method, parts):
    found, whole = (make(one, micro_batches=parts) for one in (method, EndToEnd()))
    logs = fit(found)["loss"], fit(whole)["loss"]
    np.testing.assert_allclose(*logs, rtol=1e-6)
    for one, other in zip(network_of(found), network_of(whole), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_stages_below_the_last_stand_until_their_net_has_learnt_something():
    model, moved = plain(DNI(8), keras.optimizers.Adam(0.1)), []
    for _ in range(4):
        before = [stage.get_weights()[0] for stage in model.stages]
        logs = model.train_on_batch(X, Y, return_dict=True)
        pairs = zip(model.stages, before, strict=True)
        moved.append([bool((stage.get_weights()[0] != one).any()) for stage, one in pairs])
        assert not {"stage_3_gradient_error", "stage_1_objective", "stage_2_loss"} & set(logs)
    # A net below has nothing to learn before the stage above has a gradient to send.
    assert moved == [[False, False, True], [False, True, True], [True] * 3, [True] * 3]


def test_one_step_by_hand():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    blocks = [keras.layers.Dense(4, use_bias=False) for _ in range(2)]
    head = keras.layers.Dense(2, use_bias=False)
    method = DNI(5, weight=3.0)
    model = GreedyModel.from_blocks(blocks, [1, 1], head, method=method, seed=1)
    model.build((None, 6))
    model.compile(keras.optimizers.SGD(0.25), "mse")
    net = model._network.parts[0].layers["synthesizer"]
    net._row[-1].kernel.assign(RNG.normal(size=(5, 4)))
    x, y = X.astype("float64"), RNG.normal(size=(12, 2))
    w1, w2, w3 = (layer.kernel.numpy() for layer in (*blocks_of(model), model.heads[-1]))
    hidden = x @ w1
    made = np.asarray(net(hidden, y, training=True))
    kernel = net._row[-1].kernel.numpy()
    delta = 2 * (hidden @ w2 @ w3 - y) / y.size
    true = delta @ w3.T @ w2.T
    logs = model.train_on_batch(x, y, return_dict=True)
    found = [layer.kernel.numpy() for layer in (*blocks_of(model), model.heads[-1])]
    np.testing.assert_allclose(found[0], w1 - 0.25 * x.T @ made / 12, atol=1e-10)
    np.testing.assert_allclose(found[1], w2 - 0.25 * hidden.T @ (delta @ w3.T), atol=1e-10)
    np.testing.assert_allclose(found[2], w3 - 0.25 * (hidden @ w2).T @ delta, atol=1e-10)
    error = 3.0 * np.mean((made - 12 * true) ** 2)
    assert logs["stage_1_gradient_error"] == pytest.approx(error, rel=1e-9)
    # The net's last layer by its own error, and by nothing else.
    slope = 3.0 * 2 * (made - 12 * true) / made.size
    bias = net._row[-1].bias.numpy()
    np.testing.assert_allclose(bias, -0.25 * slope.sum(axis=0), atol=1e-10)
    assert (net._row[-1].kernel.numpy() != kernel).any()


def blocks_of(model):
    return [block for stage in model.stages for block in stage.blocks]


def test_the_nets_error_falls_where_what_is_above_stands():
    model = plain(DNI(16), [*(keras.optimizers.Adam(0.01) for _ in range(2)), "sgd"])
    model.optimizer.optimizers[-1].learning_rate = 0.0
    logs = fit(model, epochs=20, batch_size=12)
    errors = logs["stage_2_gradient_error"]
    assert errors[-1] < 0.5 * errors[0]


KINDS = {"numbers": (3, 6), "tokens": (3, 5, 6), "images": (3, 4, 4, 6)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_gives_zeros_of_the_features_shape_and_is_told_the_label(kind):
    features = RNG.normal(size=KINDS[kind]).astype("float32")
    net = Synthesizer(units=3, width=8)
    assert not np.asarray(net(features, np.eye(3))).any()
    net._row[-1].kernel.assign(RNG.normal(size=net._row[-1].kernel.shape))
    found = [np.asarray(net(features, np.eye(3)[list(told)])) for told in ((0, 1, 2), (2, 1, 0))]
    assert found[0].shape == features.shape
    same = (found[0] == found[1]).all(axis=tuple(range(1, features.ndim)))
    # In inference mode, so that no example sees another's label.
    assert list(same) == [False, True, False]


def test_a_net_of_images_with_their_channels_first():
    features = RNG.normal(size=(2, 6, 4, 4)).astype("float32")
    net = Synthesizer(3, 8, data_format="channels_first")
    net.build(features.shape)
    assert net._context_shape == [-1, 8, 1, 1]
    assert net._row[-1].kernel.shape == (5, 5, 8, 6)


@pytest.mark.long
def test_steps_in_one_call_change_nothing():
    one, several = make(DNI(8)), make(DNI(8), steps_per_execution=3)
    for model in (one, several):
        fit(model)
    for first, second in zip(one.variables, several.variables, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=first.path)


def test_a_batch_that_a_loss_scale_has_overflown_trains_no_stage_below():
    keras.config.set_dtype_policy("mixed_float16")
    scales = [2.0**4, 2.0**4, 2.0**30]
    inner = [keras.optimizers.SGD(0.25) for _ in scales]
    optimizers = [
        keras.optimizers.LossScaleOptimizer(one, initial_scale=scale)
        for one, scale in zip(inner, scales, strict=True)
    ]
    model = make(DNI(8), optimizer=optimizers)
    before = [v.numpy() for stage in model.stages for v in stage.trainable_variables]
    model.train_on_batch(X, Y)
    after = [v.numpy() for stage in model.stages for v in stage.trainable_variables]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [float(one.dynamic_scale) for one in model.optimizer.optimizers][:2] == scales[:2]


def without_units():
    blocks = [keras.layers.Dense(4), keras.layers.Dense(4)]
    model = GreedyModel.from_blocks(blocks, [1, 1], keras.layers.Flatten(), method=DNI())
    model.build((None, 6))


def of_videos():
    blocks = [keras.layers.Conv3D(2, 1), keras.layers.GlobalAveragePooling3D()]
    model = GreedyModel.from_blocks(blocks, [1, 1], LinearHead(3), method=DNI())
    model.build((None, 2, 2, 2, 1))


REFUSED = {
    "width": (lambda: DNI(width=0), r"`width` must be at least 1"),
    "weight": (lambda: DNI(weight=0.0), r"`weight` must be .*Received: weight=0\.0"),
    "units": (without_units, r"DNI tells its nets the class.*without `units`.*LinearHead"),
    "videos": (of_videos, r"for numbers, tokens or images\. Received: features \(None, 2, 2, 2"),
    "sequential": (
        lambda: GreedyModel([resnet(8, (8, 8, 1))[0]], [LinearHead(1)], DNI(), Sequential(1)),
        r"must step on every batch.*Use `Parallel",
    ),
    "buffered": (
        lambda: GreedyModel([resnet(8, (8, 8, 1))[0]], [LinearHead(1)], DNI(), Buffered()),
        r"must step on every batch.*regime=Buffered",
    ),
    "xla": (lambda: make(DNI(), jit_compile=True), r"jit_compile=True with method=DNI"),
    "energy": (lambda: TRGL(1.0, on=DNI()), r"`on` must be a local method"),
    "exit": (lambda: make(DNI()).truncate(1), r"A depth can predict .* depth 1 of"),
    "multiplier": (
        lambda: fit(make(DNI()), callbacks=[trgl.callbacks.MultiplierUpdate(h=1.0, s=1)]),
        r"`MultiplierUpdate` moves the weight of the energy",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence(case):
    call, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()
