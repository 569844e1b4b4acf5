"""Several tensors cross a cut, and a model has several inputs: the same in every way to train."""

import contextlib
import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_trgl import GreedyModel, diagnostics
from keras_trgl.distribute import StageParallelStrategy
from keras_trgl.export import Inputs, Outputs, export_openvino, export_serving
from keras_trgl.heads import LinearHead, NormHead
from keras_trgl.network.from_model import split_model
from keras_trgl.regimes import Buffered, Parallel, Sequential
from keras_trgl.regimes.feature_cache import FeatureCache

pytestmark = pytest.mark.sampled(1)

CLASSES, LENGTH, WIDTH, ROWS = 3, 6, 8, 8
rng = np.random.default_rng(0)
MASK = (np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (ROWS, 1))).astype("int32")
TOKENS = (rng.integers(1, 9, (ROWS, LENGTH)) * MASK).astype("int32")
IMAGES = rng.normal(size=(ROWS, 8, 8, 3)).astype("float32")


def unet():
    """Two skips; the first passes the stage in the middle, which does not use it."""

    def convolved(x, filters, name):
        return layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)

    inputs = keras.Input((8, 8, 3), name="image")
    a = convolved(inputs, 4, "a")
    b = convolved(layers.MaxPooling2D()(a), 4, "b")
    c = convolved(layers.MaxPooling2D()(b), 4, "c")
    d = convolved(layers.Concatenate()([layers.UpSampling2D()(c), b]), 4, "d")
    e = convolved(layers.Concatenate()([layers.UpSampling2D()(d), a]), 4, "e")
    return keras.Model(inputs, e, name="unet")


def cells():
    """Each cell takes the outputs of the two cells before it, as NASNet's do."""
    inputs = keras.Input((8, 8, 3), name="image")
    before = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    now = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem_2")(before)
    for k in range(4):
        left = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"left_{k}")(now)
        right = layers.Conv2D(4, 1, activation="relu", name=f"right_{k}")(before)
        one = layers.Add(name=f"sum_{k}")([now, left])
        cell = layers.Concatenate(name=f"cell_{k}")([one, right])
        before, now = now, layers.Conv2D(4, 1, name=f"narrow_{k}")(cell)
    return keras.Model(inputs, now, name="cells")


def bert():
    """Layers of Keras alone; token ids, segment ids and a padding mask that every block reads."""
    shapes = {"token_ids": "int32", "segment_ids": "int32", "padding_mask": "int32"}
    given = {name: keras.Input((LENGTH,), dtype=dtype, name=name) for name, dtype in shapes.items()}
    x = layers.Add(name="embedded")(
        [
            layers.Embedding(9, WIDTH, mask_zero=True, name="tokens")(given["token_ids"]),
            layers.Embedding(2, WIDTH, name="segments")(given["segment_ids"]),
        ]
    )
    x = layers.LayerNormalization(name="embedded_norm")(x)
    seen = ops.expand_dims(given["padding_mask"], 1)
    for k in range(3):
        attended = layers.MultiHeadAttention(2, WIDTH // 2, name=f"attention_{k}")(
            x, x, attention_mask=seen
        )
        x = layers.LayerNormalization(name=f"norm_{k}")(layers.Add(name=f"add_{k}")([x, attended]))
        inner = layers.Dense(WIDTH, name=f"out_{k}")(
            layers.Dense(2 * WIDTH, activation="gelu", name=f"in_{k}")(x)
        )
        x = layers.LayerNormalization(name=f"last_{k}")(layers.Add(name=f"sum_{k}")([x, inner]))
    pooled = layers.Dense(WIDTH, activation="tanh", name="pooled")(x[:, 0])
    # In flat order the pooled output comes first.
    return keras.Model(given, {"pooled": pooled, "sequence": x}, name="bert")


