"""Users' own models, heads and data: the right number, or a sentence."""

import random
import re

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl import diagnostics as D
from keras_trgl.scores import auroc, log_odds

L = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(120, 4)).astype("float32")
Y = (X[:, 0] > 0).astype(int)


def scaled(factor, name):
    return L.Dense(4, kernel_initializer=keras.initializers.Identity(factor), name=name)


def called_before():
    inputs, layer = keras.Input((4,)), scaled(2.0, "last")
    keras.Model(inputs, layer(inputs))
    return keras.Model(inputs, layer(L.Rescaling(5.0, name="first")(inputs)))


def a_nested_base():
    inputs = keras.Input((4,))
    base = keras.Model(inputs, scaled(1.0, "inner")(inputs), name="last")
    return keras.Model(inputs, base(L.Rescaling(10.0, name="first")(inputs)))


def a_base_of_several_layers():
    own = keras.Input((4,))
    base = keras.Model(own, scaled(3.0, "b")(scaled(1.0, "a")(own)), name="last")
    inputs = keras.Input((4,))
    return keras.Model(inputs, L.Dense(2)(base(L.Rescaling(2.0, name="first")(inputs))))


DISPLACEMENTS = {called_before: [16.0, 1.0], a_nested_base: [81.0, 0.0]}
DISPLACEMENTS |= {a_base_of_several_layers: [1.0, 4.0]}


@pytest.mark.parametrize("make", DISPLACEMENTS, ids=lambda make: make.__name__)
def test_cuts_are_those_of_this_model(make):
    model = make()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    found = D.transport(model, X, cuts=["first", "last"])["displacement"]
    np.testing.assert_allclose(found, DISPLACEMENTS[make], rtol=1e-5, atol=1e-10)
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]


def test_a_plain_model_with_channels_first_is_seen_as_one_with_channels_last():
    def net(form, shape):
        out = inputs = keras.Input(shape)
        for k in (1, 2):
            conv = L.Conv2D(6, 3, padding="same", data_format=form)
            out = L.ReLU(name=f"relu_{k}")(conv(out))
        return keras.Model(inputs, out)

    first, last = net("channels_first", (6, 8, 8)), net("channels_last", (8, 8, 6))
    last.set_weights(first.get_weights())
    x = rng.normal(size=(30, 8, 8, 6)).astype("float32")
    found = [
        D.wasserstein(model, data, cuts=["relu_1", "relu_2"])["w2"]
        for model, data in ((first, np.moveaxis(x, -1, 1)), (last, x))
    ]
    np.testing.assert_allclose(*found, rtol=1e-4)


def one_unit(activation, slope=5.0, shift=0.0, loss=None):
    head = L.Dense(1, activation=activation)
    model = trgl.GreedyModel([L.Identity()], [head], method="vangl", seed=0)
    model.build((None, 4))
    head.set_weights([np.array([[slope], [0], [0], [0]]), np.array([shift])])
    if loss is not None:
        model.compile("sgd", loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    ("model", "predictions"),
    [(one_unit("sigmoid"), "probabilities"), (one_unit(None), "logits")],
    ids=["probability", "logit"],
)
def test_one_unit_is_right_where_it_is(model, predictions):
    assert D.calibration(model, (X, Y), predictions=predictions)["accuracy"] == [1.0]
    assert D.failure_prediction(model, (X, Y), predictions=predictions)["wrong"] == [0.0]
    assert D.separability(model, (X, Y))["head"] == [1.0]
    pytest.importorskip("matplotlib")
    figure = trgl.plot.accuracy_by_depth(model, (X, Y))
    assert figure.axes[0].lines[0].get_ydata()[0] == 100.0


def test_small_logits_of_one_unit_are_no_probabilities():
    model = one_unit(None, 0.1, 0.5)
    inside = X[np.abs(X[:, 0]) < 3]
    labels = Y[np.abs(X[:, 0]) < 3]
    found = D.separability(model, (inside, labels))["head"]
    right = D.calibration(model, (inside, labels))["accuracy"]
    assert right == [labels.mean()]
    assert abs(found[0] - right[0]) < 0.1


