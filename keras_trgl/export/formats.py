"""One depth as a single file for LiteRT, ONNX or OpenVINO, through Keras's own exporters.

Each file is written aside, run in its own runtime and compared with the live model, then put in
place. A model that computes in a half type is written through a float32 twin, and compared within
the half type's bound. Runtimes and converters are extras of the package.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_choice, check_integer, needed, path_of
from keras_trgl.export.exported_parts import (
    check_depth,
    check_model,
    in_float32,
    live_parts,
    unplaced,
)
from keras_trgl.export.intake import Intake, check_one_input
from keras_trgl.export.options import Inputs, Outputs
from keras_trgl.export.publish import size_of, written_file
from keras_trgl.export.report import ExportReport
from keras_trgl.export.signatures import Exits
from keras_trgl.export.verify import ExportMismatchError, LiveModel, sample_of
from keras_trgl.layers.stage import Stage
from keras_trgl.network.passing import main
from keras_trgl.progress import Progress
from keras_trgl.registration import public
from keras_trgl.types import Tensor

QUANTIZATIONS = ("float32", "float16", "dynamic", "int8")
NAME = "predictions"
"""Of a file's only output."""

Runner = Callable[[Any], Any]


@public
def export_litert(
    model: Any,
    depth: int,
    path: Any,
    quantization: str = "float32",
    representative_data: Any = None,
    inputs: Inputs | None = None,
    check: bool = True,
    verbose: Any = "auto",
) -> ExportReport:
    """Write F_k∘G_k as a `.tflite` file for LiteRT, and tell how far it is from the live model.

    The file has one signature, from `inputs` to `predictions` `(batch, units)`, the head's
    output. A float32 file that differs by more than 1e-5 (2e-2, 1e-1 where the model computes in
    float16, bfloat16) is an error; others lose precision, so
    their difference and the agreement of the likeliest class are only reported.

    Args:
        model: built `GreedyModel`.
        depth: int, k = 1…K.
        path: str or path of a new file, ending in `.tflite`.
        quantization: `"float32"`; `"float16"`: weights of half the bytes; `"dynamic"`: weights of
            8 bits; `"int8"`: all in 8 bits, inputs and outputs too, by the scales that the file
            tells. Defaults to `"float32"`.
        representative_data: array `(examples, …)` of what a client sends, for `"int8"`: sets the
            scales; a few hundred examples do. Also what the file is checked on. Defaults to
            `None`.
        inputs: `Inputs`: type and preprocessing. `None` means data as the model takes them.
            Defaults to `None`.
        check: bool. Whether to run the file, which takes the extra `[litert]`. Defaults to
            `True`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        `ExportReport`; not checked, its difference is NaN.

    Raises:
        ValueError: the model is not built; `depth` is not 1…K; `"int8"` without data.
        FileExistsError: the file is there.
        ImportError: the extra is missing.
        RuntimeError: the file does not do what the live model does.

    Example:
        >>> import os, tempfile, keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1), widths=(2, 2, 2))
        >>> model = trgl.GreedyModel.from_blocks(blocks, [2, 1], trgl.heads.LinearHead(3), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "depth1.tflite")
        ...     trgl.export.export_litert(model, 1, path, check=False, verbose=0).bytes > 1000
        True
    """
    check_choice("quantization", quantization, QUANTIZATIONS)
    if check:
        needed("ai_edge_litert.interpreter", "litert", "The check of a LiteRT file")
    inputs = inputs or Inputs()
    options: dict[str, Any] = {}
    if quantization != "float32":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    if quantization == "int8":
        options |= _int8(representative_data, inputs)
    exporter = _Exporter(
        model, depth, path, ".tflite", inputs, Progress(2 + bool(check), verbose, "part")
    )
    with exporter.written() as file:
        exporter.export(file, "litert", **options)
        run = _litert_runner(file) if check else None
        return exporter.report(run, "LiteRT", representative_data, quantization == "float32")


