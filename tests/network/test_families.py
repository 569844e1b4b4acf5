"""Families of models, cut in three: same features, residuals as listed, a step, save and load.

Those of `keras.applications`, and backbones of KerasHub, tiny, with random weights; the latter need
the extra `[models]`. Two rows run in `make test`, twelve in `make test-all`, all in `make
test-models`.
"""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead

IN_TEST, IN_TEST_ALL = (
    ("VGG16", "MobileNetV3Small"),
    (
        *(
            "MobileNetV2",
            "MobileNet",
            "ConvNeXtTiny",
            "ResNet50",
            "EfficientNetB0",
            "InceptionV3",
            "DenseNet121",
            "Xception",
        ),
        *("ResNet50V2", "EfficientNetV2B0"),
    ),
)
"""What runs when; the others run in `make test-models` alone."""

APPLICATIONS = {
    # Name: (side, residuals in the paper's network).
    "MobileNetV2": (32, 10),
    "VGG16": (32, 0),
    "MobileNet": (32, 0),
    "MobileNetV3Small": (32, 6),
    "ConvNeXtTiny": (32, 18),
    "ResNet50": (32, 16),
    "EfficientNetB0": (32, 9),
    "InceptionV3": (75, 0),
    "DenseNet121": (32, 0),
    "Xception": (71, 12),
    "ResNet50V2": (32, 16),
    "EfficientNetV2B0": (32, 15),
    "EfficientNetB1": (32, 16),
    "DenseNet169": (32, 0),
    "ResNet101": (32, 33),
    "ResNet101V2": (32, 33),
    "ResNet152": (32, 50),
    "InceptionResNetV2": (75, 40),
    "MobileNetV3Large": (32, 10),
    "NASNetMobile": (32, 12),
    "VGG19": (32, 0),
}
TEXT = {"vocabulary_size": 20, "num_layers": 4, "num_heads": 2, "hidden_dim": 8}
TEXT |= {"intermediate_dim": 16}
SEQUENCE = {**TEXT, "max_sequence_length": 16}
IMAGE = {"image_shape": (16, 16, 3), "num_layers": 4, "num_heads": 2}
HIDDEN = {**IMAGE, "patch_size": 4, "hidden_dim": 8, "intermediate_dim": 16}
LEVELS = {"image_shape": (32, 32, 3), "num_layers": 2, "layerwise_depths": [2, 2]}
LEVELS |= {"layerwise_num_heads": [1, 2], "layerwise_sr_ratios": [2, 1], "hidden_dims": [8, 16]}
LEVELS |= {"layerwise_patch_sizes": [7, 3], "layerwise_strides": [4, 2], "max_drop_path_rate": 0.1}

