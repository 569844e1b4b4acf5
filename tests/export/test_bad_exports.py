"""Bad input: a clear error each, and nothing half-written."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import SHAPE, scatter, small_network

from keras_trgl import GreedyModel
from keras_trgl.export import (
    Inputs,
    Outputs,
    ServerFiles,
    export_exit,
    export_litert,
    export_onnx,
    export_openvino,
    export_serving,
)


def by_numpy(x):
    return np.asarray(x) / 255.0


def by_python(x):
    return tf.ensure_shape(tf.numpy_function(lambda y: y, [x], tf.float32), x.shape)


def by_if(x):
    return x if tf.reduce_sum(x) > 0 else -x


def by_reshape(x):
    return tf.reshape(x, (-1, *SHAPE))


@pytest.fixture(scope="module")
def model():
    return scatter(small_network())


REFUSED = {
    "thresholds": ({"outputs": Outputs(thresholds=[0.5])}, ValueError, "2 for 3 stages"),
    "class names": ({"outputs": Outputs(class_names=["a"])}, ValueError, "as many as classes, 5"),
    "default exit": ({"outputs": Outputs(default_exit=4)}, ValueError, "1 to 3, .* Received: 4"),
    "numpy": ({"inputs": Inputs(preprocess=by_numpy)}, ValueError, "fails on a symbolic tensor"),
    "if": ({"inputs": Inputs(preprocess=by_if)}, ValueError, "without Python's `if`"),
    "py_function": ({"inputs": Inputs(preprocess=by_python)}, ValueError, "which no server can"),
    "shape": ({"inputs": Inputs(shape=(4, 4, 1))}, ValueError, "must give the model's data"),
    "random": (
        {"inputs": Inputs(preprocess=lambda x: x + tf.random.normal(tf.shape(x)))},
        RuntimeError,
        "Is `preprocess` random",
    ),
    "batch": (
        {"inputs": Inputs(preprocess=lambda x: x - tf.reduce_mean(x, 0))},
        RuntimeError,
        "depend on the other rows",
    ),
    "label": ({"files": ServerFiles(labels={"old": 7})}, ValueError, r"Received: \{'old': 7\}"),
    "version": ({"version": 0}, ValueError, "`version` must be at least 1"),
    "images": (
        {"inputs": Inputs(shape=(64,), preprocess=by_reshape, encoded=True)},
        ValueError,
        "Encoded images need examples of shape",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_leaves_nothing(model, tmp_path, case):
    arguments, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        export_serving(model, tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("depth", "message"), [(0, "at least 1"), (4, "1 to 3"), (-1, "at least")])
def test_a_depth_outside_is_refused(model, tmp_path, depth, message):
    for export, path in [
        (export_exit, tmp_path),
        (export_litert, tmp_path / "a.tflite"),
        (export_onnx, tmp_path / "a.onnx"),
        (export_openvino, tmp_path / "a.xml"),
    ]:
        with pytest.raises(ValueError, match=message):
            export(model, depth, path)
    assert list(tmp_path.iterdir()) == []


def test_an_unbuilt_model_is_refused(tmp_path):
    model = GreedyModel([[keras.layers.Dense(4)]], [keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="must be built before it is exported"):
        export_serving(model, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_heads_that_give_no_classes_are_values(tmp_path):
    model = GreedyModel([[keras.layers.Dense(4)]], [keras.layers.Reshape((2, 2))], "vangl")
    model.build((None, 3))
    with pytest.raises(ValueError, match=r"\(batch, classes\). Received: .*\(None, 2, 2\)"):
        export_serving(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert export_serving(model, tmp_path, outputs=Outputs("values")).version == 1


def test_another_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match="must be a `GreedyModel`"):
        export_serving(keras.Sequential([keras.layers.Dense(2)]), tmp_path)


def test_a_published_version_is_kept(model, tmp_path):
    export_exit(model, 1, tmp_path, version=3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(FileExistsError, match=r"version=3.*next free one is 4"):
        export_exit(model, 1, tmp_path, version=3)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert export_exit(model, 1, tmp_path).version == 4


def test_a_base_folder_whose_name_is_no_model_s_needs_one(model, tmp_path):
    with pytest.raises(ValueError, match=r"the base folder's, 'my net'. Give `ServerFiles"):
        export_exit(model, 1, tmp_path / "my net")
    assert list(tmp_path.iterdir()) == []


def test_a_base_folder_that_is_a_file_is_refused(model, tmp_path):
    (tmp_path / "base").write_text("")
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        export_exit(model, 1, tmp_path / "base")
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        export_exit(model, 1, tmp_path / "base" / "inner")


@pytest.fixture
def read_only(tmp_path):
    """A folder that this process may not write to; the superuser becomes another user."""
    folder = tmp_path / "base"
    folder.mkdir()
    folder.chmod(0o555)
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    yield folder
    if superuser:
        os.seteuid(0)
    folder.chmod(0o755)


def test_a_base_folder_without_rights_is_refused(model, read_only):
    with pytest.raises(PermissionError, match=r"may write to. Received: .*change its rights"):
        export_exit(model, 1, read_only)
    with pytest.raises(PermissionError, match=r"may write to. Received: .*change its rights"):
        export_exit(model, 1, read_only / "inner")


MISSING = {
    "serving": (
        "tensorflow_serving",
        lambda model, to: export_exit(model, 1, to, files=ServerFiles(warmup=(1,))),
    ),
    "litert": ("ai_edge_litert", lambda model, to: export_litert(model, 1, to / "a.tflite")),
    "onnx": ("tf2onnx", lambda model, to: export_onnx(model, 1, to / "a.onnx")),
    "openvino": ("openvino", lambda model, to: export_openvino(model, 1, to / "a.xml")),
}


@pytest.mark.parametrize("extra", MISSING)
def test_a_missing_extra_is_named(model, tmp_path, monkeypatch, extra):
    package, export = MISSING[extra]
    monkeypatch.setattr("importlib.import_module", without(package, __import__("importlib")))
    with pytest.raises(ImportError, match=rf"pip install keras-trgl\[{extra}\]"):
        export(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def without(package, importlib):
    real = importlib.import_module

    def import_module(name, *args):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{package}'")
        return real(name, *args)

    return import_module


def test_a_file_that_is_there_or_of_another_kind_is_refused(model, tmp_path):
    (tmp_path / "a.tflite").write_text("")
    with pytest.raises(FileExistsError, match="must be a new file"):
        export_litert(model, 1, tmp_path / "a.tflite")
    with pytest.raises(ValueError, match=r"must end in '.onnx'"):
        export_onnx(model, 1, tmp_path / "a.tflite")
    with pytest.raises(ValueError, match="from `representative_data`"):
        export_litert(model, 1, tmp_path / "b.tflite", quantization="int8")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tflite"]
