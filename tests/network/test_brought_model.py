"""A user's model as a `GreedyModel`: heads, cuts, what crosses, saving, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_trgl import GreedyModel, distribute, regimes
from keras_trgl.export.exported_parts import compute_types, in_float32
from keras_trgl.heads import LinearHead
from keras_trgl.network.calls import graph_calls

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def images(batch=6):
    return np.random.default_rng(0).random((batch, 8, 8, 3)).astype("float32")


def convolutions(num=4, top=None, name="plain"):
    """Give a network without sums, the first convolution of other channels than its input."""
    inputs = x = keras.Input((8, 8, 3), name="image")
    for k in range(num):
        x = layers.Conv2D(4, 3, padding="same", name=f"conv{k}")(x)
        x = layers.ReLU(name=f"relu{k}")(x)
    if top is not None:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(3, activation=top, name="classifier")(x)
    return keras.Model(inputs, x, name=name)


def residual(num=3, top=None, name="net"):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    for k in range(num):
        r = layers.Conv2D(4, 3, padding="same", name=f"r{k}")(layers.ReLU(name=f"relu{k}")(x))
        x = layers.Add(name=f"sum{k}")([x, r])
    if top is not None:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(3, activation=top, name="classifier")(x)
    return keras.Model(inputs, x, name=name)


def brought(model, cuts=2, head=None, **options):
    return GreedyModel.from_model(model, cuts, head or LinearHead(3), seed=0, **options)


def trained(network, loss=LOSS):
    network.compile(keras.optimizers.SGD(0.1), loss)
    network.fit(images(), np.arange(6) % 3, batch_size=3, verbose=0)
    return network


def test_the_model_itself_is_trained_and_given_back():
    model = residual()
    before = model.get_weights()
    network = trained(brought(model, 3))
    assert network.to_keras() is model
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert all(changed)
    features = images()
    for stage in network.stages:
        features = stage(features, training=False)
    np.testing.assert_array_equal(features, model(images()))


def test_cut_table_tells_of_every_stage():
    table = brought(residual(), 3).cut_table()
    assert [tuple(row) for row in table] == [
        (1, "stem", "sum0", (("sum0", (None, 8, 8, 4), "float32"),), 1, 260, 1024),
        (2, "relu1", "sum1", (("sum1", (None, 8, 8, 4), "float32"),), 1, 148, 1024),
        (3, "relu2", "sum2", (("sum2", (None, 8, 8, 4), "float32"),), 1, 148, 1024),
    ]
    lines = str(table).splitlines()
    assert lines[0].split() == list(table[0]._fields)
    assert lines[3].split() == [
        "2",
        "relu1",
        "sum1",
        "sum1",
        "(8,",
        "8,",
        "4)",
        "float32",
        "1",
        "148",
        "1,024",
    ]


def test_two_models_are_made_of_one():
    model = residual()
    one, other = brought(model, 2), brought(model, 3)
    trained(one)
    np.testing.assert_array_equal(other.stages[0].get_weights()[0], one.stages[0].get_weights()[0])


def test_the_top_is_the_last_head(tmp_path):
    model = residual(top="softmax")
    expected = model.predict(images(), verbose=0)
    network = brought(model, 2, [LinearHead(3, name="first"), "top"])
    np.testing.assert_allclose(network.predict(images(), verbose=0), expected, rtol=1e-6)
    assert network.cut_table()[-1].last == "sum2"
    with pytest.warns(UserWarning, match=r"ends in softmax.*a list of losses, one per exit"):
        network.compile("sgd", LOSS)
    losses = [LOSS, keras.losses.SparseCategoricalCrossentropy()]
    network.compile("sgd", losses, metrics=["accuracy"])
    logs = network.evaluate(images(), np.arange(6) % 3, return_dict=True, verbose=0)
    chosen = expected[np.arange(6), np.arange(6) % 3]
    np.testing.assert_allclose(logs["stage_2_loss"], -np.log(chosen).mean(), rtol=1e-5)
    logits = network.predict_exits(images(), verbose=0)[0]
    first = float(LOSS(np.arange(6) % 3, logits))
    np.testing.assert_allclose(logs["stage_1_loss"], first, rtol=1e-5)
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    twice = again.evaluate(images(), np.arange(6) % 3, return_dict=True, verbose=0)
    assert twice == logs
    np.testing.assert_allclose(again.to_keras().predict(images(), verbose=0), expected, rtol=1e-6)


def test_a_top_alone_is_the_head_of_one_stage():
    network = trained(brought(residual(top=None, num=1), 1))
    assert network.num_stages == 1
    model = residual(top="softmax")
    network = brought(model, 1, "top")
    np.testing.assert_allclose(
        network.predict(images(), verbose=0), model.predict(images(), verbose=0), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: brought(residual(top="softmax")), r"own classifier, classifier.*'top'.*'sum2'"),
        (lambda: brought(residual(top="linear")), r"must end in features.*include_top=False"),
        (lambda: brought(residual(top="linear"), 2, "top"), r"the last stage alone.*for 2 stages"),
        (lambda: brought(residual(), 1, "top"), r"own classifier, layers at its end.*without one"),
        (lambda: brought(residual(), 2, ["top", LinearHead(3)]), r"'top' can be the last head"),
        (lambda: brought(residual(), ["stem", "nowhere"]), r"name layers.*'nowhere'.*none of its"),
        (lambda: brought(residual(), ["sum1", "sum0"]), r"in the order.*'sum0' out of place"),
        (lambda: brought(residual(), [1, 1]), r"number of units, 3.*sum to 2"),
        (lambda: brought(residual(), 4), r"`cuts` must be at most 3"),
        (lambda: brought(residual(), head_input="x"), r"`head_input` must name a layer.*'x'"),
        (lambda: brought(convolutions(), on_no_residual="x"), r"`on_no_residual` must be one of"),
        (lambda: brought(convolutions(), on_no_residual="raise"), r"must have a residual.*1, 2\."),
        (
            lambda: brought(convolutions(), regime=regimes.Sequential(1, idle_device="CPU:0")),
            r"`idle_device` would move its layers.*`share=False` trains a copy",
        ),
    ],
)
def test_what_is_refused_says_the_way_out(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert len(str(caught.value)) <= 5 * 100


def test_a_model_that_cannot_be_traced_is_refused():
    class Eager(layers.Layer):
        def call(self, x):
            return x * float(np.asarray(x).max())

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(4)(Eager()(inputs)))
    with pytest.raises(ValueError, match=r"can trace in training mode.*where that fails: "):
        brought(model, 1)


def test_a_placing_strategy_wants_a_copy():
    model = residual()
    with distribute.StageParallelStrategy(["CPU:0", "CPU:1"]).scope():
        with pytest.raises(ValueError, match=r"strategy that places stages.*`share=False`"):
            brought(model)
        network = brought(model, share=False)
        network.compile(keras.optimizers.SGD(0.1), LOSS)
    network.fit(images(), np.arange(6) % 3, batch_size=3, verbose=0, shuffle=False)
    twin = brought(model)
    twin.compile(keras.optimizers.SGD(0.1), LOSS)
    twin.fit(images(), np.arange(6) % 3, batch_size=3, verbose=0, shuffle=False)
    for a, b in zip(network.to_keras().weights, model.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-6)


def test_replicas_want_the_model_made_in_their_scope():
    model, strategy = residual(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope(), pytest.raises(ValueError, match=r"made outside the scope of `Mirrored"):
        brought(model)
    with strategy.scope():
        assert brought(residual()).num_stages == 2


def test_a_stage_without_residuals_is_told_of_or_takes_distances():
    with pytest.warns(UserWarning, match=r"none in stage 1, 2: .*on_no_residual='distance'"):
        brought(convolutions())
    network = brought(convolutions(), on_no_residual="distance")
    names = [[unit.name for unit in stage.residual_units] for stage in network.stages]
    assert names == [["conv1_distance"], ["conv2_distance", "conv3_distance"]]
    stage, x = network.stages[1], network.stages[0](images())
    units = stage.residual_units
    with units[0].recording(), units[1].recording():
        end = stage(x)
        energies = [float(unit.energy()) for unit in units]
    middle = layers.ReLU()(network.get_layer("conv2")(x))
    expected = [np.mean((middle - x) ** 2), np.mean((end - middle) ** 2)]
    np.testing.assert_allclose(energies, expected, rtol=1e-5)
    assert trained(network).history.history["stage_2_energy"][0] > 0


def test_distances_of_vgg_are_those_of_the_paper():
    model = keras.applications.VGG19(weights=None, include_top=False, input_shape=(32, 32, 3))
    network = brought(model, 2, on_no_residual="distance", check=False)
    units = [call.name for stage in network.stages for call in stage.blocks[0].calls]
    convolutions = [name for name in units if "conv" in name]
    named = [unit.name for stage in network.stages for unit in stage.residual_units]
    numbers = [convolutions.index(name.removesuffix("_distance")) + 1 for name in named]
    assert numbers == [2, 4, 6, 7, 8, *range(10, 17)]


def test_features_are_the_output_of_highest_rank_or_the_named_one(tmp_path):
    inputs = keras.Input((5, 4))
    x = inputs
    for k in range(2):
        x = layers.Add(name=f"sum{k}")([x, layers.Dense(4)(x)])
    pooled = layers.Dense(3, name="pooler")(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, {"pooled": pooled, "sequence": x})
    network = brought(model, 2)
    assert network.stages[-1].compute_output_shape((None, 5, 4)) == (None, 5, 4)
    assert brought(model, 2, head_input="pooler").cut_table()[-1].last == "pooler"
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    data = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    # What no stage calls is kept too, in a file of weights as well.
    np.testing.assert_array_equal(again.to_keras()(data)["pooled"], model(data)["pooled"])
    expected = np.asarray(model(data)["pooled"])
    network.save_weights(tmp_path / "model.weights.h5")
    model.get_layer("pooler").kernel.assign(keras.ops.zeros((4, 3)))
    network.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model(data)["pooled"], expected)


def test_a_difference_names_the_first_layer():
    class Restless(layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            return x * self.calls.assign_add(1.0)

    inputs = keras.Input((4,))
    x = layers.Dense(4)(Restless(name="restless")(layers.Dense(4)(inputs)))
    with pytest.raises(ValueError, match=r"the output of restless differs.*`check=False`"):
        brought(keras.Model(inputs, x), 1, method="vangl")
    brought(keras.Model(inputs, x), 1, method="vangl", check=False)


def test_truncated_models_are_flat_with_the_models_input(tmp_path):
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(10, 4, name="embedding")(inputs)
    for k in range(2):
        inner = keras.Input((6, 4))
        r = layers.Dense(4, name="same_name")(inner)
        x = keras.Model(inner, inner + r, name=f"block{k}")(x)
    network = brought(keras.Model(inputs, x), 2)
    flat = network.truncate(2)
    assert [one.name for one in flat.inputs] == ["tokens"]
    assert flat.inputs[0].dtype == "int32"
    assert {"embedding", "same_name", "same_name_1"} <= {layer.name for layer in flat.layers}
    assert not any("part" in layer.name for layer in flat.layers)
    flat.save(tmp_path / "flat.keras")
    tokens = np.arange(12).reshape(2, 6) % 10
    expected = network.predict(tokens, verbose=0)
    np.testing.assert_array_equal(flat.predict(tokens, verbose=0), expected)
    again = keras.saving.load_model(tmp_path / "flat.keras")
    np.testing.assert_array_equal(again.predict(tokens, verbose=0), expected)


def test_saved_overrides_are_those_of_the_loaded_model(tmp_path):
    network = trained(brought(residual(), ["sum0"], residuals={"sum1": None}))
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.cut_table() == network.cut_table()
    assert [row.residuals for row in again.cut_table()] == [1, 1]
    np.testing.assert_array_equal(
        again.predict(images(), verbose=0), network.predict(images(), verbose=0)
    )


def test_a_model_of_stages_has_no_table():
    network = GreedyModel([[layers.Dense(3)]], [LinearHead(3)], method="vangl")
    for ask in (network.cut_table, network.to_keras):
        with pytest.raises(ValueError, match=r"speaks of a Keras model that was cut"):
            ask()


def test_keras_keeps_the_graph_where_it_is_read():
    """Fails when Keras keeps its graph elsewhere: `from_model` would read nothing."""
    model = residual(1)
    names = [operation.name for operation, *_ in graph_calls(model)]
    assert names == ["stem", "relu0", "r0", "sum0"]
    with pytest.raises(RuntimeError, match=r"as Keras 3.15 keeps them.*Use Keras 3.15"):
        next(graph_calls(layers.Dense(2)))


def test_text_and_masks_go_through_the_stages():
    vectorize = layers.TextVectorization(output_sequence_length=5, vocabulary=["a", "b", "c"])
    inputs = keras.Input((1,), dtype="string", name="text")
    x = layers.Embedding(6, 4, mask_zero=True)(vectorize(inputs))
    for _ in range(2):
        x = layers.Add()([x, layers.Dense(4)(x)])
    model = keras.Model(inputs, x)
    network = brought(model)
    text = tf.constant([["a b"], ["c a b a b"]])
    features = text
    for stage in network.stages:
        features = stage(features, training=False)
    expected = model(text, training=False)
    np.testing.assert_array_equal(features, expected)
    np.testing.assert_array_equal(features._keras_mask, expected._keras_mask)
    network.compile("sgd", LOSS)
    network.fit(text, np.array([0, 1]), verbose=0)


def test_a_copy_that_is_none_names_the_layer():
    class Scaled(layers.Layer):
        def __init__(self, scale=1.0, **kwargs):
            super().__init__(**kwargs)
            self.scale = scale

        def call(self, x):
            return x * self.scale

        def get_config(self):
            return super().get_config()

    inputs = keras.Input((4,))
    x = Scaled(2.0, name="scaled")(layers.Dense(4, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(4)(x))
    with pytest.raises(ValueError, match=r"the output of scaled differs on two examples"):
        brought(model, 1, share=False, method="vangl")
    assert brought(model, 1, method="vangl").num_stages == 1


def test_a_method_of_one_stage_is_saved(tmp_path):
    network = trained(brought(residual(), 2, method="end_to_end"))
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(images(), verbose=0), network.predict(images(), verbose=0)
    )


def test_a_part_is_copied_in_float32_for_converters():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", dtype="mixed_float16")(inputs)
    x = x + layers.Conv2D(4, 3, padding="same", dtype="mixed_float16")(x)
    network = brought(keras.Model(inputs, x), 1)
    assert "float16" in compute_types(network.stages[0].blocks[0])
    stages, heads = in_float32(network.stages, network.heads, network.input_shape)
    assert not {"float16"} & {t for stage in stages for t in compute_types(stage.blocks[0])}
    prediction = heads[0](stages[0](images()))
    np.testing.assert_allclose(prediction, network.predict(images(), verbose=0), atol=1e-2)


def test_regularizers_of_the_models_layers_count_in_their_stage():
    inputs = keras.Input((4,))
    x = inputs
    for _ in range(2):
        x = layers.Add()([x, layers.Dense(4, kernel_regularizer="l2")(x)])
    model = keras.Model(inputs, x)
    network = brought(model, method="vangl")
    network.compile(keras.optimizers.SGD(0.0), LOSS)
    data, labels = np.ones((3, 4), "float32"), np.arange(3)
    logs = network.train_on_batch(data, labels, return_dict=True)
    for k, layer in enumerate(layer for layer in model.layers if layer.weights):
        expected = logs[f"stage_{k + 1}_loss"] + 0.01 * np.sum(np.square(layer.get_weights()[0]))
        np.testing.assert_allclose(logs[f"stage_{k + 1}_objective"], expected, rtol=1e-5)