HUB = {
    # Name of the class: (settings, residuals).
    "ViTBackbone": ({**IMAGE, "patch_size": (4, 4), "hidden_dim": 8, "mlp_dim": 16}, 8),
    "SwinTransformerBackbone": (
        {
            **{"image_shape": (32, 32, 3), "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)},
            **{"window_size": 4, "patch_size": 2},
        },
        8,
    ),
    "CLIPVisionEncoder": (HIDDEN, 8),
    "DINOV2Backbone": (
        {**HIDDEN, "position_embedding_shape": (16, 16, 3), "use_mask_token": False},
        8,
    ),
    "MiTBackbone": (LEVELS, 8),
    "ViTDetBackbone": (
        {
            **{**IMAGE, "patch_size": 2, "hidden_size": 8, "intermediate_dim": 16},
            **{"global_attention_layer_indices": [1, 3], "num_output_channels": 4},
            "window_size": 2,
        },
        8,
    ),
    "ResNetBackbone": (
        {
            **{
                "input_conv_filters": [64],
                "input_conv_kernel_sizes": [3],
                "block_type": "basic_block",
            },
            **{"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [2, 2]},
            **{"stackwise_num_strides": [1, 2], "image_shape": (32, 32, 3)},
        },
        4,
    ),
    "BertBackbone": (SEQUENCE, 8),
    "GPT2Backbone": (SEQUENCE, 8),
    "LlamaBackbone": (
        {
            **{key: TEXT[key] for key in TEXT if key != "num_heads"},
            **{"num_query_heads": 2, "num_key_value_heads": 1},
        },
        8,
    ),
    "DebertaV3Backbone": ({**SEQUENCE, "bucket_size": 8}, 8),
    "T5Backbone": ({**TEXT, "num_layers": 2}, 10),
    "RobertaBackbone": (SEQUENCE, 8),
}


TOLD = {
    # Its cells add pairs of branches, of which neither is what comes in.
    "NASNetMobile": "ignore:(?s)A sum must show which",
    # The matrix that gives ids back is no part of the features.
    "LlamaBackbone": "ignore:Gradients do not exist for variables .'token_embedding/reverse",
}
"""What rows are told, rightly."""


def marks(name):
    """Give when a row runs, and what it may be told."""
    told = [pytest.mark.filterwarnings(TOLD[name])] if name in TOLD else []
    only = [] if name in (*IN_TEST, *IN_TEST_ALL) else [pytest.mark.only_models]
    return [*told, pytest.mark.models, *([] if name in IN_TEST else [pytest.mark.long]), *only]


ROWS = [
    pytest.param(name, *row, id=name, marks=marks(name))
    for name, row in [*APPLICATIONS.items(), *HUB.items()]
]


def made(name, settings):
    """Give a model with random weights."""
    if name in APPLICATIONS:
        return getattr(keras.applications, name)(
            weights=None, include_top=False, input_shape=(settings, settings, 3)
        )
    models = pytest.importorskip("keras_hub", reason="The extra [models] is missing.").models
    if hasattr(models, name):
        return getattr(models, name)(**settings)
    return keras.saving.get_registered_object(f"keras_hub>{name}")(**settings)


def examples(model):
    """Give four examples in the structure of a model's inputs."""
    rng = np.random.default_rng(0)

    def one(tensor):
        if "int" in str(tensor.dtype):
            ids = rng.integers(1, 4, (4, 6))
            # The last two places of two rows are padding.
            padded = (np.arange(6) < np.array([6, 4, 6, 4])[:, None]).astype("int32")
            if "mask" in tensor.name:
                return padded
            return np.clip(ids, 0, 1) if "segment" in tensor.name else ids * padded
        return rng.uniform(0, 255, (4, *tensor.shape[1:])).astype("float32")

    return keras.tree.map_structure(one, model.input)


def main_of(outputs):
    """Give the output of highest rank."""
    return max(keras.tree.flatten(outputs), key=lambda one: len(one.shape))


def facts(network, name):
    """Give what the table of cuts tells; KerasHub's configurations lack names of some layers."""
    if name in APPLICATIONS:
        return list(network.cut_table())
    return [(row.residuals, row.parameters, row.bytes) for row in network.cut_table()]


@pytest.mark.filterwarnings("ignore:(?s).*there is none in stage")
@pytest.mark.filterwarnings("ignore:(?s).*does not support masking")
@pytest.mark.parametrize(("name", "settings", "residuals"), ROWS)
def test_family(name, settings, residuals, tmp_path):
    keras.utils.set_random_seed(0)
    model, head = made(name, settings), LinearHead(3)
    x = examples(model)
    expected = main_of(model.predict_on_batch(x))
    network = GreedyModel.from_model(model, 3, head=head, seed=0)
    features = x
    for stage in network.stages:
        features = stage(features, training=False)
    features = keras.tree.flatten(features)[0]
    np.testing.assert_array_equal(features, main_of(model(x, training=False)))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert sum(row.residuals for row in network.cut_table()) == residuals

    before = [stage.get_weights() for stage in network.stages]
    network.compile(
        keras.optimizers.SGD(1e-3, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    logs = network.train_on_batch(x, np.arange(4) % 3, return_dict=True)
    assert np.isfinite([value for key, value in logs.items() if key.endswith("loss")]).all()
    if residuals:
        assert all(logs[f"stage_{k}_energy"] > 0 for k in (1, 2, 3))
    for stage, weights in zip(network.stages, before, strict=True):
        pairs = zip(stage.get_weights(), weights, strict=True)
        assert not all(np.array_equal(a, b) for a, b in pairs)
    assert network.to_keras() is model

    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert facts(again, name) == facts(network, name)
    np.testing.assert_array_equal(again.predict_on_batch(x), network.predict_on_batch(x))
    for a, b in zip(again.to_keras().get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
