"""Bytes of blocks from their traces, and what they add up to."""

import dataclasses

import keras
import pytest

from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.splitting.network_bytes import (
    NetworkBytes,
    WayToTrain,
    in_a_row,
    lost_at_ends,
    made_again,
    slots_of,
)
from keras_trgl.splitting.traced_bytes import BlockBytes, TracedBlock

TENSOR = 16 * 16 * 16 * 4


def basic(reduction="mean"):
    return TracedBlock(resnet(20, (16, 16, 3))[1], (None, 16, 16, 16), "float32", reduction, True)


@pytest.mark.parametrize("reduction", ["mean", None])
def test_a_basic_block_keeps_what_is_counted_by_rules(reduction):
    # Two normalization inputs and the inner ReLU; beside them its input and its output.
    found = basic(reduction).at(8)
    # A kernel notes an eighth more where a ReLU follows a normalization.
    assert 3 * 8 * TENSOR <= found.kept <= (3 + 1 / 8) * 8 * TENSOR + 4096
    assert (found.input, found.output) == (8 * TENSOR, 8 * TENSOR)
    assert found.reads_input
    assert found.reads_output
    assert found.backward > found.kept + 2 * 8 * TENSOR


def test_bytes_grow_with_the_batch():
    traced = basic()
    few, more = traced.at(10), traced.at(30)
    assert few.gradients == more.gradients == traced.trained
    assert more.output == 3 * few.output
    assert more.kept == pytest.approx(3 * few.kept, rel=0.01)


def test_a_gelu_keeps_more_than_its_input():
    layer = keras.layers.Activation("gelu")
    traced = TracedBlock(layer, (None, 100), "float32", None, True)
    assert traced.at(10).kept >= 2 * 10 * 100 * 4


def part(**changes):
    plain = BlockBytes(
        kept=10,
        input=4,
        reads_input=True,
        output=4,
        reads_output=False,
        forward=14,
        backward=20,
        gradients=1,
    )
    return dataclasses.replace(plain, **changes)


def test_blocks_in_a_row_keep_each_others_borders_once():
    row = in_a_row([part(reads_output=True), part(), part(reads_input=False)])
    # Ten each, and one border; the last one's input is asked for by nobody.
    assert row.kept == 3 * 10 + 4
    assert row.gradients == 3
    # What was kept stays: the most is all of it, and what one pass has beside.
    # A gradient is there once what it is made of may go, and takes less.
    assert row.backward == 34 + (20 - 10)
    heavy = part(gradients=30)
    assert in_a_row([part(), heavy, heavy]).backward == 20 + 2 * 30


def test_what_is_made_again_keeps_its_input_alone():
    again = made_again([part(), part()])
    row = in_a_row([again, again, again, part()])
    assert again.kept == 0
    assert row.kept == 3 * 4 + 10
    assert row.backward < in_a_row([part()] * 7).backward


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [
        (keras.optimizers.SGD(), 0),
        (keras.optimizers.SGD(momentum=0.9), 1),
        (keras.optimizers.AdamW(), 2),
        (None, 0),
    ],
)
def test_slots_are_those_of_the_optimizer(optimizer, slots):
    assert slots_of(optimizer) == slots


def test_parts_and_remat_and_stages_take_less():
    blocks = resnet(14, (16, 16, 3), widths=(4, 4, 4))
    counted = NetworkBytes(blocks, LinearHead(3), (16, 16, 3), 64, keras.optimizers.SGD(), "mean")
    whole = counted.total(WayToTrain((6,)))
    assert counted.total(WayToTrain((6,), 4)) < 0.5 * whole
    assert counted.total(WayToTrain((6,), 1, 1)) < 0.7 * whole
    assert counted.total(WayToTrain((1, 5))) < 0.95 * whole
    assert counted.total(WayToTrain((3, 3)), stored=3) > counted.total(WayToTrain((3, 3)))


def test_a_stage_that_trains_alone_hands_nothing_on_and_lets_the_batch_pass():
    blocks = resnet(14, (16, 16, 3), widths=(4, 4, 4))
    options = blocks, LinearHead(3), (16, 16, 3), 64, keras.optimizers.SGD(), "mean"
    at_once, in_turn = NetworkBytes(*options), NetworkBytes(*options, in_turn=True)
    way = WayToTrain((3, 3))
    first, last = zip(at_once.stages(way), in_turn.stages(way), strict=True)
    assert first[1] < first[0]
    assert last[1] == last[0]
    assert (at_once.passing(way), in_turn.passing(WayToTrain((6,)))) == (0, 0)
    # In inference mode: what comes in, a convolution's output, and no more than a sum beside.
    features = 64 * 16 * 16 * 4 * 4
    assert 2 * features <= in_turn.passing(way) <= 4 * features
    # Parts are the business of the stage that trains; what passes is the whole batch.
    assert in_turn.passing(WayToTrain((3, 3), 8)) == in_turn.passing(way)


def test_sizes_that_differ_take_more_room():
    def spread(*widths):
        blocks = [keras.layers.Dense(width) for width in widths]
        counted = NetworkBytes(blocks, LinearHead(3), (256,), 64, None, None)
        return counted.spread(64)

    # Pieces of one size, and of twice it, never hold another; 3 : 2 : 2 they do.
    assert spread(256, 256, 256) == pytest.approx(0, abs=0.01)
    assert spread(256, 384, 256) > 0.05


MIB = 2**20


@pytest.mark.parametrize(
    ("total", "sizes", "lost"),
    [
        # The allocator's own log of a convolution at 28x28, batch 64: 4.0 and 4.94 MiB for 3.0625.
        (12.25, [3.0625], 0.9375 + 1.875),
        (12.25, [3.0625, 0.01], 0.9375 + 1.875),
        (300, [4], 0),
        (300, [2, 4, 1], 0),
        # The region of 1 MiB is too small, that of 2 MiB has half of it left.
        (1.0, [1.25], 0),
        (10, [1.25], 0.75 + 0.25),
        (10, [0.01], 0),
        (10, [], 0),
    ],
)
def test_ends_of_regions_are_lost_but_for_powers_of_two(total, sizes, lost):
    found = lost_at_ends(int(total * MIB), [int(size * MIB) for size in sizes])
    assert found == pytest.approx(lost * MIB, abs=2048)


def test_what_two_operations_read_is_not_written_over():
    layers = [
        keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
    ]
    traced = TracedBlock(keras.Sequential(layers), (None, 28, 28, 1), "float32", None, False)
    # What arrives from above; what the normalization keeps, its gradient, and that times the scale
    # and times the input.
    assert traced.at(64).backward == pytest.approx(5 * 64 * 28 * 28 * 16 * 4, rel=0.01)