@keras.saving.register_keras_serializable("test_crossing")
class TransformerBlock(layers.Layer):
    """A block as people write it: its sums, and the way it makes its mask, hidden inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]
        self.attention = layers.MultiHeadAttention(2, WIDTH // 2)
        self.inner, self.outer = layers.Dense(2 * WIDTH, activation="gelu"), layers.Dense(WIDTH)
        self.supports_masking = True

    def build(self, shape, *rest):
        for norm in self.norms:
            norm.build(shape)
        self.attention.build(shape, shape)
        self.inner.build(shape)
        self.outer.build((*shape[:-1], 2 * WIDTH))

    def call(self, x, padding_mask):
        y = self.norms[0](x)
        seen = ops.expand_dims(padding_mask, 1)
        x = x + self.attention(y, y, attention_mask=seen, use_causal_mask=True)
        return x + self.outer(self.inner(self.norms[1](x)))

    def compute_output_shape(self, shape, *rest):
        return shape


def gpt():
    """Two inputs in a list, of ints and floats, and blocks whose sums are hidden."""
    tokens = keras.Input((LENGTH,), dtype="int32", name="token_ids")
    mask = keras.Input((LENGTH,), name="padding_mask")
    x = layers.Embedding(9, WIDTH, mask_zero=True, name="tokens")(tokens)
    for k in range(3):
        x = TransformerBlock(name=f"block_{k}")(x, mask)
    return keras.Model([tokens, mask], layers.LayerNormalization(name="norm")(x), name="gpt")


SEGMENTS = (np.arange(LENGTH) > 2).astype("int32") * MASK
TEXT = {"token_ids": TOKENS, "segment_ids": SEGMENTS, "padding_mask": MASK}
LABELS = rng.integers(0, CLASSES, ROWS)
TAGS = rng.integers(0, CLASSES, (ROWS, LENGTH))
LIST = [TOKENS, MASK.astype("float32")]
MODELS = {
    # Model, cuts, head, data, labels.
    "bert": (bert, 3, NormHead(CLASSES, pool=None), TEXT, TAGS),
    "unet": (unet, ["b", "d"], LinearHead(CLASSES), IMAGES, LABELS),
    "cells": (cells, 3, LinearHead(CLASSES), IMAGES, LABELS),
    "gpt": (gpt, 3, NormHead(CLASSES, pool=None), LIST, TAGS),
}
SMALL_FIRST = ["cells", *(name for name in MODELS if name != "cells")]
CROSSES = {
    "unet": [[("b", 4, 4, 4), ("a", 8, 8, 4)], [("d", 4, 4, 4), ("a", 8, 8, 4)], [("e", 8, 8, 4)]],
    "cells": [
        [("cell_1", 8, 8, 8), ("narrow_0", 8, 8, 4)],
        [("cell_2", 8, 8, 8), ("narrow_1", 8, 8, 4)],
        [("narrow_3", 8, 8, 4)],
    ],
    "bert": [
        [("last_0", 6, 8), ("expand_dims", 1, 6)],
        [("last_1", 6, 8), ("expand_dims", 1, 6)],
        [("last_2", 6, 8)],
    ],
    "gpt": [
        [("block_0", 6, 8), ("padding_mask", 6)],
        [("block_1", 6, 8), ("padding_mask", 6)],
        [("norm", 6, 8)],
    ],
}
RESIDUALS = {"unet": [0, 0, 0], "cells": [2, 1, 1], "bert": [2, 2, 2], "gpt": [2, 2, 2]}


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*regularises residuals")
        yield


def cut(name, method="trgl", regime="parallel", **options):
    keras.utils.set_random_seed(1)
    make, cuts, head, *_ = MODELS[name]
    model = make()
    with quiet():
        head = type(head).from_config(head.get_config())
        options = {"seed": 0, **options}
        return model, GreedyModel.from_model(
            model, cuts, head, method=method, regime=regime, **options
        )


def compiled(network, rate=0.05):
    network.compile(
        keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return network


def whole(outputs):
    """The output of highest rank."""
    return max(keras.tree.flatten(outputs), key=lambda one: len(one.shape))


@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_models_bit_for_bit(name):
    model, network = cut(name)
    x = keras.tree.map_structure(tf.constant, MODELS[name][3])
    features = x
    for stage in network.stages:
        features = stage(features)
    np.testing.assert_array_equal(features, whole(model(x)))


@pytest.mark.parametrize("name", MODELS)
def test_what_crosses_is_in_the_table_the_main_tensor_first(name):
    with warnings.catch_warnings(), quiet():
        # Two embeddings of two inputs have no way between them, so none is told of as ambiguous.
        warnings.simplefilter("error")
        table = split_model(MODELS[name][0](), MODELS[name][1]).table
    rows = [[(one[0], *one[1][1:]) for one in row.crosses] for row in table]
    assert rows == CROSSES[name]
    sizes = [sum(4 * int(np.prod(one[1:])) for one in row) for row in rows]
    assert [row.bytes for row in table] == sizes
    assert [row.residuals for row in table] == RESIDUALS[name]


class Weighed(keras.losses.Loss):
    """A cross-entropy, multiplied."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, y, prediction):
        entropy = keras.losses.sparse_categorical_crossentropy(y, prediction, from_logits=True)
        return self.factor * entropy


