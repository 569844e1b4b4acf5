"""Train briefly, publish every depth, and ask for predictions over the network.

    python examples/serve_truncated.py

The client is what one writes against TensorFlow Serving: gRPC through the stubs of
`tensorflow-serving-api`, and REST. The server here is a stand-in on 127.0.0.1
(`stand_in_server.py`). With a real server that serves the same base folder, give its addresses:

    python examples/serve_truncated.py --grpc=127.0.0.1:8500 --rest=127.0.0.1:8501
"""

import base64
import contextlib
import json
import os
import pathlib
import urllib.request

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import keras_trgl as trgl
from stand_in_server import StandInServer

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 5, "Epochs of training on the digits.", lower_bound=1)
flags.DEFINE_integer("depth", 14, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_string("base_dir", "runs/serving/digits", "Base folder of the published versions.")
flags.DEFINE_string("grpc", "", "Address of a server; a stand-in is started if there is none.")
flags.DEFINE_string("rest", "", "Address of its REST side.")

NAME = "digits"


def train(data):
    """Give a network of three stages, trained for a few epochs."""
    blocks = trgl.architectures.resnet(depth=FLAGS.depth, input_shape=data.input_shape)
    model = trgl.GreedyModel.from_blocks(
        blocks,
        stage_sizes=trgl.splitting.by_depth(blocks, num_stages=3),
        head=trgl.heads.ConvHead(units=data.num_classes),
        seed=0,
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data.stream(batch_size=32, augment=False), epochs=FLAGS.epochs, verbose=2)
    return model


def publish(model, data):
    """Choose thresholds on held-out images, and publish all depths as the next version."""
    choice = trgl.export.choose_exit(model, data.arrays("validation"), max_drop=0.0)
    print(choice)
    report = trgl.export.export_serving(
        model,
        FLAGS.base_dir,
        inputs=trgl.export.Inputs(
            dtype="uint8",
            preprocess=trgl.datasets.Normalize(data.mean, data.std),
            encoded=True,
        ),
        outputs=choice.outputs(class_names=[f"digit {k}" for k in range(10)]),
        files=trgl.export.ServerFiles(warmup=(1, 8), model_name=NAME),
    )
    print(report)
    return report


def ask_by_grpc(address, signature, inputs):
    """Give the outputs of a signature as arrays, over gRPC."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(request, timeout=30.0)
    return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}


def ask_by_rest(address, signature, instances):
    """Give a dict of outputs per row, over REST."""
    body = json.dumps({"signature_name": signature, "instances": instances}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/v1/models/{NAME}:predict", body, timeout=30.0) as answer:
        return json.load(answer)["predictions"]


def main(argv):
    """Train, publish, ask, and compare with the model."""
    del argv
    data = trgl.datasets.load("digits").hold_out(0.2)
    model = train(data)
    publish(model, data)
    images, labels = data.x_test[:64], data.y_test[:64]
    live = model.predict_exits(data.arrays("test")[0][:64], verbose=0)
    with contextlib.ExitStack() as stack:
        grpc_address, rest_address = FLAGS.grpc, FLAGS.rest
        if not grpc_address or not rest_address:
            server = stack.enter_context(StandInServer(pathlib.Path(FLAGS.base_dir), NAME))
            grpc_address, rest_address = server.grpc_address, server.rest_address
            print(f"stand-in server: gRPC {grpc_address}, REST {rest_address}")
        for depth in (1, 2, 3):
            found = ask_by_grpc(grpc_address, f"exit_{depth}", {"inputs": images})
            difference = np.abs(found["logits"] - live[depth - 1]).max()
            right = (found["class_id"] == labels).mean()
            print(f"gRPC exit_{depth}: accuracy {right:.3f}, differs by {difference:.1e}")
        rows = ask_by_rest(rest_address, "confident_exit", images.tolist())
        exits = np.array([row["exit"] for row in rows])
        right = np.mean([row["class_id"] for row in rows] == labels)
        wanted = np.stack(live)[exits - 1, np.arange(len(rows))]
        difference = np.abs(np.array([row["logits"] for row in rows]) - wanted).max()
        counts = [int((exits == depth).sum()) for depth in (1, 2, 3)]
        print(
            f"REST confident_exit: accuracy {right:.3f}, rows by exit {counts}, "
            f"differs by {difference:.1e}"
        )
        png = tf.io.encode_png(images[0]).numpy()
        (row,) = ask_by_rest(
            rest_address, "encoded", [{"b64": base64.b64encode(png).decode("ascii")}]
        )
        print(f"REST encoded, a PNG of {len(png)} bytes: {row['label']} (it is {labels[0]})")


if __name__ == "__main__":
    app.run(main)