def softmax_net(policy):
    with_policy = {"dtype": policy}
    head = L.Dense(3, "softmax", **with_policy)
    model = trgl.GreedyModel([L.Dense(4, **with_policy)], [head], method="vangl", seed=0)
    model.build((None, 4))
    return model


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float16"])
def test_probabilities_of_low_precision_are_probabilities(policy):
    model, y = softmax_net(policy), np.arange(120) % 3
    found = D.calibration(model, (X, y), predictions="probabilities")["nll"][0]
    p = np.asarray(model.predict(X, verbose=0), np.float64)
    assert found == pytest.approx(-np.log(p[np.arange(120), y]).mean(), rel=1e-4)
    with pytest.raises(ValueError, match="predictions='probabilities'"):
        D.calibration(model, (X, y))


def test_sure_rows_are_told_apart_however_sure():
    gaps = np.linspace(40, 90, 50)
    logits = np.stack([gaps, np.zeros(50)], 1)
    right = gaps > 60
    assert auroc(log_odds(logits, "logits"), right) == 1.0
    three = rng.normal(size=(40, 3))
    p = np.exp(three) / np.exp(three).sum(1, keepdims=True)
    wanted = np.log(p.max(1) / (1 - p.max(1)))
    np.testing.assert_allclose(log_odds(three, "logits"), wanted)
    np.testing.assert_allclose(log_odds(p, "probabilities"), wanted)
    np.testing.assert_allclose(log_odds(three[:, :1], "logits"), np.abs(three[:, 0]))


def test_validation_stands_in_the_epochs_in_which_it_ran():
    model = one_unit("sigmoid", loss="binary_crossentropy")
    run = model.fit(X, Y, epochs=6, validation_data=(X, Y), validation_freq=2, verbose=0)
    shown = D.history_by_stage(run)
    assert shown.index == (1, 2, 3, 4, 5, 6)
    assert np.isnan(shown["val_stage_1_loss"]).tolist() == [True, False] * 3
    # The dict alone: three of six can only be every second.
    values = D.history_by_stage(run.history)["val_stage_1_loss"]
    np.testing.assert_array_equal(values, shown["val_stage_1_loss"])
    pytest.importorskip("matplotlib")
    lines = trgl.plot.history(run, ["loss"]).axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[1, 2, 3, 4, 5, 6], [2, 4, 6]]
    run = model.fit(X, Y, epochs=5, validation_data=(X, Y), validation_freq=[1, 4], verbose=0)
    values = D.history_by_stage(run)["val_stage_1_loss"]
    assert np.isnan(values).tolist() == [False, True, True, False, True]
    later = model.fit(X, Y, epochs=12, initial_epoch=10, verbose=0)
    assert D.history_by_stage(later).index == (11, 12)


def test_information_of_whole_numbers_is_that_of_their_floats(images):
    x = np.round(40 * images[0][:40]).clip(-100, 100).astype("int8")
    model = trgl.GreedyModel(
        [L.Conv2D(4, 3, padding="same")], [trgl.heads.LinearHead(3)], method="vangl", seed=0
    )
    model.build(x.shape)
    both = [
        D.information(model, (one, images[1][:40]), epochs=2)["input"][0]
        for one in (x, x.astype("float32"))
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-5)
    assert both[0] < 1


def test_probes_leave_what_others_draw_and_compute_in():
    def drawn(look):
        keras.utils.set_random_seed(1)
        look()
        before = random.getstate()
        layer = L.Dense(2)
        layer.build((None, 2))
        return layer.get_weights()[0], before

    model = one_unit(None)
    plain, state = drawn(lambda: None)
    after, other = drawn(lambda: D.information(model, (X, Y), epochs=1))
    np.testing.assert_array_equal(plain, after)
    assert state == other
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    try:
        found = D.information(model, (X, Y), epochs=30)["label"][0]
        assert keras.config.dtype_policy().name == "float16"
        # And of data that float16 cannot hold.
        large = D.transport(model, X * 1e6)
    finally:
        keras.config.set_dtype_policy(before)
    assert 0.3 < found <= np.log(2) + 1e-6
    assert large["displacement"] == [0.0]


