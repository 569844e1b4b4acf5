"""Models trained in half precision become files through a float32 twin."""

import keras
import numpy as np
import pytest

import keras_trgl as trgl

pytestmark = pytest.mark.sampled(2)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 24)
BOUNDS = {"mixed_float16": 2e-2, "mixed_bfloat16": 1e-1}
FILES = {
    "litert_float32": ("ai_edge_litert", ".tflite", {}),
    "litert_float16": ("ai_edge_litert", ".tflite", {"quantization": "float16"}),
    "litert_dynamic": ("ai_edge_litert", ".tflite", {"quantization": "dynamic"}),
    "litert_int8": (
        "ai_edge_litert",
        ".tflite",
        {"quantization": "int8", "representative_data": X},
    ),
    "onnx": ("onnxruntime", ".onnx", {}),
    "openvino": ("openvino", ".xml", {}),
}


@pytest.fixture(scope="module", params=BOUNDS)
def trained(request):
    """A model trained under a half policy, with the policy's name; the policy is put back."""
    keras.config.set_dtype_policy(request.param)
    blocks = trgl.architectures.resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = trgl.GreedyModel.from_blocks(blocks, [2, 1], trgl.heads.ConvHead(3), seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    model.fit(X, Y, batch_size=8, verbose=0)
    keras.config.set_dtype_policy("float32")
    return model, request.param


@pytest.mark.parametrize("policy_now", ["float32", "as_trained"])
@pytest.mark.parametrize("file", FILES)
def test_a_half_precision_model_becomes_a_file_within_the_bound(
    trained, tmp_path, file, policy_now
):
    model, policy = trained
    if policy_now == "as_trained" and file != "litert_float32":
        pytest.skip("The global policy matters to the twin, which all files share.")
    runtime, ending, options = FILES[file]
    pytest.importorskip(runtime)
    keras.config.set_dtype_policy(policy if policy_now == "as_trained" else "float32")
    before = keras.config.dtype_policy().name
    export = getattr(trgl.export, f"export_{file.split('_')[0]}")
    report = export(model, 2, tmp_path / f"depth{ending}", **options)
    # Weights of 8 bits are another loss than that of the type.
    slack = 1.0 if "float" in file or not options else 4.0
    assert report.max_difference <= BOUNDS[policy] * slack
    assert keras.config.dtype_policy().name == before
    assert {str(layer.compute_dtype) for layer in model.heads} == {policy.removeprefix("mixed_")}
