"""What every architecture gives: one row per function."""

import numpy as np
import pytest

from keras_trgl.architectures import blockwise_resnet, resnet
from keras_trgl.layers import ResidualBlock

ARCHITECTURES = {
    "resnet": lambda shape: resnet(14, shape, widths=(4, 8, 8)),
    "resnet_conv": lambda shape: resnet(14, shape, widths=(4, 8, 8), shortcut="conv"),
    "blockwise_resnet": lambda shape: blockwise_resnet(shape, num_blocks=4, width=8),
}
SHAPE = (12, 12, 3)
X = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_a_flat_list_of_unbuilt_blocks_that_know_their_input(name):
    blocks = ARCHITECTURES[name](SHAPE)
    assert all(isinstance(block, ResidualBlock) and not block.built for block in blocks)
    assert blocks[0].expected_input_shape == SHAPE
    assert all(block.expected_input_shape is None for block in blocks[1:])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_are_told_before_anything_is_built(name):
    shape, x = X.shape, X
    for block in ARCHITECTURES[name](SHAPE):
        shape, x = tuple(block.compute_output_shape(shape)), block(x)
        assert tuple(x.shape) == shape


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_block_tells_its_energy(name):
    x = X
    for block in ARCHITECTURES[name](SHAPE):
        with block.recording():
            x = block(x, training=True)
            assert float(block.energy()) > 0
