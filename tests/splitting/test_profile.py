"""Costs of blocks: what is measured, how often, and what comes of it."""

import itertools
import math
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.splitting import Profile, by_time, profile
from keras_trgl.splitting.activation_bytes import activation_bytes
from keras_trgl.splitting.stage_bytes import stage_bytes

BLOCKS = [2.0, 1.0, 4.0, 1.0]
HEADS = [0.0, 3.0, 0.0, 0.5]


def known(block_seconds=BLOCKS, head_seconds=HEADS):
    zeros = (0,) * len(block_seconds)
    return Profile(tuple(block_seconds), tuple(head_seconds), zeros, zeros, lambda start, end: 0)


@pytest.fixture
def asked(monkeypatch):
    """Replaces the measurement by counting; every kind takes as many seconds as its number."""
    seen = []

    def measured(kinds, repeats, verbose):
        seen.append((dict(kinds), repeats))
        return {key: float(place) for place, key in enumerate(kinds, start=1)}

    # The function of that name hides the module.
    module = sys.modules["keras_trgl.splitting.profile"]
    monkeypatch.setattr(module, "measured", measured)
    return seen


def test_a_stage_costs_its_blocks_and_its_head():
    costs = known()
    assert costs.stage_seconds(0, 2) == 2.0 + 1.0 + 3.0
    assert costs.stage_seconds(2, 4) == 4.0 + 1.0 + 0.5


@pytest.mark.parametrize("num_stages", [1, 2, 3, 4])
def test_the_split_is_the_best_of_all(num_stages):
    costs = known()

    def worst(ends):
        return max(costs.stage_seconds(a, b) for a, b in itertools.pairwise((0, *ends, 4)))

    best = min(worst(ends) for ends in itertools.combinations(range(1, 4), num_stages - 1))
    sizes = by_time(range(4), num_stages, costs)
    assert sum(sizes) == 4
    assert worst(list(itertools.accumulate(sizes))[:-1]) == best


def test_blocks_that_are_alike_are_measured_once_and_stay_as_they_are(asked):
    blocks = resnet(depth=20, input_shape=(8, 8, 3))
    costs = profile(blocks, 4, LinearHead(5), repeats=7)
    ((kinds, repeats),) = asked
    assert repeats == 7
    # Of 9 blocks: the first with its stem, two like it, and per later width a first and others.
    assert len(set(costs.block_seconds)) == 6
    assert len(set(costs.head_seconds)) == 3
    assert len(kinds) == 9
    assert not any(block.built for block in blocks)
    needs = [needs_gradient for _, _, needs_gradient in kinds.values()]
    assert needs.count(False) == 1, "The data need no gradient."


def test_bytes_are_those_of_the_batch(asked):
    blocks, head = resnet(depth=8, input_shape=(8, 8, 3)), LinearHead(5)
    costs = profile(blocks, np.zeros((6, 8, 8, 3), "float32"), head)
    shape, wanted = (None, 8, 8, 3), []
    for block in blocks:
        wanted.append(6 * activation_bytes(block, shape))
        shape = tuple(block.compute_output_shape(shape))
    assert list(costs.block_bytes) == wanted
    counted = stage_bytes(blocks, head, (None, 8, 8, 3))
    assert costs.stage_bytes(1, 3) == 6 * counted(1, 3)
    assert all(size > 0 for size in costs.head_bytes)


def test_without_a_head_it_costs_nothing(asked):
    costs = profile([keras.layers.Dense(3)], 2, input_shape=(4,))
    assert costs.head_seconds == (0.0,)
    assert costs.head_bytes == (0,)


def test_real_times_are_positive_and_measured_on_the_device_in_force():
    places = []

    @keras.saving.register_keras_serializable("tests")
    class Watch(keras.layers.Layer):
        def compute_output_shape(self, input_shape):
            return input_shape

        def call(self, x):
            y = x * 2.0
            places.append(y.device)
            return y

    blocks = [ResidualBlock([Watch(), keras.layers.Dense(4)]), keras.layers.ReLU()]
    with tf.device("CPU:1"):
        costs = profile(blocks, 3, LinearHead(2), input_shape=(4,), repeats=2)
    times = [*costs.block_seconds, *costs.head_seconds]
    assert len(times) == 4
    assert all(0 < one < math.inf for one in times)
    assert places
    assert all(place.endswith("CPU:1") for place in places)
    assert sum(by_time(blocks, 2, costs)) == 2


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda b: profile([], 2), ValueError, "A profile needs blocks"),
        (lambda b: profile([3], 2), TypeError, "must be Keras layers"),
        (lambda b: profile(b, 0, input_shape=(4,)), ValueError, "`batch` must be at least 1"),
        (lambda b: profile(b, 2), ValueError, "shape of the data must be known"),
        (lambda b: profile(b, 2, input_shape=(4,), repeats=0), ValueError, "`repeats` must be"),
        (lambda b: by_time(b, 3, 2, input_shape=(4,)), ValueError, "at most as many stages"),
        (lambda b: by_time(b, 1, known()), ValueError, "one of 4 blocks for 2"),
        (lambda b: by_time(range(4), 2, known(), LinearHead(2)), ValueError, "Leave it out"),
    ],
)
def test_what_cannot_be_is_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call([keras.layers.Dense(4), keras.layers.Dense(4)])
