"""Masks cross every cut, in every way in which stages get what the stage before gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.export import export_serving
from keras_trgl.layers.masks import makes_masks
from keras_trgl.regimes import Buffered, MultiLap, Parallel, Sequential
from keras_trgl.regimes.feature_cache import FeatureCache

pytestmark = pytest.mark.sampled(1)

CLASSES = 3
rng = np.random.default_rng(0)
TOKENS = rng.integers(1, 9, (32, 6)) * (np.arange(6) < rng.integers(1, 7, (32, 1)))
PADDED = rng.normal(size=(32, 6, 4)).astype("float32") * (TOKENS > 0)[..., None]
LABELS = rng.integers(0, CLASSES, 32)


@keras.saving.register_keras_serializable("test_masks")
class Own(keras.layers.Layer):
    """Make a mask of its own, at a place where there was none."""

    def call(self, x):
        return x * 1.0

    def compute_mask(self, x, mask=None):
        return keras.ops.any(x > 0, axis=-1)


class Pooled(keras.layers.Layer):
    """Predict from the mean over the steps that the mask lets through."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.supports_masking = True
        self.pool = keras.layers.GlobalAveragePooling1D()
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(self.pool(x))

    def compute_mask(self, x, mask=None):
        return None

    def compute_output_shape(self, shape):
        return (shape[0], self.units)


class Attention(keras.layers.Layer):
    """Attend to what the mask shows, as Keras's layer does, which takes its input's mask off."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.inner = keras.layers.MultiHeadAttention(2, 2)

    def build(self, shape):
        self.inner.build(shape, shape)

    def call(self, x):
        return self.inner(x, x)

    def compute_output_shape(self, shape):
        return shape


def attends(kind):
    """A residual block of the package, or the same of Keras's `Add`."""
    return trgl.layers.ResidualBlock([keras.layers.LayerNormalization(), kind()])


def blocks(name):
    layers = keras.layers
    if name == "embedding":
        first = layers.Embedding(9, 4, mask_zero=True)
    else:
        first = layers.Masking() if name == "masking" else Own()
    return [[first], [layers.GRU(4, return_sequences=True)], [layers.GRU(5, return_sequences=True)]]


DATA = {"embedding": TOKENS, "masking": PADDED, "own": PADDED}
REGIMES = {
    "parallel": Parallel(),
    "sequential": Sequential(epochs=1),
    "sequential, cached in memory": Sequential(epochs=1, cache=FeatureCache(copies=1)),
    "sequential, cached on disk": Sequential(epochs=1, cache=FeatureCache("disk", copies=1)),
    "in laps, cached": MultiLap(epochs=2, num_laps=2, cache=FeatureCache(copies=1)),
    "round robin": Buffered(capacity=1),
    "two in store": Buffered(capacity=2, max_reuse=2),
    "random": Buffered(order="random"),
    "skewed": Buffered(order="skewed"),
}


def network(name, regime="parallel"):
    model = trgl.GreedyModel(
        blocks(name), [Pooled(CLASSES) for _ in range(3)], "vangl", regime, seed=0
    )
    model.build((None, *DATA[name].shape[1:]))
    return model


def shown(model, x):
    return model.evaluate(x, LABELS, batch_size=8, verbose=0, return_dict=True)


