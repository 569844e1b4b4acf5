"""Files for other runtimes give what the live model gives."""

import keras
import numpy as np
import pytest
from exported import BATCHES, SHAPE, TOLERANCE, client_rows, live, network, scatter

from keras_trgl.architectures import resnet
from keras_trgl.datasets import Normalize
from keras_trgl.export import Inputs, export_litert, export_onnx, export_openvino

pytestmark = pytest.mark.sampled(2)

NORMALIZE = Normalize([0.5], [0.3])


def litert(path):
    module = pytest.importorskip("ai_edge_litert.interpreter")
    signature = module.Interpreter(model_path=str(path)).get_signature_runner()
    return lambda rows: signature(inputs=rows)["predictions"]


def onnx(path):
    module = pytest.importorskip("onnxruntime")
    session = module.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda rows: session.run(["predictions"], {"inputs": rows})[0]


def openvino(path):
    module = pytest.importorskip("openvino")
    compiled = module.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda rows: compiled(rows)["predictions"]


FORMATS = {
    "litert": (export_litert, "a.tflite", litert, ("ai_edge_litert",)),
    "onnx": (export_onnx, "a.onnx", onnx, ("tf2onnx", "onnxruntime")),
    "openvino": (export_openvino, "a.xml", openvino, ("openvino", "scipy")),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("depth", [1, 3])
def test_a_file_gives_what_the_live_model_gives(model, tmp_path, kind, depth):
    export, name, load, packages = FORMATS[kind]
    for package in packages:
        pytest.importorskip(package)
    inputs = Inputs("uint8", NORMALIZE) if depth == 3 else None
    done = export(model, depth, tmp_path / name, inputs=inputs)
    assert done.max_difference <= TOLERANCE
    assert done.agreement == 1.0
    assert done.bytes == sum(one.stat().st_size for one in tmp_path.iterdir())
    run = load(tmp_path / name)
    for size in BATCHES:
        rows = client_rows(size)
        x = NORMALIZE(rows).numpy()
        wanted = live(model, x)[depth - 1]
        sent = rows if inputs else x
        got = np.array(run(sent))
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE, rtol=0)
        single = np.concatenate([np.array(run(sent[i : i + 1])) for i in range(min(size, 7))])
        np.testing.assert_allclose(single, wanted[:7], atol=TOLERANCE, rtol=0)


@pytest.mark.long
def test_quantized_files_are_smaller_and_near(tmp_path):
    pytest.importorskip("ai_edge_litert")
    # Weights of less than a thousand numbers are left as they are.
    model = scatter(network(blocks=resnet(depth=8, input_shape=SHAPE, widths=(16, 32, 32))))
    data = NORMALIZE(client_rows(200, seed=5)).numpy()
    reports = {
        kind: export_litert(model, 3, tmp_path / f"{kind}.tflite", kind, representative_data=data)
        for kind in ("float32", "float16", "dynamic", "int8")
    }
    size = live(model, data)[2].std()
    assert reports["float32"].max_difference <= TOLERANCE
    for kind, share, bytes_share in [
        ("float16", 0.01, 0.6),
        ("dynamic", 0.2, 0.4),
        ("int8", 0.5, 0.4),
    ]:
        assert reports[kind].bytes < bytes_share * reports["float32"].bytes
        assert 0 < reports[kind].max_difference < share * size
        assert reports[kind].agreement >= 0.9
    details = litert_details(tmp_path / "int8.tflite")
    assert {entry["dtype"] for entry in details} == {np.int8}


def litert_details(path):
    module = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(model_path=str(path))
    return interpreter.get_input_details() + interpreter.get_output_details()


def test_a_file_is_checked_before_it_appears(model, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")

    def wrong(path):
        return lambda rows: np.zeros((len(rows), 5), "float32")

    monkeypatch.setattr("keras_trgl.export.formats._litert_runner", wrong)
    with pytest.raises(RuntimeError, match="`LiteRT` must give what the live model gives"):
        export_litert(model, 1, tmp_path / "a.tflite")
    assert list(tmp_path.iterdir()) == []


def test_constants_that_become_inputs_of_an_onnx_file_are_told(model, tmp_path):
    for package in FORMATS["onnx"][3]:
        pytest.importorskip(package)
    layer = keras.layers.Normalization(mean=[0.5], variance=[0.1])
    with pytest.raises(RuntimeError, match=r"the one input `inputs`. Received: .*Rescaling"):
        export_onnx(model, 1, tmp_path / "a.onnx", inputs=Inputs(preprocess=layer))
    assert list(tmp_path.iterdir()) == []


def test_openvino_reads_the_served_model_as_it_is(model, tmp_path):
    module = pytest.importorskip("openvino")
    from keras_trgl.export import export_exit

    done = export_exit(model, 2, tmp_path, inputs=Inputs("uint8", NORMALIZE))
    core = module.Core()
    compiled = core.compile_model(
        core.read_model(str(done.path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    rows = client_rows(7)
    found = {
        name: np.array(value) for key, value in compiled(rows).items() for name in key.get_names()
    }
    wanted = live(model, NORMALIZE(rows))[1]
    logits = next(value for name, value in found.items() if "logits" in name)
    np.testing.assert_allclose(logits, wanted, atol=TOLERANCE, rtol=0)
    assert rows.shape[1:] == SHAPE
