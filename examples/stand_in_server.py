"""A stand-in for TensorFlow Serving, for examples and tests on one machine.

It is not TensorFlow Serving and says nothing of its speed or its behaviour under load: a few
lines of Python on loopback that answer the part of its gRPC and REST interfaces that the example
uses, so that the client's code is the one a user would write. It serves the largest version in a
base folder and looks for a newer one every second, as the real server does.
"""

import base64
import concurrent.futures
import http.server
import json
import pathlib
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

HOST = "127.0.0.1"
CODES = {
    "NOT_FOUND": (grpc.StatusCode.NOT_FOUND, 404),
    "FAILED_PRECONDITION": (grpc.StatusCode.FAILED_PRECONDITION, 400),
    "INVALID_ARGUMENT": (grpc.StatusCode.INVALID_ARGUMENT, 400),
}


class RequestError(Exception):
    """A request that cannot be answered; its code is one of `CODES`."""

    def __init__(self, code, words):
        super().__init__(words)
        self.code = code


class StandInServer:
    """Serves one model on loopback; use it in a `with` block.

    Args:
        base_dir: path of the base folder, whose numbered children are versions.
        model_name: str.
    """

    def __init__(self, base_dir, model_name):
        self.base, self.model_name = pathlib.Path(base_dir), model_name
        self.versions = {}
        self.stopping = threading.Event()
        self.load()
        self.grpc_server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _Predictions(self), self.grpc_server
        )
        self.grpc_address = f"{HOST}:{self.grpc_server.add_insecure_port(f'{HOST}:0')}"
        handler = type("Handler", (_Handler,), {"server_of_model": self})
        self.rest_server = http.server.ThreadingHTTPServer((HOST, 0), handler)
        self.rest_address = f"{HOST}:{self.rest_server.server_address[1]}"
        self.threads = [
            threading.Thread(target=self.rest_server.serve_forever, daemon=True),
            threading.Thread(target=self.poll, daemon=True),
        ]

    def __enter__(self):
        """Begin to answer."""
        self.grpc_server.start()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        """Stop, and wait until all threads are done."""
        self.stopping.set()
        self.rest_server.shutdown()
        self.rest_server.server_close()
        self.grpc_server.stop(None).wait()
        for thread in self.threads:
            thread.join()

    def poll(self):
        """Look for a newer version every second."""
        while not self.stopping.wait(1.0):
            self.load()

    def load(self):
        """Load the largest version, if it is not loaded."""
        numbers = [int(one.name) for one in self.base.iterdir() if one.name.isdecimal()]
        newest = max(numbers, default=None)
        if newest is not None and newest not in self.versions:
            self.versions = {newest: tf.saved_model.load(str(self.base / str(newest)))}

    def run(self, model_name, version, signature_name, inputs):
        """Run a signature on tensors by name.

        Raises:
            RequestError: no such model, version or signature, or inputs that do not fit.
        """
        versions = self.versions
        version = version or max(versions, default=0)
        if model_name != self.model_name or version not in versions:
            raise RequestError(
                "NOT_FOUND", f"Servable not found for request: {model_name}/{version}"
            )
        signatures = versions[version].signatures
        name = signature_name or "serving_default"
        if name not in signatures:
            raise RequestError("FAILED_PRECONDITION", f"Serving signature key {name!r} not found.")
        specs = signatures[name].structured_input_signature[1]
        if set(inputs) != set(specs):
            raise RequestError("INVALID_ARGUMENT", f"Inputs must be {sorted(specs)}.")
        try:
            tensors = {key: tf.constant(inputs[key], specs[key].dtype) for key in specs}
            return version, {
                key: value.numpy() for key, value in signatures[name](**tensors).items()
            }
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise RequestError("INVALID_ARGUMENT", str(error)) from error


class _Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The gRPC side: `Predict`."""

    def __init__(self, server):
        self.server = server

    def Predict(self, request, context):
        """Answer one request."""
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        spec = request.model_spec
        try:
            version, outputs = self.server.run(
                spec.name, spec.version.value, spec.signature_name, inputs
            )
        except RequestError as error:
            context.abort(CODES[error.code][0], str(error))
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = spec.signature_name
        for key, value in outputs.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response


class _Handler(http.server.BaseHTTPRequestHandler):
    """The REST side: status and `:predict`, in row and in column form."""

    def log_message(self, *args):
        """Say nothing."""

    def do_GET(self):
        """Tell the versions."""
        name, version, verb = self.parts()
        there = self.server_of_model.versions
        known = name == self.server_of_model.model_name and (not version or version in there)
        if verb or not known:
            return self.answer(404, {"error": f"Could not find {self.path}"})
        status = [
            {
                "version": str(number),
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for number in there
        ]
        return self.answer(200, {"model_version_status": status})

    def do_POST(self):
        """Answer one request."""
        name, version, verb = self.parts()
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            if verb != "predict" or ("instances" in body) == ("inputs" in body):
                raise RequestError("INVALID_ARGUMENT", "Give `instances` or `inputs` to `:predict`")
            in_rows = "instances" in body
            given = _decoded(body["instances"] if in_rows else body["inputs"])
            inputs = _columns(given, in_rows, self.keys(body))
            _, outputs = self.server_of_model.run(name, version, body.get("signature_name"), inputs)
        except RequestError as error:
            return self.answer(CODES[error.code][1], {"error": str(error)})
        except (ValueError, KeyError, TypeError) as error:
            return self.answer(400, {"error": f"JSON Parse error: {error}"})
        plain = {key: _plain(value) for key, value in outputs.items()}
        if not in_rows:
            return self.answer(
                200, {"outputs": plain if len(plain) > 1 else next(iter(plain.values()))}
            )
        count = len(next(iter(plain.values())))
        rows = [{key: value[i] for key, value in plain.items()} for i in range(count)]
        if len(plain) == 1:
            rows = [next(iter(row.values())) for row in rows]
        return self.answer(200, {"predictions": rows})

    def keys(self, body):
        """Give the names of the inputs that a request's signature takes."""
        versions = self.server_of_model.versions
        signatures = versions[max(versions)].signatures
        name = body.get("signature_name") or "serving_default"
        if name not in signatures:
            raise RequestError("FAILED_PRECONDITION", f"Serving signature key {name!r} not found.")
        return list(signatures[name].structured_input_signature[1])

    def parts(self):
        """Give model name, version (0 for none) and verb of the request's path."""
        path, _, verb = self.path.removeprefix("/v1/models/").partition(":")
        name, _, version = path.partition("/versions/")
        return name, int(version) if version.isdecimal() else 0, verb

    def answer(self, code, content):
        """Send JSON."""
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _decoded(value):
    """Turn `{"b64": …}` into bytes, wherever it stands."""
    if isinstance(value, dict):
        if set(value) == {"b64"}:
            return base64.b64decode(value["b64"])
        return {key: _decoded(inner) for key, inner in value.items()}
    return [_decoded(inner) for inner in value] if isinstance(value, list) else value


def _columns(given, in_rows, keys):
    """Give inputs by name from rows or columns, named or, where there is one input, bare."""
    if in_rows and given and isinstance(given[0], dict):
        return {key: [row[key] for row in given] for key in given[0]}
    if isinstance(given, dict):
        return given
    return {keys[0]: given}


def _plain(array):
    if array.dtype == object:
        return [value.decode() for value in array]
    return np.asarray(array).tolist()
