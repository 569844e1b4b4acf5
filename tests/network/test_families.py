"""Families of `keras.applications`, cut in three: the same features, residuals as listed, trained,
saved and given back. Four in `make test`, the others in `make test-all` and `make test-models`.
"""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead

FAMILIES = {
    # Name: (side, residuals in the paper's network, in `make test`).
    "MobileNetV2": (32, 10, True),
    "EfficientNetB0": (32, 9, False),
    "VGG16": (32, 0, True),
    "ConvNeXtTiny": (32, 18, False),
    "ResNet50": (32, 16, False),
    "ResNet50V2": (32, 16, False),
    "ResNet101": (32, 33, False),
    "InceptionResNetV2": (75, 40, False),
    "InceptionV3": (75, 0, False),
    "Xception": (71, 12, False),
    "DenseNet121": (32, 0, False),
    "MobileNet": (32, 0, False),
    "MobileNetV3Small": (32, 6, False),
    "MobileNetV3Large": (32, 10, False),
    "EfficientNetV2B0": (32, 15, False),
    "NASNetMobile": (32, None, False),
    "VGG19": (32, 0, False),
}
"""`None`: two cells cross every cut, which is refused."""

ROWS = [
    pytest.param(name, *row, marks=[pytest.mark.models, *([] if short else [pytest.mark.long])])
    for name, (*row, short) in FAMILIES.items()
]


@pytest.mark.filterwarnings("ignore:(?s).*there is none in stage")
@pytest.mark.parametrize(("name", "side", "residuals"), ROWS)
def test_family(name, side, residuals, tmp_path):
    keras.utils.set_random_seed(0)
    make = getattr(keras.applications, name)
    model = make(weights=None, include_top=False, input_shape=(side, side, 3))
    head = LinearHead(3)
    if residuals is None:
        with pytest.raises(ValueError, match=r"at most \d for this model"):
            GreedyModel.from_model(model, 3, head=head, seed=0)
        return
    x = np.random.default_rng(0).uniform(0, 255, (4, side, side, 3)).astype("float32")
    expected = model.predict_on_batch(x)
    network = GreedyModel.from_model(model, 3, head=head, seed=0)
    features = x
    for stage in network.stages:
        features = stage(features, training=False)
    np.testing.assert_array_equal(features, model(x, training=False))
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
    assert again.cut_table() == network.cut_table()
    np.testing.assert_array_equal(again.predict_on_batch(x), network.predict_on_batch(x))
    for a, b in zip(again.to_keras().get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
