"""Heads: published parameter counts, shapes, refusals."""

import math

import numpy as np
import pytest

from keras_trgl.heads import ConvHead, DGLConvHead, DGLMLPHead, DGLMLPSRHead, LinearHead


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


@pytest.mark.parametrize(
    ("kind", "shape", "units", "count"),
    [
        (DGLMLPSRHead, (None, 32, 32, 16), 10, 14378),
        (DGLMLPHead, (None, 32, 32, 16), 10, 13514),
        (DGLConvHead, (None, 32, 32, 16), 10, 5354),
        (DGLMLPSRHead, (None, 8, 8, 64), 10, 214154),
        (DGLMLPHead, (None, 8, 8, 64), 10, 201482),
        (DGLConvHead, (None, 8, 8, 64), 10, 76682),
        (DGLMLPSRHead, (None, 7, 8, 256), 10, 3363338),
        # A quarter of one pixel: c hidden units, not 4c.
        (DGLMLPHead, (None, 4, 4, 8), 10, 3 * (8 * 8 + 8 + 16) + 90),
    ],
)
def test_heads_of_dgl_have_the_published_parameters(kind, shape, units, count):
    assert parameters(kind(units), shape) == count


@pytest.mark.parametrize("kind", [DGLConvHead, DGLMLPHead, DGLMLPSRHead])
@pytest.mark.parametrize("shape", [(None, 8), (None, None, 8, 4)])
def test_heads_of_dgl_take_images_of_known_size_alone(kind, shape):
    with pytest.raises(ValueError, match=f"`{kind.__name__}` takes features .*of known size"):
        kind(10).build(shape)


def test_a_side_that_no_quarter_divides_is_pooled_as_published():
    # Windows of an adaptive pool from 5 to 2: rows 0 to 2, and 2 to 4.
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    head = DGLMLPHead(2, hidden_layers=0)
    head.build(x.shape)
    flat = np.stack([x[:, :3].mean((1, 2)), x[:, 2:].mean((1, 2))], 1).reshape(2, -1)
    dense = head.layers_in_a_row[-1]
    np.testing.assert_allclose(head(x), flat @ dense.kernel.numpy() + dense.bias.numpy(), atol=1e-6)
