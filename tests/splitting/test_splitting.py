"""Splits: exactness against brute force, published sizes, counted bytes, refusals."""

import itertools

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_trgl.architectures import resnet
from keras_trgl.heads import ConvHead
from keras_trgl.layers import BatchNormalization, ResidualBlock
from keras_trgl.splitting import by_depth, by_memory, min_max_partition, published
from keras_trgl.splitting.activation_bytes import Counter


def every_partition(items, parts):
    for cuts in itertools.combinations(range(1, items), parts - 1):
        yield [b - a for a, b in itertools.pairwise([0, *cuts, items])]


def part_costs(sizes, cost):
    ends = list(itertools.accumulate(sizes))
    return [cost(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=8),
    st.lists(st.integers(0, 4), min_size=8, max_size=8),
    st.integers(1, 8),
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
    assert rank(found) == min(rank(sizes) for sizes in every_partition(len(costs), parts))


def test_equal_depth_differs_by_at_most_one_larger_first():
    assert by_depth(range(54), 4) == [14, 14, 13, 13]
    assert by_depth(range(54), 16) == published("trgl_resnet110", 16)
    assert by_depth(range(5), 5) == [1] * 5


def test_published_sizes_sum_to_the_blocks_of_resnet_110():
    assert published("trgl_resnet110", 8) == [7, 7, 7, 7, 8, 6, 6, 6]
    for name in ("trgl_resnet110", "infopro_resnet110_balanced"):
        assert sum(published(name, 4)) == 54


def test_a_basic_block_keeps_four_tensors():
    block = ResidualBlock(
        [
            keras.layers.Conv2D(16, 3, padding="same"),
            BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(16, 3, padding="same"),
            BatchNormalization(),
        ],
        activation="relu",
    )
    tensor = 32 * 32 * 16 * 4
    first = Counter((None, 32, 32, 16), counted=False)
    first.walk([block])
    # Input, two normalization inputs, the inner ReLU, and the output that ReLU keeps.
    assert first.bytes == 5 * tensor
    later = Counter((None, 32, 32, 16), counted=True)
    later.walk([block])
    assert later.bytes == 4 * tensor


def test_half_types_count_half():
    dense = keras.layers.Dense(3, dtype="mixed_float16")
    counter = Counter((None, 10), counted=False)
    counter.walk([dense])
    assert counter.bytes == 20


def test_layers_that_keep_nothing_cost_nothing():
    counter = Counter((None, 8, 8, 4), counted=True)
    counter.walk([keras.layers.AveragePooling2D(2), keras.layers.Flatten()])
    assert counter.bytes == 0
    assert counter.shape == (None, 64)


def test_max_pool_keeps_both_sides_and_dropout_its_mask():
    counter = Counter((None, 8, 8, 1), counted=False)
    counter.walk([keras.layers.MaxPooling2D(2), keras.layers.Dropout(0.5)])
    assert counter.bytes == 4 * (64 + 16 + 16)


def test_a_nested_model_counts_its_layers():
    row = [keras.layers.Conv2D(4, 3, padding="same"), keras.layers.ReLU()]
    counter, plain = (Counter((None, 8, 8, 4), counted=False) for _ in range(2))
    counter.walk([keras.Sequential([keras.Input((8, 8, 4)), *row])])
    plain.walk(row)
    assert counter.bytes == plain.bytes == 2 * 8 * 8 * 4 * 4


def test_memory_split_makes_early_stages_short():
    blocks = resnet(110, (32, 32, 3))
    sizes = by_memory(blocks, 4, head=ConvHead(10))
    assert sum(sizes) == 54
    assert sizes == sorted(sizes)
    assert sizes[0] <= 9


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


def test_no_blocks_are_refused():
    with pytest.raises(ValueError, match="A split needs blocks"):
        by_memory([], 1)


def test_negative_costs_are_refused():
    with pytest.raises(ValueError, match="Costs must be numbers of at least 0"):
        min_max_partition(2, 1, lambda start, end: -1.0)


def test_unknown_published_names_and_stages_are_refused():
    with pytest.raises(ValueError, match="`name` must be one of 'trgl_resnet110'"):
        published("resnet", 4)
    with pytest.raises(ValueError, match="was published for num_stages of 2, 4"):
        published("trgl_resnet110_balanced", 3)
