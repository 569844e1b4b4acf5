"""Architectures against the published parameter counts."""

import math

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.architectures import blockwise_resnet, resnet
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.splitting import published


def trainable(*layers):
    return sum(math.prod(v.shape) for layer in layers for v in layer.trainable_variables)


def built(blocks, shape):
    shape = (None, *shape)
    for block in blocks:
        block.build(shape)
        shape = block.compute_output_shape(shape)
    return blocks


@pytest.mark.parametrize(
    ("depth", "shortcut", "count"),
    [
        (20, "pad", 269072),
        (20, "conv", 271824),
        (32, "pad", 463504),
        (32, "conv", 466256),
        (56, "pad", 852368),
        (110, "pad", 1727312),
    ],
)
def test_backbones_have_the_published_number_of_parameters(depth, shortcut, count):
    blocks = resnet(depth, (32, 32, 3), shortcut=shortcut)
    assert trainable(*built(blocks, (32, 32, 3))) == count


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("sizes", "stages", "total"),
    [
        ([14, 14, 13, 13], [65872, 199680, 499968, 961792], 1833112),
        (published("trgl_resnet110_balanced", 4), [28496, 37376, 162560, 1498880], 1798456),
        ([27, 27], [246992, 1480320], 1782244),
    ],
)
def test_stages_of_resnet_110_on_stl10_have_the_published_parameters(sizes, stages, total):
    model = GreedyModel.from_blocks(
        resnet(110, (96, 96, 3)), sizes, ConvHead(units=10), method="vangl", seed=0
    )
    assert [trainable(stage) for stage in model.stages] == stages
    assert trainable(*model.stages, *model.heads) == total


def test_blockwise_network_has_the_published_parameters(monkeypatch):
    # Numbers that count parameters need not be drawn.
    monkeypatch.setattr(keras.initializers, "Orthogonal", lambda gain: "zeros")
    blocks = built(blockwise_resnet((32, 32, 3)), (32, 32, 3))
    counts = [trainable(block) for block in blocks]
    encoder = 823808
    assert counts == [encoder + 1180160, *[1180672] * 4, 4850688, *[4720640] * 4]


def test_kernels_start_orthogonal_with_the_gain():
    block = built(resnet(8, (8, 8, 3)), (8, 8, 3))[0]
    kernel = np.asarray(block.branch[0].kernel)
    assert np.sum(kernel**2) == pytest.approx(0.16, rel=1e-5)
    rows = kernel.reshape(-1, 16).T
    np.testing.assert_allclose(rows @ rows.T, 0.01 * np.eye(16), atol=1e-7)


def test_stride_2_pads_one_pixel_on_every_side():
    block = resnet(14, (8, 8, 3))[2]
    block.build((None, 8, 8, 16))
    pad, conv = block.branch[:2]
    conv.kernel.assign(np.ones(conv.kernel.shape))
    x = np.zeros((1, 8, 8, 16), "float32")
    x[0, 0, 0, 0] = 1.0
    # With zeros before the first row and column, pixel (0, 0) is the centre of output (0, 0).
    np.testing.assert_array_equal(np.asarray(conv(pad(x)))[0, ..., 0].nonzero(), [[0], [0]])


def test_weight_decay_reaches_every_parameter():
    blocks = built(resnet(8, (8, 8, 3), weight_decay=2e-4), (8, 8, 3))
    variables = [v for block in blocks for v in block.trainable_variables]
    losses = sum(float(loss) for block in blocks for loss in block.losses)
    squares = sum(float(np.sum(np.square(v.numpy()))) for v in variables)
    assert losses == pytest.approx(1e-4 * squares, rel=1e-5)


def test_normalization_can_be_swapped():
    blocks = resnet(8, (8, 8, 3), normalization=keras.layers.BatchNormalization)
    assert type(blocks[0].branch[-1]) is keras.layers.BatchNormalization


@pytest.mark.parametrize("depth", [7, 9, 2])
def test_a_depth_that_no_block_count_gives_is_refused(depth):
    with pytest.raises(ValueError, match=r"`depth` must be 6n \+ 2"):
        resnet(depth, (8, 8, 3))


def test_an_unknown_shortcut_is_refused():
    with pytest.raises(ValueError, match="`shortcut` must be one of 'pad', 'conv'"):
        resnet(8, (8, 8, 3), shortcut="mean")


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="`width` must be even"):
        blockwise_resnet((8, 8, 3), width=33)


@pytest.mark.long
def test_energy_at_the_start_is_near_the_number_of_blocks_for_every_tau():
    # methods 9 K: a branch that ends in batch normalization has mean(r²) ≈ 1.
    x = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    energies = []
    for tau in (1.0, 1e6):
        model = GreedyModel.from_blocks(
            resnet(20, (16, 16, 3)), [4, 5], LinearHead(5), method="trgl", seed=0
        )
        model.stages[0].regularizer.tau = tau
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        logs = model.train_on_batch(x, np.zeros(64, "int32"), return_dict=True)
        energies.append([logs["stage_1_energy"], logs["stage_2_energy"]])
    np.testing.assert_allclose(energies[0], [4, 5], rtol=0.02)
    np.testing.assert_array_equal(energies[0], energies[1])
