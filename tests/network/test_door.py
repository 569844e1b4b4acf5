"""Data at the door: every call takes the same forms, and gives the same numbers."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.export import Calibration, Inputs, choose_exit, export_serving
from keras_trgl.heads import LinearHead
from keras_trgl.network.door import input_type
from keras_trgl.regimes import Sequential
from keras_trgl.regimes.feature_cache import FeatureCache

pytestmark = pytest.mark.sampled(2)

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.integers(0, 3, 24)
IDS = np.array([16777216, 16777217, 16777218] * 8, "int64")[:, None]
L = keras.layers


def dense(shape=(6,), units=3, loss=LOSS, **kwargs):
    blocks = [[L.Dense(6, activation="relu")], [L.Dense(6, activation="relu")]]
    model = GreedyModel(blocks, [LinearHead(units), LinearHead(units)], "vangl", seed=0)
    if shape is not None:
        model.build((None, *shape))
    model.compile(keras.optimizers.SGD(0.1), loss, **kwargs)
    return model


def of(*first):
    heads = [LinearHead(3), LinearHead(3)]
    model = GreedyModel([list(first), [L.Dense(4)]], heads, "vangl", seed=0)
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    return model


def images():
    return of(L.Conv2D(4, 3), L.BatchNormalization())


def functional(dtype, *layers):
    given = x = keras.Input((1,), dtype=dtype, name="given")
    for layer in layers:
        x = layer(x)
    model = GreedyModel.from_model(
        keras.Model(given, L.Dense(4)(x)), 1, LinearHead(3), method="vangl", seed=0
    )
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    return model


PIXELS = RNG.integers(0, 255, (24, 8, 8, 1))
FORMS = {
    "bytes": (images, PIXELS.astype("uint8")),
    "int64_pixels": (images, PIXELS.astype("int64")),
    "bool": (dense, X > 0),
    "float64": (dense, X.astype("float64")),
    "float16": (dense, X.astype("float16")),
    "list_of_one": (dense, [X]),
    "tuple_of_one": (dense, (X,)),
    "dict_of_one": (dense, {"image": X}),
    "rank_1": (lambda: dense(shape=None), X[:, 0]),
    "rank_1_of_a_built_model": (lambda: dense(shape=(1,)), X[:, 0]),
    "large_ids": (
        lambda: of(L.IntegerLookup(vocabulary=IDS[:3, 0]), L.Embedding(5, 4), L.Flatten()),
        IDS,
    ),
    "tokens": (lambda: of(L.Embedding(9, 4), L.Flatten()), RNG.integers(0, 9, (24, 5))),
    "tokens_as_int32": (
        lambda: of(L.Embedding(9, 4), L.Flatten()),
        RNG.integers(0, 9, (24, 5), "int32"),
    ),
    "hashed": (lambda: of(L.Hashing(9), L.Embedding(9, 4), L.Flatten()), IDS),
    "in_a_sequential": (
        lambda: of(
            keras.Sequential([L.IntegerLookup(vocabulary=IDS[:3, 0]), L.Embedding(5, 4)]),
            L.Flatten(),
        ),
        IDS,
    ),
    "declared_int64": (
        lambda: functional(
            "int64", L.IntegerLookup(vocabulary=IDS[:3, 0]), L.Embedding(5, 4), L.Flatten()
        ),
        IDS,
    ),
}


def the_array(x):
    return keras.tree.flatten(x)[0]


@pytest.mark.parametrize("name", FORMS)
def test_every_call_takes_a_form_and_gives_the_same_numbers(name):
    make, x = FORMS[name]
    keras.utils.set_random_seed(0)
    model = make()
    trained = model.fit(x, Y, epochs=1, batch_size=24, shuffle=False, verbose=0).history
    model.evaluate(x, Y, verbose=0)
    full = model.predict(x, verbose=0)
    exits = model.predict_exits(x, verbose=0)
    np.testing.assert_allclose(exits[-1], full, atol=1e-5)
    cut = model.truncate(model.num_stages)
    np.testing.assert_allclose(cut.predict(the_array(x), verbose=0), full, atol=1e-5)
    pipeline = tf.data.Dataset.from_tensor_slices((the_array(x), Y)).batch(24)
    keras.utils.set_random_seed(0)
    again = make().fit(pipeline, verbose=0).history
    np.testing.assert_allclose(again["loss"], trained["loss"], rtol=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_exports_take_what_the_model_takes(name, tmp_path):
    make, x = FORMS[name]
    model = make()
    model.fit(x, Y, batch_size=24, verbose=0)
    full, rows = model.predict(x, verbose=0), the_array(x)
    report = export_serving(model, tmp_path / "net")
    served = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    spec = served.structured_input_signature[1]["inputs"]
    if rows.ndim < spec.shape.rank:
        rows = rows[..., None]
    np.testing.assert_allclose(served(inputs=tf.cast(rows, spec.dtype))["logits"], full, atol=1e-5)
    choice = choose_exit(model, (x, Y), max_drop=1.0, calibration=Calibration(per_exit=False))
    assert choice.accuracy[-1] == np.mean(full.argmax(-1) == Y)


@pytest.mark.parametrize("name", FORMS)
def test_cached_features_come_through_the_same_door(name):
    make, x = FORMS[name]
    losses = []
    for cache in (None, FeatureCache(copies=1)):
        keras.utils.set_random_seed(0)
        model = make()
        if model.num_stages < 2:
            return
        trained = GreedyModel(
            [keras.models.clone_model(model).stages[k].blocks for k in range(2)],
            [LinearHead(3), LinearHead(3)],
            "vangl",
            Sequential(epochs=1, cache=cache),
            seed=0,
        )
        trained.compile(keras.optimizers.SGD(0.1), LOSS)
        losses.append(trained.fit(x, Y, epochs=2, batch_size=24, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_text_is_served_as_text(tmp_path):
    texts = np.array([["a b"], ["c"], ["d a"], ["b b"]] * 6)
    reads = L.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=3)
    model = of(reads, L.Embedding(6, 4, mask_zero=True), L.GlobalAveragePooling1D())
    model.fit(texts, Y, verbose=0)
    report = export_serving(model, tmp_path / "net")
    served = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    got = served(inputs=tf.constant(texts))["logits"]
    np.testing.assert_allclose(got, model.predict(tf.constant(texts), verbose=0), atol=1e-5)
    with pytest.raises(ValueError, match=r"takes string\. Received: float32"):
        export_serving(model, tmp_path / "other", inputs=Inputs("float32"))


@pytest.mark.parametrize("source", ["arrays", "pipeline"])
def test_a_dict_names_the_input_of_what_is_cut_off(source):
    model = dense()
    data = ({"image": X}, Y)
    if source == "arrays":
        model.fit(*data, verbose=0)
    else:
        rows = tf.data.Dataset.from_tensor_slices(data).batch(8)
        model.fit(rows, verbose=0)
        assert len(model.predict_exits(rows.map(lambda x, y: x), verbose=0)) == 2
    assert model.truncate(1).input_names == ["image"]


@pytest.mark.parametrize(
    ("blocks", "kind"),
    [
        ([L.Dense(3)], None),
        ([L.Rescaling(1 / 255), L.Conv2D(3, 3)], None),
        ([L.Embedding(3, 4)], "int64"),
        ([L.Flatten(), L.Embedding(3, 4)], "int64"),
        ([L.Dense(3), L.Embedding(3, 4)], None),
        ([keras.Sequential([L.Embedding(3, 4)])], "int64"),
        ([L.StringLookup(vocabulary=["a"])], "string"),
        ([L.CategoryEncoding(3)], "int64"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else "",
)
def test_the_type_of_data_is_that_of_what_sees_them_first(blocks, kind):
    assert input_type(blocks) == kind


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y))


LABELS = {
    "bytes": (Y.astype("uint8"), 3),
    "bytes_with_256_units": (Y.astype("uint8"), 256),
    "int8_with_200_units": (Y.astype("int8"), 200),
    "int16": (Y.astype("int16"), 3),
    "uint32": (Y.astype("uint32"), 3),
    "bool": (Y > 0, 3),
    "float": (Y.astype("float32"), 3),
    "column": (Y[:, None], 3),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_any_number_type_are_the_same_labels(name):
    y, units = LABELS[name]
    plain = y.astype("int64")
    losses = [
        dense(units=units).fit(dataset(X, labels).batch(8), verbose=0).history["loss"]
        for labels in (y, plain)
    ]
    assert losses[0] == losses[1]
    dense(units=units).fit(X, y, verbose=0)


@pytest.mark.parametrize("as_rows", [False, True], ids=["arrays", "pipeline"])
@pytest.mark.parametrize("weights", [{0: 1.0, 1: 2.0}, {2: 0.5}])
def test_a_class_without_a_weight_weighs_1(weights, as_rows):
    full = {k: weights.get(k, 1.0) for k in range(3)}
    data = (dataset(X, Y).batch(8),) if as_rows else (X, Y)
    found = [
        dense().fit(*data, class_weight=one, shuffle=False, verbose=0).history["loss"]
        for one in (weights, full)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("as_rows", [False, True], ids=["arrays", "pipeline"])
def test_an_ignored_class_is_left_out_and_others_out_of_range_are_told(as_rows):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    y = np.where(np.arange(24) % 4, Y, -1)
    model = dense(loss=loss)
    data = (dataset(X, y).batch(8),) if as_rows else (X, y)
    model.fit(*data, verbose=0)
    value = model.evaluate(*((dataset(X, y).batch(24),) if as_rows else data), verbose=0)
    kept = y >= 0
    assert value == pytest.approx(float(LOSS(y[kept], model.predict(X, verbose=0)[kept])), abs=1e-5)
    wrong = np.where(y < 0, -2, y)
    data = (dataset(X, wrong).batch(8),) if as_rows else (X, wrong)
    with pytest.raises(ValueError, match=r"(must be|indices) 0 to 2.*Received: .*-2"):
        model.fit(*data, verbose=0)


SENTENCES = {
    "text_labels": (
        lambda: (dense(), X, np.array(["cat", "dog", "cow"])[Y]),
        "Labels must be numbers. Received: labels of text",
    ),
    "text_labels_in_a_pipeline": (
        lambda: (dense(), dataset(X, np.array(["cat", "dog", "cow"])[Y]).batch(8), None),
        "Labels must be numbers. Received: labels of text",
    ),
    "dict_labels": (
        lambda: (dense(), X, {"kind": Y, "age": Y}),
        "Labels must be one array.*Received: a dict with the labels 'kind', 'age'",
    ),
    "unbatched": (
        lambda: (dense(), dataset(X, Y), None),
        r"Data must come in batches. Received: labels without a batch axis. Call `dataset.batch",
    ),
    "unbatched_and_unbuilt": (
        lambda: (dense(shape=None), dataset(X, Y), None),
        "Data must come in batches",
    ),
    "no_labels": (
        lambda: (dense(), X, None),
        "A stage learns from labels. Received: data without `y`",
    ),
    "one_hot": (
        lambda: (dense(), X, np.eye(3)[Y]),
        r"A sparse loss takes class indices.*Received: one-hot labels.*CategoricalCrossentropy",
    ),
    "several_inputs": (
        lambda: (dense(), {"a": X, "b": X}, Y),
        "A network takes one input. Received: dict of 2",
    ),
    "text_data": (lambda: (dense(), np.array(["a"] * 24)[:, None], Y), "Data must be numbers"),
    "another_number_of_features": (
        lambda: (dense(), X[:, :5], Y),
        r"as many channels as the network was built for, 6. Received: \(.*5\)",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_cannot_be_learned_gets_one_sentence(name):
    make, said = SENTENCES[name]
    model, x, y = make()
    with pytest.raises(ValueError, match=said) as told:
        model.fit(x, y, verbose=0)
    assert len(str(told.value).splitlines()) <= 5


@pytest.mark.parametrize("built", [True, False])
def test_images_without_channels_get_one_sentence(built):
    model = images()
    if built:
        model.build((None, 8, 8, 1))
    for call in (lambda x: model.fit(x, Y, verbose=0), lambda x: model.predict(x, verbose=0)):
        with pytest.raises(ValueError, match=r"Give images their channels: `x\[..., None\]`"):
            call(PIXELS[..., 0].astype("float32"))


def test_ragged_and_sparse_data_get_one_sentence():
    ragged = tf.ragged.constant([[1.0], [1.0, 2.0]])
    sparse = tf.sparse.from_dense(X[:2])
    for x, kind in ((ragged, "RaggedTensor"), (sparse, "SparseTensor")):
        with pytest.raises(ValueError, match=f"Data must be dense. Received: a {kind}"):
            dense()._network.door.take(x, (None, 6))


def test_images_of_another_size_are_told_of_once():
    model = images()
    model.build((None, 8, 8, 1))
    with pytest.warns(UserWarning, match=r"built for images of \(8, 8, 1\). Received: \(9, 9, 1\)"):
        model(np.zeros((2, 9, 9, 1), "float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(np.zeros((2, 9, 9, 1), "float32"))
