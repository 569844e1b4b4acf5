"""Counted bytes: against what the traced gradient reads, and rules one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_trgl.architectures import blockwise_resnet, resnet
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.layers import BatchNormalization
from keras_trgl.splitting.activation_bytes import Counter, Held, activation_bytes

BATCH = 8


def conv(**options):
    return layers.Conv2D(16, 3, padding="same", use_bias=False, **options)


def functional_block():
    inputs = keras.Input((16, 16, 16))
    y = layers.ReLU()(BatchNormalization()(conv()(inputs)))
    return keras.Model(inputs, layers.ReLU()(layers.Add()([inputs, y])))


def functional_of_functional():
    inputs = keras.Input((16, 16, 16))
    y = functional_block()(functional_block()(inputs))
    return keras.Model(inputs, keras.ops.relu(keras.ops.add(y, inputs)))


CASES = {
    "basic": lambda: (resnet(20, (16, 16, 3))[1], (16, 16, 16)),
    "stem": lambda: (resnet(20, (16, 16, 3))[0], (16, 16, 3)),
    "stride": lambda: (resnet(20, (16, 16, 3))[3], (16, 16, 16)),
    "projection": lambda: (resnet(20, (16, 16, 3), shortcut="conv")[3], (16, 16, 16)),
    "before": lambda: (blockwise_resnet((16, 16, 3), width=32)[1], (8, 8, 32)),
    "encoder": lambda: (blockwise_resnet((16, 16, 3), width=32)[0], (16, 16, 3)),
    "middle": lambda: (blockwise_resnet((16, 16, 3), width=32)[5], (8, 8, 32)),
    "padded": lambda: ([layers.ZeroPadding2D(1), conv()], (16, 16, 16)),
    "inside": lambda: ([conv(activation="relu"), layers.AveragePooling2D(2)], (16, 16, 16)),
    "silu": lambda: ([conv(activation="silu"), conv()], (16, 16, 16)),
    "tanh": lambda: ([conv(), layers.Activation("tanh")], (16, 16, 16)),
    "dropout": lambda: ([conv(), layers.Dropout(0.5), conv()], (16, 16, 16)),
    "max_pool": lambda: ([conv(), layers.MaxPooling2D(2), conv()], (16, 16, 16)),
    "flat": lambda: ([layers.ReLU(), layers.Flatten(), layers.Dense(3)], (16, 16, 16)),
    "functional": lambda: (functional_block(), (16, 16, 16)),
    "nested": lambda: (functional_of_functional(), (16, 16, 16)),
    "conv_head": lambda: (ConvHead(10), (16, 16, 16)),
    "linear_head": lambda: (LinearHead(10), (16, 16, 16)),
}


def source(tensor):
    while tensor.op.type in {"Reshape", "Identity"}:
        tensor = tensor.op.inputs[0]
    return tensor


def bytes_read_by_the_gradient(layer, shape):
    """Bytes per example of the batched forward tensors that the backward graph reads."""
    layer(np.zeros((BATCH, *shape), "float32"))
    forward = set()

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        forward.update(op.name for op in x.graph.get_operations())
        ends = [x, *layer.trainable_variables]
        return tape.gradient(y, ends, output_gradients=tf.random.normal(y.shape))

    spec = tf.TensorSpec((BATCH, *shape))
    graph = tf.function(step, autograph=False).get_concrete_function(spec).graph
    kept = {}
    for op in graph.get_operations():
        if op.name in forward or op.type in {"Shape", "ShapeN", "BroadcastGradientArgs"}:
            continue
        for tensor in op.inputs:
            if tensor.op.name in forward and tensor.shape.rank and tensor.shape[0] == BATCH:
                origin = source(tensor)
                kept[origin.name] = int(np.prod(origin.shape[1:])) * origin.dtype.size
    return sum(kept.values())


@pytest.mark.parametrize("case", CASES)
def test_counted_bytes_are_those_that_the_gradient_reads(case):
    layer, shape = CASES[case]()
    layer = keras.Sequential(layer) if isinstance(layer, list) else layer
    if not layer.built:
        layer.build((None, *shape))
    counted = activation_bytes(layer, (None, *shape))
    assert counted == bytes_read_by_the_gradient(layer, shape)


def test_unbuilt_blocks_count_as_built_ones():
    block, built = resnet(20, (16, 16, 3))[1], resnet(20, (16, 16, 3))[1]
    built.build((None, 16, 16, 16))
    shape = (None, 16, 16, 16)
    assert activation_bytes(block, shape) == activation_bytes(built, shape)
    assert not block.built


@pytest.mark.parametrize(("counted", "tensors"), [(False, 5), (True, 4)])
def test_a_basic_block_keeps_four_tensors_beside_its_input(counted, tensors):
    # Two normalization inputs, the inner ReLU, and the output, which the last ReLU keeps.
    counter = Counter()
    output = counter.walk(resnet(20, (32, 32, 3))[1:2], Held((None, 32, 32, 16), counted))
    assert counter.bytes == tensors * 32 * 32 * 16 * 4
    assert output.counted


def test_a_block_without_activation_keeps_its_input_and_not_its_output():
    held, counter = Held((None, 8, 8, 32)), Counter()
    output = counter.walk(blockwise_resnet((16, 16, 3), width=32)[1:2], held)
    assert counter.bytes == 4 * 8 * 8 * 32 * 4
    assert held.counted
    assert not output.counted


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_types_count_half(dtype):
    assert activation_bytes(layers.Dense(3, dtype=dtype), (None, 10)) == 20


def test_layers_that_keep_nothing_cost_nothing():
    row = [layers.AveragePooling2D(2), layers.Activation("linear"), layers.Flatten()]
    counter = Counter()
    output = counter.walk(row, Held((None, 8, 8, 4)))
    assert counter.bytes == 0
    assert output.shape == (None, 64)


def test_max_pool_keeps_both_sides_and_dropout_a_mask_of_bytes():
    row = keras.Sequential([layers.MaxPooling2D(2), layers.Dropout(0.5)])
    assert activation_bytes(row, (None, 8, 8, 1)) == 4 * (64 + 16) + 16


def test_an_unknown_layer_keeps_both_sides():
    assert activation_bytes(layers.UnitNormalization(), (None, 10)) == 80


def test_counting_leaves_a_functional_model_as_it_was():
    model = functional_block()
    before = [weight.numpy() for weight in model.weights], model.layers[1].output
    activation_bytes(model, (None, 16, 16, 16))
    assert model.layers[1].output is before[1]
    for weight, value in zip(model.weights, before[0], strict=True):
        np.testing.assert_array_equal(weight, value)