@public
def export_onnx(
    model: Any,
    depth: int,
    path: Any,
    opset: int = 18,
    inputs: Inputs | None = None,
    check: bool = True,
    verbose: Any = "auto",
) -> ExportReport:
    """Write F_k∘G_k as an `.onnx` file, and compare it with the live model in ONNX Runtime.

    Args:
        model: built `GreedyModel`.
        depth: int, k = 1…K.
        path: str or path of a new file, ending in `.onnx`.
        opset: int. Version of the operator set. Defaults to `18`.
        inputs: `Inputs`: type and preprocessing. `None` means data as the model takes them.
            Defaults to `None`.
        check: bool. Whether to run the file. Defaults to `True`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        `ExportReport`; not checked, its difference is NaN.

    Raises:
        ValueError: the model is not built; `depth` is not 1…K.
        FileExistsError: the file is there.
        ImportError: the extra `[onnx]` is missing.
        RuntimeError: the file does not do what the live model does.

    Example:
        >>> import keras_trgl as trgl
        >>> model = trgl.GreedyModel.from_blocks(
        ...     trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1), widths=(2, 2, 2)),
        ...     [2, 1], trgl.heads.LinearHead(3), seed=0)
        >>> trgl.export.export_onnx(model, 1, "depth1.tflite")
        Traceback (most recent call last):
        ValueError: `path` must end in '.onnx'. Received: depth1.tflite.
    """
    check_integer("opset", opset, 7)
    done = Progress(2 + bool(check), verbose, "part")
    exporter = _Exporter(model, depth, path, ".onnx", inputs or Inputs(), done)
    needed("tf2onnx", "onnx", "An ONNX file")
    if check:
        needed("onnxruntime", "onnx", "The check of an ONNX file")
    with exporter.written() as file:
        exporter.export(file, "onnx", opset_version=opset)
        return exporter.report(_onnx_runner(file) if check else None, "ONNX Runtime")


@public
def export_openvino(
    model: Any,
    depth: int,
    path: Any,
    inputs: Inputs | None = None,
    check: bool = True,
    verbose: Any = "auto",
) -> ExportReport:
    """Write F_k∘G_k as `.xml` and `.bin` for OpenVINO, and compare it with the live model there.

    Args:
        model: built `GreedyModel`.
        depth: int, k = 1…K.
        path: str or path of a new file, ending in `.xml`; the weights go beside it.
        inputs: `Inputs`: type and preprocessing. `None` means data as the model takes them.
            Defaults to `None`.
        check: bool. Whether to run the file. Defaults to `True`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        `ExportReport`, with the bytes of both files; not checked, its difference is NaN.

    Raises:
        ValueError: the model is not built; `depth` is not 1…K.
        FileExistsError: the file is there.
        ImportError: the extra `[openvino]` is missing.
        RuntimeError: the file does not do what the live model does.

    Example:
        >>> import keras_trgl as trgl
        >>> model = trgl.GreedyModel.from_blocks(
        ...     trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1), widths=(2, 2, 2)),
        ...     [2, 1], trgl.heads.LinearHead(3), seed=0)
        >>> trgl.export.export_openvino(model, 1, "depth1.onnx")
        Traceback (most recent call last):
        ValueError: `path` must end in '.xml'. Received: depth1.onnx.
    """
    done = Progress(2 + bool(check), verbose, "part")
    exporter = _Exporter(model, depth, path, ".xml", inputs or Inputs(), done)
    needed("openvino", "openvino", "An OpenVINO file")
    # Keras's exporter imports it without saying so.
    needed("scipy", "openvino", "An OpenVINO file")
    with exporter.written() as file:
        exporter.export(file, "openvino")
        return exporter.report(_openvino_runner(file) if check else None, "OpenVINO")


class _Depth(keras.layers.Layer):
    """F_k∘G_k with what makes its data from what a client sends.

    One layer, as a functional model of the blocks would leave nodes at them.
    """

    def __init__(self, stages: Sequence[Stage], head: Any, inputs: Inputs) -> None:
        super().__init__(name=f"depth_{len(stages)}", dtype="float32")
        self._row = [block for stage in stages for block in stage.blocks]
        self._head = head
        self._intake = Intake(inputs, stages[0].blocks)
        # Keras tracks it as a layer's attribute only where it stands itself.
        self._preprocess = inputs.preprocess
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        x = self._intake(x)
        for layer in self._row:
            x = layer(x, training=False)
        return self._head(main(x), training=False)


