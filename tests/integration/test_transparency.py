"""Wrapping changes nothing: what must be equal bit for bit, and what within rounding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import TRGL

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(44, 8, 8, 3)).astype("float32")
Y = RNG.integers(0, 5, 44)
SIZES = [1, 1, 1]


def blocks():
    return resnet(8, (8, 8, 3), widths=(4, 8, 8))


def with_dropout():
    made = blocks()
    for block in made:
        config = block.get_config()
        dropout = keras.saving.serialize_keras_object(keras.layers.Dropout(0.3))
        config["branch"].insert(-2, dropout)
        yield ResidualBlock.from_config(config)


def make(sizes, method="vangl", of=blocks, head=None, compile_options=None, seed=0):
    model = GreedyModel.from_blocks(
        list(of())[: sum(sizes)], sizes, head or LinearHead(5), method=method, seed=seed
    )
    return compiled(model, **(compile_options or {}))


def compiled(model, **options):
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


def assert_equal(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("of", [blocks, with_dropout])
@pytest.mark.parametrize("method", ["vangl", "end_to_end"])
def test_one_stage_without_energy_is_plain_keras_bit_for_bit(of, method):
    greedy = make([3], method, of)
    plain = compiled(make([3], method, of).truncate(1))
    ours = greedy.fit(batches(), epochs=3, validation_data=(X, Y), verbose=0).history
    theirs = plain.fit(
        batches(), shuffle=False, epochs=3, validation_data=(X, Y), verbose=0
    ).history
    assert_equal(greedy.truncate(1).weights, plain.weights)
    for name, wanted in theirs.items():
        np.testing.assert_allclose(ours[name], wanted, rtol=1e-6)


@pytest.mark.parametrize("of", [blocks, with_dropout])
def test_first_stages_are_those_of_a_run_with_fewer(of):
    three, two = make([1, 1, 1], "trgl", of), make([1, 1], "trgl", of)
    three.fit(batches(), epochs=2, verbose=0)
    two.fit(batches(), epochs=2, verbose=0)
    for k in range(2):
        assert_equal(three.stages[k].weights, two.stages[k].weights)
        assert_equal(three.heads[k].weights, two.heads[k].weights)


def test_a_huge_tau_is_vangl():
    loose, free = make(SIZES, TRGL(tau=1e30)), make(SIZES, "vangl")
    loose.fit(batches(), epochs=2, verbose=0)
    free.fit(batches(), epochs=2, verbose=0)
    for one, other in zip(loose.trainable_weights, free.trainable_weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)


def test_several_steps_per_execution_equal_one():
    one = make(SIZES, "trgl", with_dropout)
    four = make(SIZES, "trgl", with_dropout, compile_options={"steps_per_execution": 4})
    first = one.fit(batches(), epochs=2, verbose=0).history
    second = four.fit(batches(), epochs=2, verbose=0).history
    assert_equal(one.weights, four.weights)
    assert first == second


def test_eager_equals_compiled_within_rounding():
    graph = make(SIZES, "trgl", with_dropout)
    eager = make(SIZES, "trgl", with_dropout, compile_options={"run_eagerly": True})
    graph.fit(batches(), epochs=1, verbose=0)
    eager.fit(batches(), epochs=1, verbose=0)
    for one, other in zip(graph.weights, eager.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-4)


def test_arrays_and_datasets_in_the_same_order_give_the_same_weights():
    arrays, dataset = make(SIZES, "trgl"), make(SIZES, "trgl")
    arrays.fit(X, Y, batch_size=16, shuffle=False, epochs=2, verbose=0)
    dataset.fit(batches(), epochs=2, verbose=0)
    assert_equal(arrays.weights, dataset.weights)


def test_two_fits_are_one():
    once, twice = make(SIZES, "trgl"), make(SIZES, "trgl")
    once.fit(X, Y, batch_size=16, epochs=3, verbose=0)
    twice.fit(X, Y, batch_size=16, epochs=1, verbose=0)
    twice.fit(X, Y, batch_size=16, epochs=3, initial_epoch=1, verbose=0)
    assert_equal(once.weights, twice.weights)


def test_initial_weights_depend_neither_on_the_split_nor_on_the_heads():
    first = make([3])
    second = make([1, 1, 1], head=ConvHead(5))
    third = make([2, 1], "end_to_end")
    for other in (second, third):
        for one, same in zip(first.stages[0].blocks, all_blocks(other), strict=True):
            assert_equal(one.weights, same.weights)
    assert_equal(first.heads[0].weights, third.heads[0].weights)


def all_blocks(model):
    return [block for stage in model.stages for block in stage.blocks]


def test_other_seeds_give_other_weights_and_equal_layers_differ():
    first, second = make([3], seed=0), make([3], seed=1)
    kernels = [b.branch[0].kernel.numpy() for m in (first, second) for b in all_blocks(m)[:1]]
    assert np.abs(kernels[0] - kernels[1]).max() > 0
    inside = [
        layer.kernel.numpy()
        for layer in first.stages[0].blocks[0].branch
        if layer.weights and hasattr(layer, "kernel")
    ]
    assert np.abs(inside[0] - inside[1]).max() > 0
