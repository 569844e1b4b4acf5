"""Tools that wrap Keras, or look into its models, take a `GreedyModel` as they take any."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.callbacks import BackupAndRestore

pytestmark = pytest.mark.sampled(2)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = np.arange(24) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy


def dense(**options):
    blocks = [keras.layers.Dense(6, name=f"block_{k}") for k in range(2)]
    model = trgl.GreedyModel.from_blocks(
        blocks, [1, 1], trgl.heads.LinearHead(3), method="vangl", seed=0
    )
    model.compile("sgd", LOSS(from_logits=True), metrics=["accuracy"], **options)
    return model


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[8 * index : 8 * index + 8], Y[8 * index : 8 * index + 8]


def pipeline():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(24, seed=1).batch(8)


def stream():
    return trgl.datasets.BatchStream(X, Y, batch_size=8)


KINDS_OF_DATA = {
    "arrays": (lambda: (X, Y), {"batch_size": 8}, False, 3),
    "arrays, steps of the user's": (lambda: (X, Y), {"batch_size": 8}, False, 5),
    "arrays, kept": (lambda: (X, Y), {"batch_size": 8}, True, 3),
    "class weights": (
        lambda: (X, Y),
        {"batch_size": 8, "class_weight": {0: 2.0, 1: 1, 2: 1}},
        0,
        3,
    ),
    "a stream": (lambda: (stream(), None), {}, False, 3),
    "a PyDataset": (lambda: (Batches(), None), {}, False, 3),
    "a PyDataset, steps of the user's": (lambda: (Batches(), None), {}, False, 5),
    "a pipeline": (lambda: (pipeline(), None), {}, False, 3),
    "a pipeline, kept": (lambda: (pipeline(), None), {}, True, 3),
}


@pytest.mark.parametrize("kind", KINDS_OF_DATA)
def test_what_keras_is_handed_ends_after_an_epoch_and_walking_it_changes_nothing(
    kind, monkeypatch, tmp_path
):
    make, options, kept, steps = KINDS_OF_DATA[kind]
    if steps == 5:
        options = {**options, "steps_per_epoch": 5}

    def trained(folder):
        backup = [BackupAndRestore(tmp_path / folder)] if kept else []
        x, y = make()
        model = dense()
        history = model.fit(x, y, epochs=2, verbose=0, callbacks=backup, **options).history
        return history, model.get_weights()

    plain = trained("plain")
    counts, fit = [], keras.Model.fit

    def walking(self, x=None, *args, **given):
        counts.append((sum(1 for _ in x), len(x)))
        return fit(self, x, *args, **given)

    monkeypatch.setattr(keras.Model, "fit", walking)
    if isinstance(make()[0], tf.data.Dataset) and not kept:
        # The user's own pipeline: its shuffle draws anew, as with plain Keras.
        trained("walked")
    else:
        walked = trained("walked")
        assert walked[0] == plain[0]
        for got, wanted in zip(walked[1], plain[1], strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert counts == [(steps, steps)]


def test_the_batch_size_is_told_to_tools(monkeypatch):
    told = []
    monkeypatch.setattr(keras.Model, "fit", lambda self, **given: told.append(given["batch_size"]))
    for x, y, options in ((X, Y, {}), (X, Y, {"batch_size": 8}), (stream(), None, {})):
        dense().fit(x, y, verbose=0, **options)
    assert told == [32, 8, 8]


def test_a_built_model_has_the_properties_of_a_functional_one():
    model = dense()
    for name in ("input_shape", "output_shape", "inputs", "outputs", "input", "output"):
        assert not hasattr(model, name)
        with pytest.raises(AttributeError, match="once it is built"):
            getattr(model, name)
    model.build((None, 6))
    assert (model.input_shape, model.output_shape) == ((None, 6), (None, 3))
    assert model.input is model.inputs[0]
    assert model.output is model.outputs[0]
    plain = keras.Model(model.inputs, model.outputs)
    np.testing.assert_array_equal(plain.predict(X, verbose=0), model.predict(X, verbose=0))


def test_from_model_of_a_greedy_model_says_the_way_out():
    model = dense()
    model.build((None, 6))
    with pytest.raises(ValueError, match=r"cut into stages.*model.truncate\(model.num_stages\)"):
        trgl.GreedyModel.from_model(model, 2, trgl.heads.LinearHead(3))
    model.truncate(model.num_stages)


def test_layers_are_blocks_and_heads_and_get_layer_finds_what_has_a_name():
    inner = keras.Sequential([keras.layers.Dense(4, name="inner")], name="outer")
    model = trgl.GreedyModel(
        [[keras.layers.Dense(6, name="first")], inner],
        [trgl.heads.LinearHead(3)] * 2,
        seed=0,
        method="vangl",
    )
    model.build((None, 6))
    assert [layer.name for layer in model.layers] == ["first", "outer", "head_1", "head_2"]
    for name in ("first", "outer", "head_2", "inner", "stage_1"):
        assert model.get_layer(name).name == name
    assert model.get_layer(index=1) is model.stages[1].blocks[0]
    for wrong in ({"name": "second"}, {"index": 9}, {}, {"name": "first", "index": 0}):
        with pytest.raises(ValueError, match=r"No such layer|only has 4|Provide"):
            model.get_layer(**wrong)


def test_summary_takes_keras_arguments_built_or_not(capsys):
    model = dense()
    model.summary(80, None, None, True)
    text = capsys.readouterr().out
    assert "not built" in text
    assert "model.build(input_shape)" in text
    assert "block_1  Dense" in text
    model.build((None, 6))
    said = []
    model.summary(print_fn=said.append, line_length=80, show_trainable=True, expand_nested=True)
    assert "block_1  Dense" in said[0]
    assert "(None, 6)  42" in said[0]
    model.summary(print_fn=said.append)
    assert "block_1" not in said[1]


def test_a_plot_shows_shapes_and_its_functional_model_shows_layers():
    model = dense()
    model.build((None, 6))
    text = keras.utils.model_to_dot(model, show_shapes=True).to_string()
    assert "(None, 6)" in text
    assert "(None, 3)" in text
    plain = keras.Model(model.inputs, model.outputs)
    assert "block_1" in keras.utils.model_to_dot(plain).to_string()


def test_a_state_tree_goes_to_another_model():
    model = dense()
    model.fit(X, Y, verbose=0)
    tree = model.get_state_tree("numpy_array")
    assert set(tree["metrics_variables"]) == {"stage_1", "stage_2"}
    assert set(model.get_state_tree()) == set(tree)
    keras.utils.clear_session()
    other = dense()
    other.build((None, 6))
    other.set_state_tree(tree)
    for got, wanted in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert int(other.optimizer.optimizers[1].iterations) == 1
    # Nothing is assigned where a part does not fit.
    before = other.get_weights()
    damaged = {"optimizer_variables": tree["optimizer_variables"], "trainable_variables": {}}
    damaged["trainable_variables"] = {"stage_1": {"block_1": {"kernel": np.zeros((9, 9))}}}
    with pytest.raises(ValueError, match=r"where this one has shape .6, 6."):
        other.set_state_tree(damaged)
    for got, wanted in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, wanted)
    bad = {"trainable_variables": {"nobody": np.zeros(3)}}
    for wrong, said in (
        ({"weights": {}}, "groups must be among trainable_variables"),
        (bad, "Received: a value of shape .3,. for trainable_variables/nobody"),
    ):
        with pytest.raises(ValueError, match=said):
            model.set_state_tree(wrong)
    with pytest.raises(ValueError, match="`value_format` must be 'backend_tensor'"):
        model.get_state_tree("torch")


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "loss scale"])
def test_a_state_tree_is_whatever_keras_calls_the_layers(optimizer):
    """As Orbax keeps it: NumPy, single numbers as Python's, and a model made beside the first."""
    kinds = {
        "adam": lambda: keras.optimizers.Adam(0.01),
        "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, 0.9)),
    }

    def make():
        heads = [trgl.heads.LinearHead(3) for _ in range(2)]
        rows = [[trgl.layers.ResidualBlock([keras.layers.Dense(6)])] for _ in range(2)]
        model = trgl.GreedyModel(rows, heads, seed=0)
        model.compile(kinds[optimizer](), LOSS(from_logits=True))
        return model

    model, other = make(), make()
    model.fit(X, Y, epochs=2, verbose=0)
    other.fit(X[:4], Y[:4], verbose=0)
    tree = model.get_state_tree("numpy_array")
    tree = keras.tree.map_structure(lambda one: one.item() if one.ndim == 0 else one, tree)
    assert set(tree["trainable_variables"]["stage_1"]) == {"block_1", "head"}
    other.set_state_tree(tree)
    for model_ in (model, other):
        model_.fit(X, Y, shuffle=False, verbose=0)
    for got, wanted in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("way", ["a new list", "append"])
def test_a_tool_may_add_callbacks_to_those_that_keras_is_handed(way, monkeypatch, tmp_path, capsys):
    def run(folder):
        backup = BackupAndRestore(tmp_path / folder)
        return dense().fit(X, Y, epochs=2, batch_size=8, verbose=2, callbacks=[backup]).history

    plain, said = run("plain"), capsys.readouterr().out
    fit, heard = keras.Model.fit, []
    extra = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: heard.append(logs))

    def adding(self, x=None, callbacks=None, **given):
        if way == "append":
            callbacks.append(extra)
        else:
            callbacks = [*callbacks, extra]
        return fit(self, x, callbacks=callbacks, **given)

    monkeypatch.setattr(keras.Model, "fit", adding)
    assert run("wrapped") == plain
    assert [logs["loss"] for logs in heard] == plain["loss"]
    assert capsys.readouterr().out.count("Epoch") == said.count("Epoch")
