"""Splits: exactness against brute force, published sizes, memory, refusals."""

import itertools
import math

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_trgl.architectures import (
    blockwise_resnet,
    resnet,
    resnet50,
    resnet101,
    resnet152,
    swin_tiny,
    vgg,
)
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import DDG, InfoPro, VanGL
from keras_trgl.splitting import by_depth, by_memory, min_max_partition, published
from keras_trgl.splitting.activation_bytes import Counter, Held
from keras_trgl.splitting.published import SIZES
from keras_trgl.splitting.stage_bytes import IN_FLIGHT, stage_bytes

pytestmark = pytest.mark.sampled(2)

UNITS = {
    "resnet32": 15,
    "resnet50": 16,
    "resnet101": 33,
    "resnet110": 54,
    "resnet152": 50,
    "swin_tiny": 12,
    "vgg19": 16,
}
"""Blocks of a network; convolutions of VGG."""


def every_partition(items, parts):
    for cuts in itertools.combinations(range(1, items), parts - 1):
        yield [b - a for a, b in itertools.pairwise([0, *cuts, items])]


def part_costs(sizes, cost):
    ends = list(itertools.accumulate(sizes))
    return [cost(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=10),
    st.lists(st.integers(0, 4), min_size=10, max_size=10),
    st.integers(1, 10),
)
def test_partition_is_the_best_of_all(costs, ends, parts):
    parts = min(parts, len(costs))

    def cost(start, end):
        return sum(costs[start:end]) + ends[end - 1]

    def rank(sizes):
        values = part_costs(sizes, cost)
        return max(values), sum(value**2 for value in values)

    found = min_max_partition(len(costs), parts, cost)
    assert len(found) == parts
    assert sum(found) == len(costs)
    assert min(found) >= 1
    # Of cuts that tie in both, the one that is largest when read from the back.
    best = min(
        every_partition(len(costs), parts),
        key=lambda sizes: (rank(sizes), [-size for size in reversed(sizes)]),
    )
    assert found == best


def test_partition_of_large_whole_numbers_is_exact():
    costs = [2**60, 1, 2**60]
    assert min_max_partition(3, 2, lambda start, end: sum(costs[start:end])) == [1, 2]
    costs = [2**60 + 1, 1, 2**60]
    assert min_max_partition(3, 2, lambda start, end: sum(costs[start:end])) == [1, 2]
    costs = [2**60, 1, 2**60 + 1]
    assert min_max_partition(3, 2, lambda start, end: sum(costs[start:end])) == [2, 1]


def test_equal_depth_differs_by_at_most_one_larger_first():
    assert by_depth(range(54), 4) == [14, 14, 13, 13]
    assert by_depth(range(54), 16) == published("trgl_resnet110", 16)
    assert by_depth(range(5), 5) == [1] * 5


def test_published_sizes_sum_to_the_blocks_of_their_network():
    assert published("trgl_resnet110", 8) == [7, 7, 7, 7, 8, 6, 6, 6]
    for name, sizes in SIZES.items():
        network = name.partition("_")[2].removesuffix("_balanced")
        assert {sum(row) for row in sizes.values()} == {UNITS[network]}
        assert all(len(row) == num_stages for num_stages, row in sizes.items())
    published("trgl_resnet110", 4).clear()
    assert published("trgl_resnet110", 4) == [14, 14, 13, 13]


def test_units_are_the_blocks_of_the_architectures():
    shape = (32, 32, 3)
    made = {
        "resnet32": resnet(32, shape),
        "resnet50": resnet50(shape),
        "resnet101": resnet101(shape),
        "resnet110": resnet(110, shape),
        "resnet152": resnet152(shape),
        "swin_tiny": swin_tiny(shape, 2, 4),
        "vgg19": vgg(19, shape),
    }
    assert {name: len(blocks) for name, blocks in made.items()} == UNITS


@pytest.mark.parametrize(
    ("network", "cuts"), [("resnet101", [8, 16, 24]), ("resnet152", [12, 25, 37])]
)
def test_uniform_cuts_of_dgl_are_those_of_its_code(network, cuts):
    # floor(linspace(-1, U - 1, K + 1)) + 1, inner points.
    units = UNITS[network]
    found = list(itertools.accumulate(published(f"dgl_{network}", 4)))[:-1]
    assert found == cuts == [math.floor(-1 + units * k / 4) + 1 for k in (1, 2, 3)]


def test_cuts_of_ddg_are_those_of_its_list_of_58_items():
    # Convolution, normalization and ReLU, 54 blocks, pool; a cut every ceil(58 / K) items.
    for num_stages in (2, 4):
        step = math.ceil(58 / num_stages)
        ends = [min(step * k, 58) - 3 for k in range(1, num_stages)]
        found = list(itertools.accumulate(published("ddg_resnet110", num_stages)))[:-1]
        assert found == ends


def test_memory_split_makes_early_stages_short():
    blocks = resnet(110, (32, 32, 3))
    sizes = by_memory(blocks, 4, head=ConvHead(10))
    assert sum(sizes) == 54
    assert sizes == sorted(sizes)
    assert sizes[0] <= 9