def turned(width):
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turn = L.Dense(width, use_bias=False)
    model = trgl.GreedyModel([turn], [trgl.heads.LinearHead(2)], method="vangl", seed=0)
    model.build((None, width))
    turn.set_weights([np.kron(np.eye(width // 2), [[cos, sin], [-sin, cos]])])
    return model


def test_a_gap_of_points_that_are_far_apart_says_that_they_are():
    # Turning a Gaussian is all in vain: W2 is 0. In 32 dimensions 500 points cannot show it.
    points = rng.normal(size=(500, 32)).astype("float32")
    close = D.monge_gap(turned(2), points[:, :2])
    assert close["relative"][0] > 0.8
    assert close["cost"][0] > 10 * close["spacing"][0]
    far = D.monge_gap(turned(32), points)
    assert far["relative"][0] < 0.01
    assert far["cost"][0] < far["spacing"][0]
    apart = np.square(points[:, None] - points[None]).sum(-1) + np.diag([np.inf] * 500)
    assert far["spacing"][0] == pytest.approx(apart.min(1).mean(), rel=1e-4)


def test_labels_that_are_not_needed_are_no_matter():
    wanted = D.transport(one_unit(None), X).columns
    found = D.transport(one_unit(None), (X, X[:, 1])).columns
    assert found["displacement"] == wanted["displacement"]


class Batches(keras.utils.PyDataset):
    """Examples alone, ten batches of twelve."""

    def __len__(self):
        return 10

    def __getitem__(self, place):
        return X[12 * place : 12 * place + 12]


def two_inputs():
    inputs = [keras.Input((4,), name="a"), keras.Input((4,), name="b")]
    return keras.Model(inputs, L.Dense(4, name="sum")(L.Add(name="add")(inputs)), name="two")


def per_step():
    model = trgl.GreedyModel([L.Dense(4)], [L.Dense(3)], method="vangl", seed=0, name="steps")
    model.build((None, 7, 4))
    return model


def images_net():
    model = trgl.GreedyModel(
        [L.Conv2D(4, 3, padding="same")], [trgl.heads.LinearHead(3)], method="vangl", seed=0
    )
    model.build((None, 8, 8, 1))
    return model


def called_twice():
    inputs, layer = keras.Input((4,)), scaled(3.0, "twice")
    return keras.Model(inputs, layer(layer(inputs)))


def watched(head, labels, **options):
    model = trgl.GreedyModel([L.Dense(4)], [head], method="vangl", seed=0)
    logits = head.activation is keras.activations.linear
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=logits))
    watch = trgl.callbacks.WatchStages((X, labels), **options)
    return model.fit(X, Y, callbacks=[watch], verbose=0)


STEPS = rng.normal(size=(60, 7, 4)).astype("float32")
COLOURS = rng.normal(size=(20, 8, 8, 3)).astype("float32")
CHANNELS = r"as many channels as the network was built for, 1\. Received"
SIGMOID = r"a head that ends in sigmoid\. Pass `predictions='probabilities'`"

MISTAKES = {
    "a layer that is called twice": (
        lambda: D.transport(called_twice(), X, cuts=["twice"]),
        "must be a layer that the model calls once.*'twice', which gives 2",
    ),
    "a plain model of two inputs": (
        lambda: D.transport(two_inputs(), [X, X], cuts=["add"]),
        r"Diagnostics look at models of one input\. Received: two, which takes 2: a, b",
    ),
    "data of another shape than a plain model's": (
        lambda: D.transport(called_before(), X[:, :3], cuts=["first"]),
        r"must have the shape that the model declares, \(None, 4\)\. Received",
    ),
    "a probability for a logit": (lambda: D.calibration(one_unit("sigmoid"), (X, Y)), SIGMOID),
    "the same for exits": (
        lambda: trgl.export.choose_exit(one_unit("sigmoid"), (X, Y), max_drop=0.1),
        SIGMOID,
    ),
    "a sequence of batches": (
        lambda: D.wasserstein(one_unit(None), Batches()),
        "Received: Batches",
    ),
    "weights of examples": (
        lambda: D.calibration(one_unit(None), (X, Y, Y)),
        "Received: a tuple of 3; weights of examples have no part here",
    ),
    "a ragged list": (
        lambda: D.transport(one_unit(None), [[1.0], [1.0, 2.0], [3.0]]),
        "array of examples",
    ),
    "a share of text": (
        lambda: D.separability(one_unit(None), (X, Y), held_out="a"),
        "`held_out` must lie between 0 and 1. Received: held_out='a'",
    ),
    "predictions of steps": (
        lambda: D.calibration(per_step(), (STEPS, np.arange(60) % 3)),
        r"must be `\(examples, units\)`.*Received: \(60, 7, 3\)",
    ),
    "images of other channels": (lambda: D.transport(images_net(), COLOURS), CHANNELS),
    "numbers for lists": (
        lambda: D.history_by_stage({"stage_1_loss": 1.0}),
        "`history` must be what `fit` gave",
    ),
    "an empty history": (
        lambda: D.history_by_stage({"stage_1_loss": []}),
        "A history by stage has entries",
    ),
    "probabilities for the watched logits": (
        lambda: watched(L.Dense(2, "softmax"), Y),
        "a head that ends in softmax. Pass `predictions='probabilities'`",
    ),
    "logits for the watched probabilities": (
        lambda: watched(L.Dense(2), Y, predictions="probabilities"),
        "Pass `predictions='logits'`",
    ),
    "watched labels below 0": (lambda: watched(L.Dense(2), 2 * Y - 1), "at least 0. Received: -1"),
    "watched labels that heads do not know": (
        lambda: watched(L.Dense(2), Y + 5),
        "classes that the heads know, 0 to 1. Received: label 6",
    ),
    "watched labels with a point": (lambda: watched(L.Dense(2), Y + 0.5), "must be whole numbers"),
    "watched labels of text": (
        lambda: watched(L.Dense(2), Y.astype(str)),
        "must be whole numbers",
    ),
    "labels of text in a picture": (
        lambda: trgl.plot.accuracy_by_depth(one_unit(None), (X, Y.astype(str))),
        "must be whole numbers",
    ),
    "no labels in a picture": (
        lambda: trgl.plot.accuracy_by_depth(one_unit(None), (X, None)),
        "needs labels",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(mistake):
    call, said = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    text = str(caught.value)
    assert re.search(said, text), text
    assert len(text.splitlines()) <= 5


@pytest.mark.parametrize("data", [COLOURS, COLOURS.reshape(20, -1)], ids=["colours", "flat"])
def test_all_exits_refuse_what_predict_refuses(data):
    model, said = images_net(), []
    model.predict_exits(COLOURS[..., :1], verbose=0)
    for call in (model.predict, model.predict_exits):
        with pytest.raises(ValueError, match="the network was built for") as caught:
            call(data, verbose=0)
        said.append(next(line for line in str(caught.value).splitlines() if "Data must" in line))
    assert said[0] == said[1]


def test_a_report_written_again_has_its_own_scalars_alone(tmp_path):
    pytest.importorskip("matplotlib")
    for _ in range(2):
        D.report(one_unit(None), (X, Y), tmp_path, sample=60)
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1


def test_rows_that_similarity_leaves_out_are_told():
    found = D.similarity(one_unit(None), X[:119], batch_size=60)
    assert found.about["rows"] == "all 119 rows; the last 1 left out, for batches of one size"


def test_sixteen_stages_have_as_many_colours():
    pytest.importorskip("matplotlib")
    logs = {f"stage_{k}_loss": [1.0, 0.5] for k in range(1, 17)}
    lines = trgl.plot.history(logs).axes[0].lines
    assert len({line.get_color() for line in lines}) == 16


def test_a_table_without_numbers_says_so_in_its_picture():
    pytest.importorskip("matplotlib")
    table = D.DepthTable("t", ("a", "b"), {"c": (float("nan"),) * 2}, {}, {})
    assert "no numbers" in table.plot().axes[0].texts[0].get_text()
