"""InfoPro: values in float64 through `fit`, what it equals, what it refuses."""

import math

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import InfoProHead, LinearHead
from keras_trgl.methods import InfoPro, VanGL
from keras_trgl.methods.decoder import Decoder, aligned_matrix

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(16, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 16)


def make(method, head=None, metrics=None, compiled=True, **options):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    head = head or LinearHead(3)
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], head, method=method, seed=0, **options)
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=metrics)
    return model


def fit(model, x=X, y=Y, **options):
    options = {"batch_size": 8, "epochs": 2, **options}
    return model.fit(x, y, verbose=0, **options).history


def test_weights_run_linearly_over_depth():
    method = InfoPro("contrast", reconstruction_weight=(20, 5), label_weight=(0.2, 2))
    weights = np.array([method.stage_weights(k, 4) for k in (1, 2, 3)])
    np.testing.assert_allclose(weights, [[20, 0.2], [12.5, 1.1], [5, 2]])
    assert method.stage_weights(1, 2) == (20.0, 0.2)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["1c2f", "2c2f"])
def test_without_reconstruction_it_is_vangl_with_the_same_heads(name):
    counts = {"convolutions": int(name[0]), "dense": int(name[2])}
    heads = [InfoProHead(3, **counts), InfoProHead(3, **counts), LinearHead(3)]
    one, other = make(InfoPro("softmax", 0.0, head=name)), make(VanGL(), heads)
    logs = fit(one), fit(other)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("channels", "count"), [(16, 2091), (32, 3819), (64, 7275)], ids=["16", "32", "64"]
)
def test_the_decoder_has_the_published_parameters(channels, count):
    decoder = Decoder((32, 32, 3), 12)
    decoder.build((None, 8, 8, channels))
    assert sum(math.prod(v.shape) for v in decoder.trainable_variables) == count
    assert decoder.compute_output_shape((None, 8, 8, channels)) == (None, 32, 32, 3)


@pytest.mark.parametrize(
    ("size", "wanted", "row"), [(2, 4, [0, 1 / 3, 2 / 3, 1]), (3, 1, [1, 0]), (1, 3, [1, 1, 1])]
)
def test_corners_stay_where_they_are(size, wanted, row):
    matrix = aligned_matrix(size, wanted)
    np.testing.assert_allclose(matrix.sum(axis=1), np.ones(wanted))
    found = matrix[:, 1] if (size, wanted) == (2, 4) else matrix[:, 0]
    np.testing.assert_allclose(found, row[:wanted], atol=1e-15)


@pytest.mark.parametrize("form", ["channels_last", "channels_first"])
def test_a_decoder_resizes_rows_and_columns(form):
    first = form == "channels_first"
    decoder = Decoder((2, 5, 3) if first else (5, 3, 2), 4, form)
    decoder.build((None, 3, 4, 2) if first else (None, 4, 2, 3))
    seen = []
    decoder._row = [lambda x: seen.append(np.asarray(x)) or keras.ops.zeros((2, 30))]
    x = RNG.normal(size=(2, 4, 2, 3)).astype("float32")
    decoder.call(np.moveaxis(x, -1, 1) if first else x)
    wanted = np.einsum("Hh,Ww,bhwc->bHWc", aligned_matrix(4, 5), aligned_matrix(2, 3), x)
    found = np.moveaxis(seen[0], 1, -1) if first else seen[0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert decoder.channel_axis == (1 if first else -1)


def cross_entropy(image, logits):
    return np.mean(np.maximum(logits, 0) - logits * image + np.log1p(np.exp(-np.abs(logits))))


def test_objectives_are_the_formula_in_float64():
    keras.config.set_floatx("float64")
    mean, std = 0.4, 0.25
    method = InfoPro("softmax", (2.0, 0.5), (0.3, 1.5), mean=mean, std=[std])
    x = ((X - mean) / std).astype("float64")
    model = make(method)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    features, wanted = x, {}
    for k, (part, weights) in enumerate(
        zip(model._network.parts, [(2.0, 0.3), (0.5, 1.5)], strict=False), start=1
    ):
        features = part.stage(features, training=True)
        logits = np.asarray(part.layers["decoder"](features, training=True))
        p = np.asarray(keras.ops.log_softmax(part.head(features, training=True)))
        task = -p[np.arange(16), Y].mean()
        rebuilding = cross_entropy(X.astype("float64"), logits)
        wanted[k] = (weights[0] * rebuilding, weights[0] * rebuilding + weights[1] * task)
    fresh = make(method)
    fresh.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = fit(fresh, x, batch_size=16, epochs=1, shuffle=False)
    for k, (rebuilding, objective) in wanted.items():
        assert history[f"stage_{k}_reconstruction"][0] == pytest.approx(rebuilding, abs=1e-6)
        assert history[f"stage_{k}_objective"][0] == pytest.approx(objective, abs=1e-6)
    assert history["stage_3_objective"] == history["stage_3_loss"]


@pytest.mark.parametrize(
    ("labels", "value"), [([0, 0, 1, 1], 1.456593243), ([0, 0, 1, 2], 0.728296621)]
)
def test_the_published_contrast_comes_through_fit(labels, value):
    keras.config.set_floatx("float64")
    z = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-0.8, 0.6]])
    linear = keras.layers.Activation("linear")
    method = InfoPro("contrast", reconstruction_weight=0, label_weight=2.0, head=linear)
    stages = [[keras.layers.Activation("linear")], [keras.layers.Dense(3)]]
    model = GreedyModel(stages, [LinearHead(3), LinearHead(3)], method=method, seed=0)
    model.build((None, 2))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = fit(model, z, np.array(labels), batch_size=4, epochs=1, shuffle=False)
    assert history["stage_1_contrast"][0] == pytest.approx(2 * value, abs=1e-6)
    assert history["stage_1_objective"][0] == pytest.approx(2 * value, abs=1e-6)