NETWORKS = {
    "relu_after_sum": lambda: resnet(14, (16, 16, 3)),
    "nothing_after_sum": lambda: blockwise_resnet((16, 16, 3), num_blocks=6, width=16),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("with_head", [False, True])
def test_memory_split_is_the_best_for_bytes_counted_stage_by_stage(network, with_head):
    blocks, shapes = NETWORKS[network](), [(None, 16, 16, 3)]
    for block in blocks:
        shapes.append(block.compute_output_shape(shapes[-1]))

    def cost(start, end):
        heads = [ConvHead(3)] if with_head else []
        for head in heads:
            head.build(shapes[end])
        counter, largest = Counter(), 0
        counter.walk([*blocks[start:end], *heads], Held(shapes[start], counted=True))
        stage_input = 4 * math.prod(shapes[start][1:])
        for position in range(start, end):
            alone = Counter()
            alone.walk(blocks[position : position + 1], Held(shapes[position]))
            largest = max(largest, alone.largest)
        return stage_input + counter.bytes + IN_FLIGHT * largest

    head = ConvHead(3) if with_head else None
    found = stage_bytes(blocks, head, shapes[0])
    for start, end in itertools.combinations(range(7), 2):
        assert found(start, end) == cost(start, end)
    for num_stages in range(1, 7):
        sizes = by_memory(blocks, num_stages, head=head)
        best = min(max(part_costs(s, cost)) for s in every_partition(6, num_stages))
        assert max(part_costs(sizes, cost)) == best


def test_memory_split_leaves_blocks_and_head_unbuilt():
    blocks, head = resnet(8, (8, 8, 3)), ConvHead(3)
    by_memory(blocks, 3, head=head)
    assert not head.built
    assert not any(block.built for block in blocks)


def test_memory_split_of_built_functional_blocks():
    def block():
        inputs = keras.Input((8, 8, 4))
        y = keras.layers.Conv2D(4, 3, padding="same")(inputs)
        return keras.Model(inputs, keras.layers.ReLU()(keras.layers.Add()([inputs, y])))

    assert by_memory([block() for _ in range(4)], 2, input_shape=(8, 8, 4)) == [2, 2]


@pytest.mark.parametrize("shape", [(None, None, 3), (8, 0, 3)])
def test_unknown_sides_are_refused(shape):
    with pytest.raises((TypeError, ValueError), match="Every side but the batch must be known"):
        by_memory(resnet(8, (8, 8, 3)), 2, input_shape=shape)


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match=r"Received: \[ConvHead\(units=3"):
        by_memory(resnet(8, (8, 8, 3)), 2, head=[ConvHead(3), ConvHead(3)])
    with pytest.raises(TypeError, match=r"must be Keras layers.* Received: 3"):
        by_memory([3], 1, input_shape=(4,))


def test_memory_split_needs_the_shape_of_the_data():
    block = ResidualBlock([keras.layers.Dense(4)])
    with pytest.raises(ValueError, match=r"Pass `input_shape="):
        by_memory([block, block], 2)
    assert by_memory([block, block], 2, input_shape=(4,)) == [1, 1]


@pytest.mark.parametrize("split", [by_depth, by_memory])
@pytest.mark.parametrize("num_stages", [0, 4])
def test_more_stages_than_blocks_or_none_are_refused(split, num_stages):
    blocks = resnet(8, (8, 8, 3))
    with pytest.raises(ValueError, match=r"at most as many stages as blocks|at least 1"):
        split(blocks, num_stages)


@pytest.mark.parametrize("split", [by_depth, by_memory])
def test_no_blocks_are_refused(split):
    with pytest.raises(ValueError, match="A split needs blocks"):
        split([], 1)


@pytest.mark.parametrize("split", [by_depth, by_memory])
@pytest.mark.parametrize("num_stages", [2.0, True, "2"])
def test_a_number_of_stages_that_is_no_integer_is_refused(split, num_stages):
    with pytest.raises(TypeError, match="`num_stages` must be an integer"):
        split(resnet(8, (8, 8, 3)), num_stages)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_costs_below_zero_or_not_finite_are_refused(value):
    with pytest.raises(ValueError, match=r"Costs must be finite .* Received: cost\(0, 1\)="):
        min_max_partition(2, 1, lambda start, end: value)


def test_unknown_published_names_and_stages_are_refused():
    with pytest.raises(ValueError, match="`name` must be one of 'trgl_resnet110'"):
        published("resnet", 4)
    with pytest.raises(ValueError, match="was published for num_stages of 2, 4"):
        published("trgl_resnet110_balanced", 3)


def test_settled_stages_count_the_nets_that_their_method_has_for_them():
    blocks = resnet(8, (8, 8, 1))
    cuts, ends = [(0, 1), (1, 2), (2, 3)], [1, 2, 3]
    heads = [LinearHead(3) for _ in ends]

    def costs(method):
        counted = stage_bytes(blocks, heads, (None, 8, 8, 1), method, 3, ends)
        return [counted(*cut) for cut in cuts]

    plain = costs(VanGL())
    # A decoder to the image for every stage but the last, which has the head that was given.
    rebuilt = costs(InfoPro("softmax"))
    assert [one > other for one, other in zip(rebuilt, plain, strict=True)] == [True, True, False]
    # One head, the last.
    late = costs(DDG())
    assert [one < other for one, other in zip(late, plain, strict=True)] == [True, True, False]
