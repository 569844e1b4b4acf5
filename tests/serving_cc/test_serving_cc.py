"""The SavedModel in TensorFlow's C++ loader, the one that TensorFlow Serving uses."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "export"))

import exported  # noqa: E402

from keras_trgl.architectures import resnet  # noqa: E402
from keras_trgl.datasets import Normalize  # noqa: E402
from keras_trgl.export import (  # noqa: E402
    Inputs,
    Outputs,
    ServerFiles,
    export_exit,
    export_serving,
)

NORMALIZE = Normalize([0.5], [0.3])
THRESHOLDS = (0.55, 0.42)


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """The checker, built."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("There is no C++ compiler here.")
    library = pathlib.Path(tf.sysconfig.get_lib())
    if not (library / "libtensorflow_cc.so.2").exists():
        pytest.skip("This TensorFlow has no C++ library.")
    program = tmp_path_factory.mktemp("build") / "check"
    command = [
        compiler,
        *tf.sysconfig.get_compile_flags(),
        "-O0",
        "-w",
        str(HERE / "check.cc"),
        f"-o{program}",
        f"-L{library}",
        # Nothing in the program names what registers sessions, so the linker would drop it.
        "-Wl,--no-as-needed",
        "-l:libtensorflow_cc.so.2",
        "-l:libtensorflow_framework.so.2",
        f"-Wl,-rpath,{library}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    def run(model, cases, *options):
        return subprocess.run(
            [str(program), str(model), str(cases), *options],
            capture_output=True,
            text=True,
            env={"TF_CPP_MIN_LOG_LEVEL": "2"},
        )

    return run


@pytest.fixture(scope="module")
def model():
    blocks = resnet(depth=8, input_shape=exported.SHAPE, widths=(4, 8, 8))
    # A name that no graph gives by counting up: it can only come from this block.
    blocks[1] = type(blocks[1]).from_config({**blocks[1].get_config(), "name": "second_block"})
    return exported.scatter(exported.network(blocks=blocks))


@pytest.fixture(scope="module")
def report(model, tmp_path_factory):
    pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    return export_serving(
        model,
        tmp_path_factory.mktemp("base") / "net",
        inputs=Inputs("uint8", NORMALIZE, encoded=True),
        outputs=Outputs(class_names=exported.NAMES, thresholds=THRESHOLDS),
        files=ServerFiles(warmup=(1, 4)),
    )


def described(logits):
    """Give what a signature gives for logits of the live model."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    chosen = logits.argmax(-1)
    return {
        "logits": logits,
        "probabilities": shifted / shifted.sum(-1, keepdims=True),
        "class_id": chosen,
        "label": np.array(exported.NAMES, object)[chosen],
    }


def record(folder, inputs, outputs):
    for part, tensors in (("in", inputs), ("out", outputs)):
        (folder / part).mkdir(parents=True)
        for key, value in tensors.items():
            proto = tf.make_tensor_proto(value)
            (folder / part / key).write_bytes(proto.SerializeToString())


def record_all(cases, model, sizes):
    """Record every signature's outputs, made from the live model and NumPy alone."""
    for size in sizes:
        rows = exported.client_rows(size)
        logits = [one.astype("float32") for one in exported.live(model, NORMALIZE(rows))]
        found = [described(one) for one in logits]
        for depth, one in enumerate(found, start=1):
            record(cases / f"exit_{depth}.{size}", {"inputs": rows}, one)
        record(cases / f"serving_default.{size}", {"inputs": rows}, found[2])
        every = {f"{key}_{k}": one[key] for k, one in enumerate(found, start=1) for key in one}
        record(cases / f"all_exits.{size}", {"inputs": rows}, every)
        sure = np.stack([one["probabilities"].max(-1) for one in found])
        leaves = np.vstack([sure[:-1] >= np.array(THRESHOLDS)[:, None], np.ones((1, size), bool)])
        exits = leaves.argmax(0)
        left = described(np.stack(logits)[exits, np.arange(size)])
        left["exit"] = (exits + 1).astype("int32")
        record(cases / f"confident_exit.{size}", {"inputs": rows}, left)
        images = np.array([tf.io.encode_png(one).numpy() for one in rows], object)
        record(cases / f"encoded.{size}", {"image_bytes": images}, found[2])


def test_every_signature_gives_in_cpp_what_the_live_model_gives(check, model, report, tmp_path):
    record_all(tmp_path, model, exported.BATCHES)
    done = check(report.path, tmp_path, f"--numbers={report.numbers}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("21 cases")


def test_warm_up_requests_run_in_cpp(check, report, tmp_path):
    from tensorflow_serving.apis import prediction_log_pb2

    path = report.path / "assets.extra" / "tf_serving_warmup_requests"
    for place, record_ in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
        request = prediction_log_pb2.PredictionLog.FromString(record_).predict_log.request
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        record(tmp_path / f"{request.model_spec.signature_name}.{place}", inputs, {})
    done = check(report.path, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(f"{report.warmup_requests} cases")


def test_a_single_exit_holds_its_own_numbers_and_names_in_cpp(check, model, tmp_path):
    done = export_exit(model, 1, tmp_path / "base", inputs=Inputs("uint8", NORMALIZE))
    rows = exported.client_rows(7)
    one = described(exported.live(model, NORMALIZE(rows))[0].astype("float32"))
    del one["label"]
    for name in ("exit_1", "serving_default"):
        record(tmp_path / "cases" / name, {"inputs": rows}, one)
    numbers = f"--numbers={exported.parameters(model, 1)}"
    options = [numbers, "--without=stage_2", "--without=head_2", "--without=second_block"]
    checked = check(done.path, tmp_path / "cases", *options)
    assert checked.returncode == 0, checked.stderr[-2000:]


def test_the_checker_finds_what_is_wrong(check, model, report, tmp_path):
    rows = exported.client_rows(3)
    right = described(exported.live(model, NORMALIZE(rows))[0].astype("float32"))
    record(tmp_path / "exit_1.a", {"inputs": rows}, right)
    assert "no case for" in check(report.path, tmp_path).stderr
    assert "numbers stored" in check(report.path, tmp_path, "--numbers=1").stderr
    for name in ("head_2", "second_block"):
        assert f"holds the name {name}" in check(report.path, tmp_path, f"--without={name}").stderr
    wrong = {**right, "logits": right["logits"] + np.float32(1e-3)}
    record(tmp_path / "exit_1.b", {"inputs": rows}, wrong)
    assert "logits differs by" in check(report.path, tmp_path).stderr
