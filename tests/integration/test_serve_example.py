"""The example of serving, and the stand-in server that it talks to."""

import base64
import json
import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.export import Inputs, Outputs, export_serving
from keras_trgl.heads import LinearHead

ROOT = pathlib.Path(__file__).parents[2]
grpc = pytest.importorskip("grpc")
predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")


def test_the_example_trains_publishes_and_asks(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "serve_truncated.py",
            "--epochs=1",
            "--depth=8",
            f"--base_dir={tmp_path}/digits",
        ],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.findall(r"^(gRPC|REST) (\w+): .*differs by (\S+)$", done.stdout, re.MULTILINE)
    asked = [(kind, name) for kind, name, _ in found]
    assert asked == [*(("gRPC", f"exit_{k}") for k in (1, 2, 3)), ("REST", "confident_exit")]
    assert max(float(value) for _, _, value in found) <= 1e-5
    assert re.search(r"^REST encoded, .*: digit \d \(it is \d\)$", done.stdout, re.MULTILINE)
    assert (tmp_path / "digits" / "models.config").is_file()


@pytest.fixture(scope="module")
def model():
    layers = [[keras.layers.Conv2D(4, 3, activation="relu")], [keras.layers.Conv2D(4, 3)]]
    model = GreedyModel(layers, [LinearHead(3), LinearHead(3)], "vangl", seed=0)
    model.build((None, 8, 8, 1))
    return model


def publish(model, base):
    return export_serving(
        model,
        base,
        inputs=Inputs("uint8", lambda x: x / 255.0, encoded=True),
        outputs=Outputs(class_names=["a", "b", "c"], thresholds=0.5),
    )


@pytest.fixture(scope="module")
def server(model, tmp_path_factory, load_script):
    module = load_script(ROOT / "examples" / "stand_in_server.py")
    base = tmp_path_factory.mktemp("served")
    publish(model, base)
    with module.StandInServer(base, "net") as server:
        yield server


ROWS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), "uint8")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def rest(server, path, body=None):
    """Give status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with OPENER.open(f"http://{server.rest_address}/v1/models/{path}", data) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask(server, **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.get("name", "net")
    request.model_spec.signature_name = spec.get("signature", "")
    request.model_spec.version.value = spec.get("version", 0)
    key = spec.get("key", "inputs")
    request.inputs[key].CopyFrom(tf.make_tensor_proto(spec.get("rows", ROWS)))
    from tensorflow_serving.apis import prediction_service_pb2_grpc as stubs

    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(server.grpc_address, options=options) as channel:
        return stubs.PredictionServiceStub(channel).Predict(request, timeout=30.0)


def test_all_forms_of_a_request_give_the_same(model, server):
    wanted = model(ROWS.astype("float32") / 255.0).numpy()
    outputs = ask(server).outputs
    np.testing.assert_allclose(tf.make_ndarray(outputs["logits"]), wanted, atol=1e-5)
    _, rows = rest(server, "net:predict", {"instances": ROWS.tolist()})
    _, named = rest(server, "net/versions/1:predict", {"instances": [{"inputs": ROWS[0].tolist()}]})
    _, columns = rest(server, "net:predict", {"inputs": {"inputs": ROWS.tolist()}})
    logits = tf.make_ndarray(outputs["logits"])
    np.testing.assert_array_equal([row["logits"] for row in rows["predictions"]], logits.tolist())
    assert named["predictions"][0]["label"] == rows["predictions"][0]["label"]
    np.testing.assert_array_equal(columns["outputs"]["logits"], logits.tolist())
    images = [{"b64": base64.b64encode(tf.io.encode_png(one).numpy()).decode()} for one in ROWS]
    _, encoded = rest(server, "net:predict", {"signature_name": "encoded", "instances": images})
    np.testing.assert_allclose([r["logits"] for r in encoded["predictions"]], logits, atol=1e-5)


def test_the_status_lists_the_version_that_is_served(server):
    code, status = rest(server, "net")
    assert code == 200
    (version,) = status["model_version_status"]
    assert (version["version"], version["state"]) == ("1", "AVAILABLE")


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"name": "other"}, "NOT_FOUND"),
        ({"version": 9}, "NOT_FOUND"),
        ({"signature": "exit_9"}, "FAILED_PRECONDITION"),
        ({"key": "image"}, "INVALID_ARGUMENT"),
        ({"rows": ROWS[0]}, "INVALID_ARGUMENT"),
    ],
)
def test_a_wrong_request_gets_the_code_of_the_real_server(server, spec, code):
    with pytest.raises(grpc.RpcError) as caught:
        ask(server, **spec)
    assert caught.value.code().name == code


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("other", None, 404),
        ("net/versions/9", None, 404),
        ("other:predict", {"instances": [0]}, 404),
        ("net:predict", {}, 400),
        ("net:classify", {"instances": [0]}, 400),
        ("net:predict", {"instances": [[1, 2]]}, 400),
    ],
)
def test_a_wrong_rest_request_gets_an_error_in_json(server, path, body, code):
    status, answer = rest(server, path, body)
    assert status == code
    assert answer["error"]


def test_it_listens_on_loopback_alone(server):
    assert server.grpc_address.startswith("127.0.0.1:")
    assert server.rest_address.startswith("127.0.0.1:")
    assert server.rest_server.server_address[0] == "127.0.0.1"
