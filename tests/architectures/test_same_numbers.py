"""Architectures against other implementations with the same weights: the features are equal.

`keras.applications` has VGG and ResNet; KerasHub has Swin and ViT, where it is installed.
"""

import itertools

import keras
import numpy as np
import pytest

from keras_trgl.architectures import resnet50, resnet101, resnet152, swin_tiny, vgg, vit
from keras_trgl.heads import NormHead
from keras_trgl.layers import BatchNormalization, ResidualBlock


def image(side):
    return np.random.default_rng(0).normal(size=(2, side, side, 3)).astype("float32")


def features(blocks, x):
    for block in blocks:
        x = block(x, training=False)
    return np.asarray(x)


def built(blocks, x):
    shape = x.shape
    for block in blocks:
        block.build(shape)
        shape = block.compute_output_shape(shape)
    return blocks


SEEDS = itertools.count()


def shaken(layer):
    """Give a layer's weights numbers of their own, variances above zero."""
    rng = np.random.default_rng(next(SEEDS))
    values = []
    for weight in layer.weights:
        size = 0.5 / np.sqrt(max(np.prod(weight.shape[:-1]), 25))
        value = rng.normal(size=weight.shape) * size
        positive = any(name in weight.path for name in ("gamma", "moving_variance"))
        values.append(1 + np.abs(value) if positive else value)
    layer.set_weights(values)
    return layer


def hand_over(theirs, ours):
    ours.set_weights(shaken(theirs).get_weights())


class Cheap(keras.initializers.Initializer):
    """Zeros in place of orthogonal kernels, which take their time; other numbers come anyway."""

    def __init__(self, gain=1.0):
        self.gain = gain

    def __call__(self, shape, dtype=None):
        return keras.ops.zeros(shape, dtype)


@pytest.fixture
def cheap_start(monkeypatch):
    monkeypatch.setattr(keras.initializers, "Orthogonal", Cheap)


def norm_of(**options):
    return BatchNormalization(**{**options, "epsilon": 1.001e-5})


def with_the_stride_on_the_3x3(model):
    """Move the stride of 2 from a bottleneck's first convolution to its second."""

    def moved(layer):
        config = layer.get_config()
        name, first = layer.name, "_block1_" in layer.name and not layer.name.startswith("conv2")
        if first and name.endswith("_1_conv"):
            config["strides"] = (1, 1)
        if first and name.endswith("_2_conv"):
            config["strides"] = (2, 2)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=moved)


def fold(theirs, name, conv, norm):
    """Hand over a convolution with bias and its normalization to a convolution without."""
    given, after = theirs.get_layer(f"{name}_conv"), theirs.get_layer(f"{name}_bn")
    kernel, bias = shaken(given).get_weights()
    conv.set_weights([kernel])
    gamma, beta, mean, variance = shaken(after).get_weights()
    norm.set_weights([gamma, beta, mean - bias, variance])


def convolutions(layers):
    convs = [one for one in layers if isinstance(one, keras.layers.Conv2D)]
    norms = [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]
    return zip(convs, norms, strict=True)


