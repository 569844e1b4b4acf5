"""Heads: published parameter counts, shapes, refusals."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.heads import (
    BlocksHead,
    ConvHead,
    DenseHead,
    DGLHead,
    InfoProHead,
    LinearHead,
    NormHead,
    SedonaHead,
)
from keras_trgl.layers import ResidualBlock


def parameters(head, shape):
    head.build(shape)
    return sum(math.prod(v.shape) for v in head.trainable_variables)


@pytest.mark.parametrize(
    ("shape", "pool", "units", "count"),
    [
        ((None, 96, 96, 16), 16, 10, 8106),
        ((None, 48, 48, 32), 16, 10, 12170),
        ((None, 24, 24, 64), 8, 10, 42762),
        ((None, 32, 32, 256), 16, 200, 795336),
        ((None, 16, 16, 512), 8, 200, 2770120),
    ],
)
def test_conv_head_has_the_published_parameters_and_default_pool(shape, pool, units, count):
    assert parameters(ConvHead(units, pool=pool), shape) == count
    assert parameters(ConvHead(units), shape) == count


def test_conv_head_is_conv_relu_pool_norm_dense():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 4, 2)).astype("float32")
    head = ConvHead(5, pool=2)
    head.build(x.shape)
    conv, _, _, norm, _, dense = head.layers_in_a_row
    norm.moving_mean.assign(rng.normal(size=2))
    y = np.maximum(np.asarray(conv(x)), 0).reshape(3, 2, 2, 2, 2, 2).mean((2, 4))
    y = (y - norm.moving_mean.numpy()) / np.sqrt(1 + 1e-5)
    wanted = y.reshape(3, -1) @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(head(x, training=False), wanted, atol=1e-6)


def test_conv_head_starts_orthogonal_in_the_dense_layer_too():
    head = ConvHead(10, pool=8, seed=0)
    head.build((None, 24, 24, 64))
    assert np.sum(head.layers_in_a_row[-1].kernel.numpy() ** 2) == pytest.approx(0.1, rel=1e-5)


def test_a_pool_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="`pool` must divide the sides"):
        ConvHead(10, pool=3).build((None, 8, 8, 4))


def test_conv_head_on_vectors_points_to_the_linear_head():
    with pytest.raises(ValueError, match="Use `LinearHead` for other features"):
        ConvHead(10).build((None, 8))


@pytest.mark.parametrize("shape", [(2, 7), (2, 5, 7), (2, 4, 5, 7), (2, 3, 4, 5, 7)])
def test_linear_head_takes_features_of_any_rank(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    head = LinearHead(3)
    out = head(x)
    pooled = x.reshape(2, -1, 7).mean(1)
    wanted = pooled @ head.layers_in_a_row[-1].kernel.numpy()
    np.testing.assert_allclose(out, wanted, atol=1e-6)


def test_linear_head_refuses_features_without_channels():
    with pytest.raises(ValueError, match="rank 2 to 5"):
        LinearHead(3).build((None,))


@pytest.mark.parametrize("units", [0, -1])
def test_units_below_one_are_refused(units):
    with pytest.raises(ValueError, match="`units` must be at least 1"):
        LinearHead(units)


@pytest.mark.parametrize("head", [LinearHead(3), ConvHead(3, pool=2, weight_decay=1e-4, seed=3)])
def test_a_head_makes_itself_again_from_its_configuration(head):
    assert type(head).from_config(head.get_config()).get_config() == head.get_config()


def test_weight_decay_reaches_every_parameter():
    head = ConvHead(3, weight_decay=2e-4)
    head.build((None, 8, 8, 4))
    squares = sum(float(np.sum(np.square(v.numpy()))) for v in head.trainable_variables)
    assert sum(map(float, head.losses)) == pytest.approx(1e-4 * squares, rel=1e-5)


# methods.md 5: (channels, side) and parameters of ten classes, in the order of the kinds.
DGL = [
    (16, 32, [14378, 13514, 5354]),
    (32, 16, [54858, 51594, 19914]),
    (64, 8, [214154, 201482, 76682]),
    (256, 8, [3363338, 3165194, 1191434]),
    (512, 4, [13411338, 12621834, 4742154]),
]


@pytest.mark.parametrize(("channels", "side", "counts"), DGL)
def test_dgl_heads_have_the_published_parameters(channels, side, counts):
    shape = (None, side, side, channels)
    with keras.StatelessScope(initialize_variables=False):
        found = [parameters(DGLHead(10, kind), shape) for kind in ("mlp-sr", "mlp", "cnn")]
    assert found == counts


@pytest.mark.parametrize(
    ("channels", "ten", "hundred", "contrast"),
    [(16, 10186, 21796, 25408), (32, 28170, 39780, 43392), (64, 46602, 58212, 61824)],
)
def test_infopro_heads_have_the_published_parameters(channels, ten, hundred, contrast):
    shape = (None, 8, 8, channels)
    found = [parameters(InfoProHead(units), shape) for units in (10, 100, 128)]
    assert found == [ten, hundred, contrast]


SEDONA = [
    (256, 32, [562184, 598408, 708424, 787336]),
    (512, 16, [743240, 881224, 1183176, 1488456]),
    (1024, 8, [1203656, 1741768, 2673352, 3873736]),
]


@pytest.mark.parametrize(("channels", "side", "counts"), SEDONA)
def test_sedona_heads_have_the_published_parameters(channels, side, counts):
    shape = (None, side, side, channels)
    with keras.StatelessScope(initialize_variables=False):
        found = [parameters(SedonaHead(200, depth), shape) for depth in (1, 2, 3, 4)]
    assert found == counts


def test_vgg_classifier_has_the_published_parameters():
    with keras.StatelessScope(initialize_variables=False):
        assert parameters(DenseHead(200, pool=2), (None, 4, 4, 512)) == 25993416


@pytest.mark.parametrize("kind", ["mlp-sr", "mlp", "cnn"])
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (4, 4), (5, 3), (1, 6), (12, 7), (32, 32)])
def test_dgl_heads_take_images_of_any_size_in_a_graph(kind, sides):
    x = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype("float32")
    head = DGLHead(5, kind)
    wanted = head(x)
    spec = tf.TensorSpec((None, *sides, 3))
    found = tf.function(lambda x: head(x), input_signature=[spec])(x)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def adaptive(x, wanted):
    """Average pooling to a size, window by window."""
    height, width = x.shape[1:3]
    out = np.zeros((len(x), *wanted, x.shape[-1]))
    for i, j in np.ndindex(*wanted):
        rows = slice(i * height // wanted[0], -(-(i + 1) * height // wanted[0]))
        columns = slice(j * width // wanted[1], -(-(j + 1) * width // wanted[1]))
        out[:, i, j] = x[:, rows, columns].mean((1, 2))
    return out


@pytest.mark.parametrize("sides", [(10, 10), (1, 7), (5, 3), (1, 1), (3, 8), (16, 7), (2, 9)])
def test_dgl_pools_to_a_quarter_and_then_to_two_positions(sides):
    x = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype("float32")
    head = DGLHead(5, "mlp")
    head.build(x.shape)
    y = x
    for one in head.layers_in_a_row:
        if isinstance(one, keras.layers.Flatten):
            break
        y = one(y)
    quarter = adaptive(x, [-(-side // 4) for side in sides])
    np.testing.assert_allclose(y, adaptive(quarter, (2, 2)), atol=1e-6)


def test_sums_inside_a_sedona_head_are_where_shapes_agree():
    head = SedonaHead(5, depth=4, width=8)
    head.build((None, 16, 16, 16))
    sums = [one for one in head.layers_in_a_row if isinstance(one, ResidualBlock)]
    assert [one.branch[-1].gamma.shape for one in sums] == [(4,), (6,)]


def test_small_features_are_not_halved_to_nothing():
    out = SedonaHead(5, depth=4, width=8)(np.ones((2, 2, 2, 16), "float32"))
    assert tuple(out.shape) == (2, 5)


def test_norm_head_is_normalization_mean_dense():
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 6)).astype("float32")
    head = NormHead(5)
    head.build(x.shape)
    norm, _, dense = head.layers_in_a_row
    norm.gamma.assign(np.arange(6.0))
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    y = (y * np.arange(6.0) + norm.beta.numpy()).mean((1, 2))
    wanted = y @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(head(x), wanted, atol=1e-5)
    flat = NormHead(5)
    flat.build((None, 16, 6))
    flat.set_weights(head.get_weights())
    np.testing.assert_allclose(flat(x.reshape(3, 16, 6)), wanted, atol=1e-5)


def test_norm_head_of_the_first_position_reads_nothing_else():
    x = np.random.default_rng(0).normal(size=(3, 7, 6)).astype("float32")
    head, other = NormHead(5, "first"), x.copy()
    other[:, 1:] = 0
    np.testing.assert_array_equal(head(x), head(other))


def test_dense_head_is_pool_flat_dense():
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype("float32")
    head = DenseHead(5, hidden=(7,), pool=2, activation="sigmoid")
    head.build(x.shape)
    first, last = (one for one in head.layers_in_a_row if isinstance(one, keras.layers.Dense))
    y = x.reshape(3, 2, 2, 2, 2, 2).max((2, 4)).reshape(3, -1)
    y = 1 / (1 + np.exp(-(y @ first.kernel.numpy() + first.bias.numpy())))
    wanted = y @ last.kernel.numpy() + last.bias.numpy()
    np.testing.assert_allclose(head(x, training=False), wanted, atol=1e-5)
    flat = DenseHead(5, hidden=())
    flat.build((None, 6))
    assert [type(one).__name__ for one in flat.layers_in_a_row] == ["Flatten", "Dense"]


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: NormHead(3, "max"), None, "`pool` must be one of 'mean', 'first'"),
        (lambda: NormHead(3), (None, 8), "takes features of rank 3 or 4"),
        (lambda: NormHead(3, None, data_format="channels_first"), (None, 8, 4, 4), "channels last"),
        (lambda: NormHead(3, "first"), (None, 4, 4, 8), "a sequence of known length"),
        (lambda: NormHead(3, "first"), (None, None, 8), "a sequence of known length"),
        (lambda: DenseHead(3, dropout=1.0), None, "`dropout` must be at least 0 and below 1"),
        (lambda: DenseHead(3, hidden=(0,)), None, "`hidden` must be at least 1"),
        (lambda: DenseHead(3, pool=2), (None, 8), "pools images alone"),
        (lambda: DenseHead(3), (None, None, 8), "features of known sides"),
        (lambda: DGLHead(3, "lstm"), None, "`kind` must be one of 'mlp-sr', 'mlp', 'cnn'"),
        (lambda: DGLHead(3), (None, 8), "`DGLHead` takes features .* Use `LinearHead`"),
        (lambda: InfoProHead(3, dense=0), None, "`dense` must be at least 1"),
        (lambda: SedonaHead(3), (None, 4, 4, 3), "at least 4 channels"),
        (lambda: SedonaHead(3, depth=0), None, "`depth` must be at least 1"),
    ],
)
def test_what_does_not_fit_a_head_is_refused(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make().build(shape)


def test_hidden_layers_that_are_no_list_are_refused():
    with pytest.raises(TypeError, match="`hidden` must be a list of ints"):
        DenseHead(3, hidden=8)


@pytest.mark.parametrize("shape", [(2, 5, 8), (2, 3, 4, 8)])
def test_norm_head_without_a_pool_predicts_at_every_position(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    head, pooled = NormHead(3, pool=None), NormHead(3)
    found = head(x)
    assert found.shape == head.compute_output_shape(shape) == (*shape[:-1], 3)
    pooled(x)
    pooled.set_weights(head.get_weights())
    axes = tuple(range(1, len(shape) - 1))
    np.testing.assert_allclose(np.mean(found, axes), pooled(x), atol=1e-6)


@pytest.mark.parametrize("head", [LinearHead, NormHead, lambda units: BlocksHead(units, blocks=[])])
def test_a_sequence_is_averaged_over_its_steps_whatever_the_format_of_images(head):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        one = head(3)
        one.build((None, 7, 5))
        assert one.layers_in_a_row[-1].kernel.shape == (5, 3)
    finally:
        keras.config.set_image_data_format(before)
