"""SavedModels for TensorFlow Serving: every depth in one, or one depth alone."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.checks import path_of
from keras_trgl.export.exported_parts import check_depth, check_model, live_parts, unplaced
from keras_trgl.export.model_config import FILE as CONFIG_FILE
from keras_trgl.export.model_config import check_labels, model_config, served_name
from keras_trgl.export.options import Inputs, Outputs, ServerFiles
from keras_trgl.export.publish import (
    base_folder,
    check_version,
    size_of,
    written_text,
    written_version,
)
from keras_trgl.export.report import ExportReport
from keras_trgl.export.signatures import Exits, Signature, signatures
from keras_trgl.export.verify import (
    LiveModel,
    check_numbers,
    encoded_sample,
    row_by_row,
    sample_of,
)
from keras_trgl.export.warmup import check_can_write, replay_requests, write_requests
from keras_trgl.layers.inner import inner_layers
from keras_trgl.progress import Progress
from keras_trgl.registration import public

TABLES = (keras.layers.IntegerLookup, keras.layers.StringLookup)
"""Layers that look up in a table, which is no variable."""


@public
def export_serving(
    model: Any,
    base_dir: Any,
    version: int | None = None,
    inputs: Inputs | None = None,
    outputs: Outputs | None = None,
    files: ServerFiles | None = None,
    verbose: Any = "auto",
) -> ExportReport:
    """Publish all depths as one version of a SavedModel, and tell what was published.

    Signatures: `serving_default` and `exit_1`…`exit_K` give `probabilities` `(batch, classes)`,
    `class_id` `(batch,)` int64, with class names `label` `(batch,)` and, from heads that give
    logits, `logits`. `all_exits` gives all of them with `_k` behind the name.
    `confident_exit`, with thresholds, computes each row only up to the first depth that is sure
    of it, and adds `exit` `(batch,)` int32, the depth where the row left. `encoded` takes image
    files. Weights are stored once.

    The version is written aside, loaded again, compared with the live model, and renamed: a
    server never sees a part of it, and any failure leaves the base folder as it was. For a
    model under a strategy call this outside the strategy's scope.

    Args:
        model: built `GreedyModel`.
        base_dir: str or path: the model's base folder, made if need be.
        version: int ≥ 1, or `None` for the next after the largest there. Defaults to `None`.
        inputs: `Inputs`: type, preprocessing, encoded images. `None` means data as
            the model takes them. Defaults to `None`.
        outputs: `Outputs`: class names, thresholds, the default depth. Defaults to `None`.
        files: `ServerFiles`: warm-up requests, `models.config`. Defaults to `None`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        `ExportReport`.

    Raises:
        ValueError: the model is not built; a depth is not 1…K; thresholds, names or labels do
            not fit; `preprocess` cannot be exported.
        FileExistsError: the version is there.
        PermissionError: the base folder cannot be written to.
        OSError: the disk is full.
        ImportError: warm-up requests without the extra `[serving]`.
        RuntimeError: the exported model does not do what the live one does.

    Example:
        >>> import tempfile, keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1), widths=(2, 2, 2))
        >>> model = trgl.GreedyModel.from_blocks(blocks, [2, 1], trgl.heads.LinearHead(3), seed=0)
        >>> outputs = trgl.export.Outputs(thresholds=0.9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trgl.export.export_serving(model, folder, outputs=outputs, verbose=0).signatures
        ('serving_default', 'exit_1', 'exit_2', 'all_exits', 'confident_exit')
    """
    check_model(model)
    outputs = outputs or Outputs()
    thresholds = outputs.threshold_list(model.num_stages)
    outputs.check_temperatures(model.num_stages)
    if outputs.default_exit is not None:
        check_depth(model, outputs.default_exit)
    depths = range(1, model.num_stages + 1)
    done = Progress(1, verbose, "part")
    return _publish(
        model, list(depths), base_dir, version, inputs, outputs, files, thresholds, done
    )


@public
def export_exit(
    model: Any,
    depth: int,
    base_dir: Any,
    version: int | None = None,
    inputs: Inputs | None = None,
    outputs: Outputs | None = None,
    files: ServerFiles | None = None,
    verbose: Any = "auto",
) -> ExportReport:
    """Publish F_k∘G_k alone: stages 1…k and head k, and nothing of the others.

    Signatures `serving_default` and `exit_k`, and `encoded` if asked for; the rest is as in
    `export_serving`. Give each depth a base folder of its own.

    Args:
        model: built `GreedyModel`.
        depth: int, k = 1…K.
        base_dir: str or path: the base folder of this depth, made if need be.
        version: int ≥ 1, or `None` for the next after the largest there. Defaults to `None`.
        inputs: as in `export_serving`. Defaults to `None`.
        outputs: as in `export_serving`, without thresholds. Defaults to `None`.
        files: as in `export_serving`. Defaults to `None`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        `ExportReport`.

    Raises:
        ValueError: as in `export_serving`, or thresholds, which take all depths.
        FileExistsError: the version is there.
        OSError: the base folder cannot be written to, or the disk is full.
        ImportError: warm-up requests without the extra `[serving]`.
        RuntimeError: the exported model does not do what the live one does.

    Example:
        >>> import tempfile, keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1), widths=(2, 2, 2))
        >>> model = trgl.GreedyModel.from_blocks(blocks, [2, 1], trgl.heads.LinearHead(3), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trgl.export.export_exit(model, 1, folder, verbose=0).signatures
        ('serving_default', 'exit_1')
    """
    check_model(model)
    check_depth(model, depth)
    outputs = outputs or Outputs()
    outputs.check_temperatures(model.num_stages)
    if outputs.thresholds is not None or outputs.default_exit not in (None, depth):
        raise ValueError(
            "A single exit has neither thresholds nor another default. Received: "
            f"thresholds={outputs.thresholds}, default_exit={outputs.default_exit}. Use "
            "`export_serving` for several depths."
        )
    done = Progress(1, verbose, "part")
    return _publish(model, [depth], base_dir, version, inputs, outputs, files, None, done)


def _publish(
    model: Any,
    depths: list[int],
    base_dir: Any,
    version: int | None,
    inputs: Inputs | None,
    outputs: Outputs,
    files: ServerFiles | None,
    thresholds: tuple[float, ...] | None,
    done: Progress,
) -> ExportReport:
    inputs, files = inputs or Inputs(), files or ServerFiles()
    check_can_write(files.warmup)
    stages, heads, shape = live_parts(model, depths[-1])
    live = LiveModel(stages, heads, inputs, outputs)
    # Tracing finds what cannot be exported before anything is written.
    own_stages, own_heads = unplaced(stages, heads, shape)
    exits = Exits(own_stages, own_heads, shape, inputs, outputs, depths)
    outputs.check_classes(exits.units)
    wanted = signatures(exits, inputs, thresholds)
    # Tracing, writing, loading, a check of each signature, requests.
    done.total = 3 + len(wanted) + bool(files.warmup)
    name = served_name(files, path_of("base_dir", base_dir).absolute())
    base = base_folder(base_dir)
    number = check_version(base, version)
    check_labels(files, base, number)
    done()
    with contextlib.ExitStack() as stack:
        if files.model_config:
            text = model_config(files, name)
            stack.enter_context(written_text(base / CONFIG_FILE, text))
        aside = stack.enter_context(written_version(base, number))
        _write(wanted, aside, own_stages)
        done()
        samples = _samples(wanted)
        loaded = tf.saved_model.load(str(aside))
        done()
        compared = done.of(samples.items())
        difference = _compare(loaded, live, compared, depths, outputs, thresholds)
        used = [block for stage in stages for block in stage.blocks]
        used += [head for k, head in enumerate(heads, 1) if k in depths or outputs.average]
        if isinstance(inputs.preprocess, keras.layers.Layer):
            used.append(inputs.preprocess)
        numbers = check_numbers(aside, used)
        requests = 0
        if files.warmup:
            write_requests(aside, samples, files.warmup, name)
            requests = replay_requests(aside, loaded)
            done()
    path = base / str(number)
    return ExportReport(
        path, size_of(path), difference, numbers, number, tuple(wanted), warmup_requests=requests
    )


def _write(wanted: dict[str, Signature], folder: Path, stages: list[Any]) -> None:
    archive = keras.export.ExportArchive()
    # Keras finds variables in a signature's graph, and not the tables behind stages traced before.
    for layer in (one for stage in stages for one in inner_layers(stage)):
        if isinstance(layer, TABLES):
            archive.track(layer.lookup_table)
    for name, (function, spec) in wanted.items():
        archive.add_endpoint(name, function, [spec])
    archive.write_out(str(folder), verbose=False)


def _samples(wanted: dict[str, Signature]) -> dict[str, dict[str, Any]]:
    """Give every signature's inputs by name."""
    spec = wanted["serving_default"][1]
    specs = list(spec.values()) if isinstance(spec, dict) else [spec]
    arrays = {one.name: sample_of(one, seed) for seed, one in enumerate(specs)}
    encoded = {"image_bytes": encoded_sample(spec.shape[1:])} if "encoded" in wanted else {}
    return {name: encoded if name == "encoded" else arrays for name in wanted}


def _compare(
    loaded: Any,
    live: LiveModel,
    samples: Iterable[tuple[str, dict[str, Any]]],
    depths: list[int],
    outputs: Outputs,
    thresholds: tuple[float, ...] | None,
) -> float:
    """Compare every signature with the live model, as a batch and row by row."""
    default = outputs.default_exit or depths[-1]
    largest = 0.0
    for name, arrays in samples:
        rows: Any = arrays if len(arrays) > 1 else next(iter(arrays.values()))
        if name == "encoded":
            rows = np.stack([tf.io.decode_image(one).numpy() for one in rows])
        wanted = live.predictions(rows)
        signature = loaded.signatures[name]
        batch = signature(**{key: tf.constant(array) for key, array in arrays.items()})
        for got in (batch, row_by_row(signature, arrays)):
            if name == "confident_exit":
                found = live.compare_confident(got, wanted, thresholds or ())
            elif name == "all_exits":
                found = max(live.compare(name, of_depth(got, k), wanted[k - 1]) for k in depths)
            else:
                depth = int(name.removeprefix("exit_")) if name.startswith("exit_") else default
                found = live.compare(name, got, wanted[depth - 1])
            largest = max(largest, found)
    return largest


def of_depth(outputs: dict[str, Any], depth: int) -> dict[str, Any]:
    """Give one depth's outputs of `all_exits`, under their plain names."""
    ending = f"_{depth}"
    return {
        name.removesuffix(ending): value for name, value in outputs.items() if name.endswith(ending)
    }