@pytest.mark.long
def test_resnet_50_has_the_features_of_keras_applications(cheap_start):
    theirs = with_the_stride_on_the_3x3(
        keras.applications.ResNet50(
            include_top=False, weights=None, input_shape=(65, 65, 3), name="resnet50"
        )
    )
    # Every side that a stride of 2 meets is odd, where `same` pads alike on both sides.
    x = image(65)
    blocks = built(resnet50((65, 65, 3), normalization=norm_of), x)
    for conv, norm in convolutions(blocks[0].entry):
        fold(theirs, "conv1", conv, norm)
    places = [(g, p) for g, n in enumerate((3, 4, 6, 3), start=2) for p in range(1, n + 1)]
    for block, (group, position) in zip(blocks, places, strict=True):
        name = f"conv{group}_block{position}"
        for number, (conv, norm) in enumerate(convolutions(block.branch), start=1):
            fold(theirs, f"{name}_{number}", conv, norm)
        for conv, norm in convolutions(block.shortcut):
            fold(theirs, f"{name}_0", conv, norm)
    wanted = np.asarray(theirs(x, training=False))
    assert wanted.std() > 0.1
    np.testing.assert_allclose(features(blocks, x), wanted, rtol=1e-3, atol=1e-3 * wanted.std())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(resnet50, "ResNet50"), (resnet101, "ResNet101"), (resnet152, "ResNet152")],
)
def test_resnets_have_the_parameters_and_shapes_of_keras_applications(ours, theirs):
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(keras.applications, theirs)(
            include_top=False, weights=None, input_shape=(64, 96, 3)
        )
        shape, sides = (None, 64, 96, 3), []
        blocks = ours((64, 96, 3))
        for block in blocks:
            block.build(shape)
            shape = block.compute_output_shape(shape)
            sides.append(shape)
    # Theirs have a bias before every batch normalization.
    biases = sum(layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert sum(block.count_params() for block in blocks) == model.count_params() - biases
    sums = [layer.output.shape for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert sides == sums


def test_vgg_19_has_the_features_of_keras_applications(cheap_start):
    theirs = keras.applications.VGG19(include_top=False, weights=None, input_shape=(32, 32, 3))
    x = image(32)
    blocks = built(vgg(19, (32, 32, 3), bias=True), x)
    given = [layer for layer in theirs.layers if isinstance(layer, keras.layers.Conv2D)]
    for block, conv in zip(blocks, given, strict=True):
        hand_over(conv, block.layers[-3])
        kernel, bias = conv.get_weights()
        conv.set_weights([4 * kernel, bias])
        block.layers[-3].set_weights([4 * kernel, bias])
        # The normalization that does nothing.
        _, beta, mean, variance = block.layers[-2].get_weights()
        block.layers[-2].set_weights([np.sqrt(1 + 1e-5) * (1 + beta), beta, mean, variance])
    wanted = np.asarray(theirs(x, training=False))
    assert wanted.std() > 0.01
    found = keras.layers.MaxPooling2D(2)(features(blocks, x))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * wanted.std())


def test_vgg_has_the_parameters_of_keras_applications():
    for depth, name in ((16, "VGG16"), (19, "VGG19")):
        with keras.StatelessScope(initialize_variables=False):
            theirs = getattr(keras.applications, name)(
                include_top=False, weights=None, input_shape=(64, 64, 3)
            )
            ours, shape = vgg(depth, (64, 64, 3), bias=True), (None, 64, 64, 3)
            for block in ours:
                block.build(shape)
                shape = block.compute_output_shape(shape)
        norms = sum(block.layers[-2].count_params() for block in ours)
        assert sum(block.count_params() for block in ours) - norms == theirs.count_params()
        assert shape == (None, 4, 4, 512)
        assert theirs.output.shape == (None, 2, 2, 512)


@pytest.fixture
def keras_hub():
    return pytest.importorskip("keras_hub")


def units(block):
    return [layer for layer in block.layers if isinstance(layer, ResidualBlock)]


@pytest.mark.filterwarnings("ignore:.*mask:UserWarning")  # Of KerasHub's own layers.
def test_swin_has_the_features_of_keras_hub(keras_hub):
    x = image(32)
    theirs = keras_hub.models.SwinTransformerBackbone(
        (32, 32, 3), 16, (2, 4), (2, 4), window_size=4, patch_size=2
    )
    blocks = built(swin_tiny((32, 32, 3), 2, 4, 16, (2, 4), (2, 4)), x)
    head = NormHead(1)
    head.build((None, 8, 8, 32))
    conv, norm = units(blocks[0])[0].entry
    hand_over(theirs.patch_embedding.proj, conv)
    hand_over(theirs.patch_embedding.norm, norm)
    given = [block for stage in theirs.stages for block in stage.blocks]
    for ours, block in zip(blocks, given, strict=True):
        attention, dense = units(ours)
        hand_over(block.norm1, attention.branch[0])
        layer = attention.branch[1]
        hand_over(block.attn.qkv, layer.qkv)
        hand_over(block.attn.proj, layer.projection)
        table = np.random.default_rng(1).normal(size=layer.relative_position_bias.shape)
        layer.relative_position_bias.assign(table)
        block.attn.relative_position_bias_table.assign(table)
        hand_over(block.norm2, dense.branch[0])
        hand_over(block.mlp.fc1, dense.branch[1])
        hand_over(block.mlp.fc2, dense.branch[2])
    merging = blocks[1].layers[-1]
    hand_over(theirs.stages[0].downsample.norm, merging.norm)
    hand_over(theirs.stages[0].downsample.reduction, merging.reduction)
    hand_over(theirs.norm, head.layers_in_a_row[0])
    found = np.asarray(head.layers_in_a_row[0](features(blocks, x)))
    wanted = np.asarray(theirs(x, training=False)).reshape(found.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("class_token", [True, False])
def test_vit_has_the_features_of_keras_hub(keras_hub, class_token):
    x = image(16)
    theirs = keras_hub.models.ViTBackbone(
        (16, 16, 3), 4, 3, 2, 8, 32, use_class_token=class_token, layer_norm_epsilon=1e-6
    )
    blocks = built(vit((16, 16, 3), 4, 8, 3, 2, class_token=class_token), x)
    patching, encoder = theirs.layers[1:]
    conv, _, positions = units(blocks[0])[0].entry
    hand_over(patching.patch_embedding, conv)
    positions.positions.assign(shaken(patching.position_embedding).get_weights()[0])
    if class_token:
        positions.token.assign(np.random.default_rng(1).normal(size=(1, 8)))
        patching.class_token.assign(positions.token[None])
    for ours, block in zip(blocks, encoder.encoder_layers, strict=True):
        attention, dense = units(ours)
        hand_over(block.layer_norm_1, attention.branch[0])
        hand_over(block.mha, attention.branch[1].attention)
        hand_over(block.layer_norm_2, dense.branch[0])
        hand_over(block.mlp.dense_1, dense.branch[1])
        hand_over(block.mlp.dense_2, dense.branch[2])
    head = NormHead(1, epsilon=1e-6)
    found = features(blocks, x)
    head.build(found.shape)
    hand_over(encoder.layer_norm, head.layers_in_a_row[0])
    found = np.asarray(head.layers_in_a_row[0](found))
    np.testing.assert_allclose(found, theirs(x, training=False), rtol=1e-4, atol=1e-4)