def test_a_weight_of_zero_makes_no_net():
    method = InfoPro("contrast", (1.0, 0.0), (0.0, 1.0))
    names = [sorted(part.layers) for part in make(method)._network.parts]
    assert names == [["decoder"], ["contrast"], []]
    assert not InfoPro("contrast", 0.0).needs_data
    assert method.needs_data


def test_the_decoder_learns_by_its_own_term_alone():
    model = make(InfoPro("softmax", (1.0, 1.0), (1.0, 0.0)))
    before = [[v.numpy() for v in part.trainable_variables] for part in model._network.parts]
    heads = [len(part.head.trainable_variables) for part in model._network.parts]
    head = [v.numpy() for v in model.heads[1].trainable_variables]
    fit(model)
    # At stage 2 the labels weigh nothing: its head stays, stage and decoder move.
    for variable, value in zip(model.heads[1].trainable_variables, head, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert heads[1] == len(head)
    decoder = model._network.parts[1].layers["decoder"].trainable_variables
    assert not np.array_equal(decoder[0].numpy(), before[1][-len(decoder)])


def test_images_of_any_type_are_mapped_back():
    def run(x, **options):
        blocks = [[keras.layers.Rescaling(options.pop("scale"))], [keras.layers.Dense(4)]]
        model = GreedyModel(
            [[*blocks[0], keras.layers.Conv2D(4, 3, padding="same")], blocks[1]],
            [LinearHead(3), LinearHead(3)],
            method=InfoPro("softmax", **options),
            seed=0,
        )
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return fit(model, x, epochs=1)["stage_1_reconstruction"]

    whole = RNG.integers(0, 256, (16, 8, 8, 3)).astype("uint8")
    scaled = (whole / 255.0).astype("float32")
    np.testing.assert_allclose(
        run(whole, scale=1 / 255, std=[1 / 255] * 3), run(scaled, scale=1.0), rtol=1e-5
    )


@pytest.mark.long
def test_one_hot_labels_are_the_same_labels():
    logs = []
    for one_hot in (False, True):
        model = make(InfoPro("contrast"))
        if one_hot:
            model.compile(
                keras.optimizers.SGD(0.05, momentum=0.9),
                keras.losses.CategoricalCrossentropy(from_logits=True),
            )
        logs.append(fit(model, X, np.eye(3)[Y] if one_hot else Y))
    for key, values in logs[0].items():
        np.testing.assert_allclose(values, logs[1][key], rtol=1e-5)


def test_contrast_gives_metrics_to_the_last_head_and_refuses_other_depths():
    with pytest.warns(
        UserWarning, match=r"`metrics` measure predictions.*none at depth 1, 2: they"
    ):
        model = make(InfoPro("contrast"), metrics=["accuracy"])
    history = fit(model, validation_data=(X, Y))
    assert {"stage_3_accuracy", "val_accuracy"} <= set(history)
    assert not {"stage_1_accuracy", "stage_1_loss", "val_stage_2_loss"} & set(history)
    with pytest.raises(ValueError, match=r"InfoPro\(variant='contrast'\), which trains none there"):
        model.truncate(1)


def test_decoders_follow_the_format_of_the_stage():
    conv = keras.layers.Conv2D(4, 3, padding="same", data_format="channels_first")
    model = GreedyModel(
        [[conv], [keras.layers.Flatten(), keras.layers.Dense(4)]],
        [LinearHead(3), LinearHead(3)],
        method=InfoPro("softmax", mean=[0.1, 0.2, 0.3]),
        seed=0,
    )
    model.build((None, 3, 8, 8))
    part = model._network.parts[0]
    assert part.layers["decoder"].data_format == part.head.data_format == "channels_first"
    assert part.layers["decoder"].compute_output_shape((None, 4, 8, 8)) == (None, 3, 8, 8)


def flat(method):
    layers = [[keras.layers.Dense(5, "relu")], [keras.layers.Dense(4, "relu")]]
    GreedyModel(layers, [LinearHead(3), LinearHead(3)], method=method, seed=0).build((None, 6))


def open_sides(method):
    layers = [[keras.layers.Conv2D(4, 3)], [keras.layers.Conv2D(4, 3)]]
    model = GreedyModel(layers, [LinearHead(3), LinearHead(3)], method=method, seed=0)
    model.build((None, None, None, 3))


REFUSED = {
    "variant": (lambda: InfoPro("triplet"), ValueError, "`variant` must be one of 'softmax', 'c"),
    "head": (lambda: InfoPro(head="3c3f"), ValueError, "`head` must be one of '0c1f'.*'2c2f', or"),
    "weight": (
        lambda: InfoPro(reconstruction_weight=-1.0),
        ValueError,
        "`reconstruction_weight` must be at least 0 and finite. Received: .*of stage K − 1",
    ),
    "weights": (
        lambda: InfoPro(label_weight=(1.0, 2.0, 3.0)),
        TypeError,
        "`label_weight` must be a number or a pair. Received: label_weight=",
    ),
    "nothing": (
        lambda: InfoPro(reconstruction_weight=(1.0, 0.0), label_weight=(1.0, 0.0)),
        ValueError,
        "A stage needs something to learn.*Received: both 0 for stage K − 1",
    ),
    "std": (lambda: InfoPro(std=0.0), ValueError, r"`std` must be above 0. Received: std=0\.0"),
    "mean": (lambda: InfoPro(mean="a"), TypeError, "`mean` must be a number, or a list of one per"),
    "channels": (
        lambda: make(InfoPro(mean=[0.1, 0.2])),
        ValueError,
        r"`mean` must have a number per channel. Received: mean=\[0.1, 0.2\], images",
    ),
    "no images": (
        lambda: flat(InfoPro(head="0c1f")),
        ValueError,
        "Head 1, .*does not fit stage 1.*`InfoProHead` takes features",
    ),
    "nothing to rebuild": (
        lambda: flat(InfoPro(head=LinearHead(3))),
        ValueError,
        r"InfoPro rebuilds images \(batch, height.*of known size. Received, at stage 1: images "
        r"\(None, 6\).*`reconstruction_weight=0`, which needs no decoder",
    ),
    "unknown size": (
        lambda: open_sides(InfoPro(head=LinearHead(3))),
        ValueError,
        r"InfoPro rebuilds images .*of known size. Received, at stage 1: images \(None, None",
    ),
    "no embedding": (
        lambda: make(InfoPro("contrast", head=keras.layers.Conv2D(4, 1))),
        ValueError,
        r"`head` of InfoPro must give \(batch, units\). Received, at stage 1: conv2d",
    ),
    "no units": (
        lambda: make(InfoPro(), keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])),
        ValueError,
        "InfoPro makes stage 1 a head with as many units as.*has no `units`. Give one that has",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_do_is_refused_in_a_sentence(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()


def test_a_plan_by_memory_counts_its_nets():
    blocks = resnet(14, (8, 8, 1), widths=(4, 8, 8))
    for method in (InfoPro("contrast"), InfoPro("softmax")):
        sizes = trgl.splitting.by_memory(blocks, 3, head=LinearHead(3), method=method)
        assert sum(sizes) == len(blocks)


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("x", [255 * X, (X - 0.5) / 0.3], ids=["bytes", "normalized"])
def test_images_outside_of_0_to_1_stop_the_step(x, run_eagerly):
    model = make(InfoPro(), compiled=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, run_eagerly=run_eagerly)
    model.build((None, 8, 8, 1))
    before = {id(one): np.array(one) for one in model.trainable_weights}
    with pytest.raises(
        ValueError, match=r"Stage 1: .* between 0 and 1. Received: from -?\d"
    ) as told:
        fit(model, x=x.astype("float32"))
    assert "`mean` and `std`" in str(told.value)
    assert len(str(told.value).splitlines()) <= 5
    for one in model.trainable_weights:
        np.testing.assert_array_equal(before[id(one)], one)


def test_images_that_were_normalized_train_by_their_mean_and_std():
    method = InfoPro(mean=[0.5], std=[0.3])
    assert np.isfinite(fit(make(method), x=((X - 0.5) / 0.3).astype("float32"))["loss"]).all()