@pytest.mark.parametrize("form", ["arrays", "tf.data"])
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", ["embedding", "own"])
def test_training_sees_the_masks_that_evaluation_sees(name, regime, form):
    """At rate 0 the two give the same losses, whatever the padding holds."""
    model, x = network(name, REGIMES[regime]), DATA[name]
    model.compile(
        keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    data = (x, LABELS)
    if form == "tf.data":
        data = (tf.data.Dataset.from_tensor_slices(data).batch(8),)
    options = {"batch_size": 8, "shuffle": False} if form == "arrays" else {}
    history = model.fit(*data, epochs=None, verbose=0, **options)
    wanted = shown(model, x)
    for stage in range(1, 4):
        losses = [one for one in history.history[f"stage_{stage}_loss"] if np.isfinite(one)]
        got = losses[-1]
        if "random" in regime or "two" in regime:
            assert np.isfinite(got)
            continue
        np.testing.assert_allclose(got, wanted[f"stage_{stage}_loss"], rtol=1e-5)


@pytest.mark.parametrize("name", DATA)
def test_every_way_to_predict_sees_the_masks(name, tmp_path):
    model, x = network(name), DATA[name]
    layers = [layer for stage in blocks(name) for layer in stage]
    plain = keras.Sequential([*layers, Pooled(CLASSES)])
    plain.build((None, *x.shape[1:]))
    plain.set_weights([w for part in [*model.stages, model.heads[-1]] for w in part.get_weights()])
    wanted = plain.predict(x, verbose=0)
    exits = model.predict_exits(x, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=1e-6)
    np.testing.assert_allclose(exits[-1], wanted, rtol=1e-6)
    for depth in range(1, 4):
        got = model.truncate(depth).predict(x, verbose=0)
        np.testing.assert_allclose(got, exits[depth - 1], rtol=1e-6)
    report = export_serving(model, tmp_path / "net")
    served = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    given = tf.constant(x, served.structured_input_signature[1]["inputs"].dtype)
    found = [v for v in served(inputs=given).values() if v.shape[-1:] == (CLASSES,)]
    assert found
    assert any(
        np.allclose(v, keras.ops.softmax(wanted), rtol=1e-4) or np.allclose(v, wanted, rtol=1e-4)
        for v in found
    )


@pytest.mark.parametrize("kind", [Attention, lambda: trgl.layers.SelfAttention(2)])
def test_residual_blocks_hand_masks_on_as_sums_of_keras_do(kind):
    """What is padded changes nothing of what is predicted, through two blocks and a head."""
    first = [keras.layers.Embedding(9, 4, mask_zero=True), trgl.layers.PositionEmbedding()]
    rows = [[*first, attends(kind)], [attends(kind)]]
    model = trgl.GreedyModel(rows, [Pooled(CLASSES) for _ in rows], seed=0)
    long = np.pad(TOKENS[:, :3], [(0, 0), (0, 3)])
    long[:, 0] = 1
    model.build((None, 6))
    wanted = plain_twin(model).predict(long, verbose=0)
    np.testing.assert_allclose(model.predict(long, verbose=0), wanted, rtol=1e-5)
    moved = np.where(long == 0, 5, long)
    assert np.abs(model.predict(moved, verbose=0) - wanted).max() > 1e-4
    for depth, got in enumerate(model.predict_exits(long, verbose=0), start=1):
        np.testing.assert_allclose(model.truncate(depth).predict(long, verbose=0), got, rtol=1e-5)


def plain_twin(model):
    """The same network of Keras's own `Add`, with the same weights."""
    layers = keras.layers
    given = keras.Input((6,), dtype="int64")
    x = given
    for block in (block for stage in model.stages for block in stage.blocks):
        if isinstance(block, trgl.layers.ResidualBlock):
            normalization, attention = block.branch
            x = layers.Add()([x, attention(normalization(x))])
        else:
            x = block(x)
    return keras.Model(given, model.heads[-1](x))


@pytest.mark.parametrize(
    ("make", "makes"),
    [
        (lambda: trgl.layers.ResidualBlock([keras.layers.Dense(4)]), False),
        (lambda: Pooled(CLASSES), True),
        (lambda: trgl.heads.LinearHead(CLASSES), False),
        (lambda: trgl.layers.Stage([keras.layers.Dense(4)]), False),
        (lambda: keras.layers.Embedding(9, 4, mask_zero=True), True),
        (lambda: keras.layers.Masking(), True),
        (Own, True),
    ],
)
def test_layers_that_hand_masks_on_make_none(make, makes):
    """Stores trace their stages, and parts are counted, only where a mask may come up."""
    assert makes_masks([make()]) == makes