class _Exporter:
    """One depth on its way into a file.

    Traced, converted, checked: `done` is called after each.

    Raises:
        ValueError: the model, the depth, the ending or the preprocessing will not do.
        FileExistsError: the file is there.
    """

    def __init__(
        self, model: Any, depth: int, path: Any, ending: str, inputs: Inputs, done: Progress
    ) -> None:
        self._done = done
        check_model(model)
        check_depth(model, depth)
        self.path = path_of("path", path)
        if self.path.suffix != ending:
            raise ValueError(f"`path` must end in {ending!r}. Received: {path}.")
        if self.path.exists():
            raise FileExistsError(
                f"`path` must be a new file. Received: {path}, which is there. Remove it, or "
                "choose another name."
            )
        if inputs.encoded:
            raise ValueError(
                "Files take numbers, not encoded images. Received: Inputs(encoded=True). Leave "
                "`encoded` out; `export_serving` can decode."
            )
        stages, heads, shape = live_parts(model, depth)
        check_one_input(stages, "A file for another runtime")
        self._live = LiveModel(stages, heads, inputs, Outputs("values"))
        stages, heads = in_float32(*unplaced(stages, heads, shape), shape)
        # Traced only to say early what is wrong with the preprocessing.
        self._spec = Exits(stages, heads, shape, inputs, Outputs(), [depth]).spec
        kind = self._spec.dtype.name
        data = keras.Input(self._spec.shape[1:], dtype=kind, name="inputs")
        self._servable = keras.Model(data, {NAME: _Depth(stages, heads[-1], inputs)(data)})
        # Keras exports only what was called.
        self._servable(sample_of(self._spec)[:1])
        done()

    @contextlib.contextmanager
    def written(self) -> Iterator[str]:
        """Give a path to write to; what is there at the end is put in place."""
        with written_file(self.path) as aside:
            self._aside = aside
            yield str(aside)

    def export(self, file: str, format: str, **options: Any) -> None:
        """Let Keras write the file."""
        self._servable.export(file, format=format, verbose=False, **options)
        self._done()

    def report(
        self, run: Runner | None, runtime: str, sample: Any = None, exact: bool = True
    ) -> ExportReport:
        """Compare the file with the live model, and describe it.

        Args:
            run: function from rows to predictions, or `None` for no check.
            runtime: str. Its name.
            sample: array of rows, or `None` for random ones.
            exact: bool. Whether a difference is an error.

        Raises:
            ExportMismatchError: it is.
        """
        size = size_of(self._aside.parent)
        if run is None:
            return ExportReport(self.path, size, float("nan"), checked_in="no runtime")
        sample = sample_of(self._spec) if sample is None else np.asarray(sample)[:64]
        wanted = self._live.predictions(sample)[-1]
        single = np.concatenate([run(sample[i : i + 1]) for i in range(len(sample))])
        largest, agreement = 0.0, 1.0
        for got in (run(sample), single):
            if exact:
                self._live.compare(runtime, {"values": tf.constant(got)}, wanted)
            largest = max(largest, float(np.abs(got - wanted).max()))
            same = got.argmax(-1) == wanted.argmax(-1)
            agreement = min(agreement, float(same.mean()))
        self._done()
        return ExportReport(self.path, size, largest, agreement=agreement, checked_in=runtime)


def _int8(data: Any, inputs: Inputs) -> dict[str, Any]:
    if data is None or not len(data):
        raise ValueError(
            "`quantization='int8'` takes its scales from `representative_data`. Received: "
            "none. Give a few hundred examples of the training data."
        )
    if inputs.dtype not in (None, "float32"):
        raise ValueError(
            "An int8 file takes int8 by a scale of its own. Received: "
            f"inputs.dtype={inputs.dtype!r}. Leave `dtype` out."
        )
    rows = np.asarray(data, "float32")
    return {
        "representative_dataset": lambda: ([rows[i : i + 1]] for i in range(min(len(rows), 500))),
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        "inference_input_type": tf.int8,
        "inference_output_type": tf.int8,
    }


def _litert_runner(path: str) -> Runner:
    module = needed("ai_edge_litert.interpreter", "litert", "The check of a LiteRT file")
    signature = module.Interpreter(model_path=path).get_signature_runner()
    (entry,) = signature.get_input_details().values()
    (result,) = signature.get_output_details().values()

    def run(rows: Any) -> Any:
        if entry["dtype"] == np.int8:
            scale, zero = entry["quantization"]
            rows = np.clip(np.round(rows / scale) + zero, -128, 127)
        got = signature(inputs=rows.astype(entry["dtype"]))[NAME]
        if result["dtype"] == np.int8:
            scale, zero = result["quantization"]
            got = (got.astype("float32") - zero) * scale
        return np.array(got)

    return run


def _onnx_runner(path: str) -> Runner:
    module = needed("onnxruntime", "onnx", "The check of an ONNX file")
    session = module.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    if names != ["inputs"]:
        raise ExportMismatchError(
            f"An ONNX file must have the one input `inputs`. Received: {names}. Constants of "
            "`preprocess` became inputs, as those of `Normalization` do: use "
            "`datasets.Normalize` or `keras.layers.Rescaling`."
        )
    return lambda rows: session.run([NAME], {"inputs": rows})[0]


def _openvino_runner(path: str) -> Runner:
    module = needed("openvino", "openvino", "The check of an OpenVINO file")
    compiled = module.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda rows: np.array(compiled(rows)[0])