@pytest.mark.parametrize("name", MODELS)
def test_no_gradient_crosses_a_cut(name):
    """Later stages' losses leave earlier stages as they are, whatever the way they cross by."""
    weights = []
    for factors in ([1.0, 1.0, 1.0], [1.0, 8.0, 8.0]):
        _, network = cut(name)
        losses = [Weighed(factor) for factor in factors]
        network.compile(keras.optimizers.SGD(0.05), losses)
        x, y = MODELS[name][3], MODELS[name][4]
        network.train_on_batch(x, y)
        weights.append([one.get_weights() for one in network.stages])
    for one, other in zip(weights[0][0], weights[1][0], strict=True):
        np.testing.assert_array_equal(one, other)
    later = zip(weights[0][1], weights[1][1], strict=True)
    assert any(np.any(one != other) for one, other in later)


REGIMES = {
    "parallel": Parallel(),
    "sequential": Sequential(epochs=1),
    "cached in memory": Sequential(epochs=1, cache=FeatureCache(copies=1)),
    "cached on disk": Sequential(epochs=1, cache=FeatureCache("disk", copies=1)),
    "buffered": Buffered(capacity=1),
    "skewed": Buffered(order="skewed"),
}


@pytest.mark.parametrize("form", ["arrays", "tf.data"])
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", MODELS)
def test_training_at_rate_0_gives_the_losses_of_evaluation(name, regime, form):
    """With the masks that Keras's own losses see, in every way in which features are handed on."""
    _, network = cut(name, "vangl", REGIMES[regime])
    compiled(network, 0.0)
    x, y = MODELS[name][3], MODELS[name][4]
    data = (x, y)
    if form == "tf.data":
        x = tuple(x) if isinstance(x, list) else x
        data = (tf.data.Dataset.from_tensor_slices((x, y)).batch(ROWS),)
    names = {} if form == "tf.data" else {"batch_size": ROWS}
    history = network.fit(*data, epochs=None, shuffle=False, verbose=0, **names).history
    shown = network.evaluate(*data, verbose=0, return_dict=True, **names)
    for k in (1, 2, 3):
        seen = [one for one in history[f"stage_{k}_loss"] if not np.isnan(one)]
        np.testing.assert_allclose(seen, shown[f"stage_{k}_loss"], rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_the_masked_loss_is_that_of_keras(name):
    model, network = cut(name)
    compiled(network)
    x, y = MODELS[name][3], MODELS[name][4]
    head = network.heads[-1]
    rival = keras.Model(model.inputs, head(whole(model.outputs)))
    rival.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    got = network.evaluate(x, y, batch_size=ROWS, verbose=0)
    flat = [TEXT[one.name] for one in model.inputs]
    np.testing.assert_allclose(got, rival.evaluate(flat, y, batch_size=ROWS, verbose=0), rtol=1e-6)
    whole_rows = network.predict(x, verbose=0)
    entropy = -np.take_along_axis(
        whole_rows - np.log(np.exp(whole_rows).sum(-1, keepdims=True)), y[..., None], -1
    )[..., 0]
    # Keras's attention takes the mask off what it is called on, so none is left at the end of BERT.
    counted = MASK if name == "gpt" else np.ones_like(MASK)
    np.testing.assert_allclose(got, (entropy * counted).sum() / counted.sum(), rtol=1e-5)


@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize("regime", ["parallel", "buffered"])
@pytest.mark.parametrize("name", SMALL_FIRST)
def test_schedules_and_parts_train_alike(name, regime, micro_batches):
    weights = []
    for eager in (False, True):
        _, network = cut(name, regime=REGIMES["parallel" if eager else regime])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        parts = 1 if eager else micro_batches
        network.compile(keras.optimizers.SGD(0.05), loss, run_eagerly=eager, micro_batches=parts)
        x, y = MODELS[name][3], MODELS[name][4]
        network.fit(x, y, batch_size=ROWS, epochs=1, shuffle=False, verbose=0)
        weights.append(network.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SMALL_FIRST)
def test_a_trained_network_is_saved_given_back_and_cut_off(name, tmp_path):
    model, network = cut(name)
    compiled(network)
    x, y = MODELS[name][3], MODELS[name][4]
    network.fit(x, y, batch_size=4, epochs=1, verbose=0)
    exits = network.predict_exits(x, verbose=0)
    network.save(tmp_path / "net.keras")
    with quiet():
        again = keras.models.load_model(tmp_path / "net.keras")
    for one, other in zip(exits, again.predict_exits(x, verbose=0), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.cut_table() == network.cut_table()
    assert network.to_keras() is model
    last = network.heads[-1](whole(model(keras.tree.map_structure(tf.constant, x))))
    np.testing.assert_allclose(exits[-1], last, rtol=1e-5, atol=1e-6)
    short = network.truncate(2)
    assert [(one.name, one.dtype) for one in short.inputs] == [
        (one.name, one.dtype) for one in model.inputs
    ]
    np.testing.assert_allclose(short.predict(x, verbose=0), exits[1], rtol=1e-5, atol=1e-6)
    short.save(tmp_path / "short.keras")
    loaded = keras.models.load_model(tmp_path / "short.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), short.predict(x, verbose=0))


@pytest.mark.parametrize("name", SMALL_FIRST)
def test_an_export_serves_named_inputs(name, tmp_path):
    _, network = cut(name, seed=0)
    kind = "logits" if name in ("unet", "cells") else "values"
    report = export_serving(network, tmp_path / "served", outputs=Outputs(kind))
    assert "all_exits" in report.signatures
    loaded = tf.saved_model.load(str(report.path))
    x = MODELS[name][3]
    x = dict(zip(["token_ids", "padding_mask"], x, strict=True)) if isinstance(x, list) else x
    given = x if isinstance(x, dict) else {"inputs": x}
    given = {key: tf.constant(one) for key, one in given.items()}
    for k, wanted in enumerate(network.predict_exits(x, verbose=0), start=1):
        got = loaded.signatures[f"exit_{k}"](**given)[kind]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_data_of_several_inputs_come_in_every_form_that_the_model_takes(name):
    model, network = cut(name)
    x = MODELS[name][3]
    wanted = network.predict(x, verbose=0)
    names = [one.name for one in model.inputs]
    by_name = dict(
        zip(names, [x] if name in ("unet", "cells") else keras.tree.flatten(x), strict=True)
    )
    forms = [by_name, tf.data.Dataset.from_tensor_slices((by_name,)).batch(ROWS)]
    if name == "gpt":
        forms.append(tuple(x))
    for form in forms:
        np.testing.assert_array_equal(network.predict(form, verbose=0), wanted)
    assert network.predict_on_batch(x).shape == wanted.shape


def test_summary_counts_the_bytes_of_all_that_crosses():
    _, network = cut("bert")
    lines = []
    network.summary(batch_size=4, print_fn=lines.append)
    assert "((None, 6, 8), (None, 1, 6))" in "\n".join(lines)
    assert "training takes" in "\n".join(lines)


def test_a_copy_is_trained_where_the_model_is_not_shared():
    model, network = cut("bert", share=False)
    before = model.get_weights()
    compiled(network).fit(TEXT, TAGS, epochs=1, verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert network.to_keras() is not model


def shaped():
    """Ints alone cross after its first layer."""
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Reshape((LENGTH,))(layers.Reshape((LENGTH, 1), name="shaped")(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.Embedding(9, WIDTH)(x)))


def placed():
    with StageParallelStrategy(["CPU:0", "CPU:1"], stage_devices="memory").scope():
        cut("unet", share=False)


NETWORK = functools.cache(lambda name: cut(name)[1])
REFUSED = {
    "a stage that makes nothing": (
        lambda folder: split_model(shaped(), ["shaped"]),
        r"must make numbers that go on. Received: a stage that ends after 'shaped'",
    ),
    "no input of that name": (
        lambda folder: NETWORK("gpt").predict({"token_ids": TOKENS}, verbose=0),
        r"takes 2 inputs: token_ids, padding_mask\. Received: dict of 1, without padding_mask",
    ),
    "another length": (
        lambda folder: NETWORK("gpt").predict([TOKENS[:, :5], LIST[1]], verbose=0),
        r"'token_ids' must have the shape .*Received: \((None|8), 5\)",
    ),
    "settings of one input": (
        lambda folder: export_serving(NETWORK("gpt"), folder, inputs=Inputs(dtype="float32")),
        r"`Inputs` speaks of one input. Received: .* with 2: token_ids, padding_mask",
    ),
    "a file of one input": (
        lambda folder: export_openvino(NETWORK("gpt"), 3, folder / "net.xml"),
        r"another runtime takes a model of one input. Received: one with 2: token_ids",
    ),
    "gradients sent back": (
        lambda folder: compiled(cut("unet", "ddg")[1]),
        r"DDG sends gradients back over cuts that one tensor crosses. Received: .*several",
    ),
    "devices by bytes": (placed, r"weighed for devices where one tensor .*'memory'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(case, tmp_path):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make() if case == "devices by bytes" else make(tmp_path)


def test_stages_on_two_devices_train_as_on_one():
    weights = []
    for devices in ((), ("CPU:0", "CPU:1")):
        scope = StageParallelStrategy(list(devices)).scope() if devices else quiet()
        with scope:
            _, network = cut("unet", "vangl", share=False)
            compiled(network)
        network.fit(IMAGES, LABELS, batch_size=4, epochs=1, shuffle=False, verbose=0)
        weights.append(network.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_data_that_lack_an_input_are_refused():
    _, network = cut("bert")
    with pytest.raises(
        ValueError,
        match=r"takes 3 inputs: padding_mask, segment_ids, token_ids.*wi"
        r"thout padding_mask\. Give a dict",
    ):
        network.predict({key: TEXT[key] for key in ("token_ids", "segment_ids")}, verbose=0)
    with pytest.raises(ValueError, match=r"'token_ids' must have the shape .*Received: \(8, 5\)"):
        network.predict({**TEXT, "token_ids": TOKENS[:, :5]}, verbose=0)


@pytest.mark.parametrize("name", ["cells", "unet"])
def test_diagnostics_look_at_the_main_tensor(name):
    _, network = cut(name)
    rows = np.concatenate([IMAGES] * 2), np.arange(2 * ROWS) % CLASSES
    found = diagnostics.calibration(network, rows).columns["accuracy"]
    for accuracy, outputs in zip(found, network.predict_exits(rows[0], verbose=0), strict=True):
        assert accuracy == pytest.approx((outputs.argmax(-1) == rows[1]).mean())
    assert np.isfinite(list(diagnostics.similarity(network, rows[0]).columns.values())).all()
