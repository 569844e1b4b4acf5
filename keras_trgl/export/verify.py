"""The check of an export before publication: every signature against the live model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_trgl.export.exit_predictions import exit_predictions
from keras_trgl.export.exported_parts import compute_types
from keras_trgl.export.intake import Intake
from keras_trgl.export.options import Inputs, Outputs
from keras_trgl.export.signatures import class_probabilities, confidence
from keras_trgl.layers.stage import Stage
from keras_trgl.network.head_end import check_end
from keras_trgl.network.no_head import NoHead
from keras_trgl.network.passing import main
from keras_trgl.scores import check_predictions
from keras_trgl.types import Shape

ROWS = 8
TOLERANCES = {"float32": 1e-5, "float64": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference by the type that the model computes in, for outputs of size 1 or less;
if the largest output is larger, so is the difference allowed, in proportion."""


class ExportMismatchError(RuntimeError):
    """An export that does not do what the live model does; it is not published."""


def sample_of(spec: Any, seed: int = 0) -> Any:
    """Give `ROWS` random examples of what a client sends.

    They are standard normal, or 0 to 255; where they may be indices 0 and 1, and text is words.
    """
    rng = np.random.default_rng(seed)
    shape = (ROWS, *[side or 32 for side in spec.shape[1:]])
    if spec.dtype == tf.uint8:
        return rng.integers(0, 256, shape, "uint8")
    if spec.dtype == tf.string:
        return rng.choice(np.array([b"a", b"b c", b""], object), shape)
    if spec.dtype.is_integer or spec.dtype.is_bool:
        return rng.integers(0, 2, shape).astype(spec.dtype.as_numpy_dtype)
    return rng.normal(size=shape).astype(spec.dtype.as_numpy_dtype)


def encoded_sample(shape: Shape, seed: int = 0) -> Any:
    """Give `ROWS` PNG images of this shape, as an array of bytes objects."""
    images = np.random.default_rng(seed).integers(
        0, 256, (ROWS, *[s or 32 for s in shape]), "uint8"
    )
    return np.array([tf.io.encode_png(image).numpy() for image in images], object)


class LiveModel:
    """The model itself, called as it is: what an export is compared with.

    Args:
        stages: the model's own stages 1…k.
        heads: the heads, as many.
        inputs: how data come in.
        outputs: what the heads predict.
    """

    def __init__(
        self, stages: Sequence[Stage], heads: Sequence[Any], inputs: Inputs, outputs: Outputs
    ) -> None:
        self.stages, self.heads, self.kind = stages, heads, outputs.predictions
        self._outputs = outputs
        self._intake = Intake(inputs, stages[0].blocks)
        layers = [block for stage in stages for block in stage.blocks] + list(heads)
        dtypes = {name for layer in layers for name in compute_types(layer)}
        self.tolerance = max(TOLERANCES.get(name, 1e-5) for name in dtypes)

    def predictions(self, sample: Any) -> list[Any]:
        """Give every depth's predictions, `None` of one without a head, for a client's rows."""
        x: Any = self._intake(sample)
        found = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            for block in stage.blocks:
                x = block(x, training=False)
            given = None if isinstance(head, NoHead) else head(main(x), training=False)
            found.append(None if given is None else tf.cast(given, tf.float32).numpy())
        own = self._outputs
        check_end(self.heads, own.predictions)
        for given in found if own.predictions == "logits" else ():
            if given is not None and np.isfinite(given).all():
                check_predictions("logits", given)
        return exit_predictions(found, own.predictions, own.temperatures, own.average)

    def compare(self, name: str, got: dict[str, Any], wanted: Any) -> float:
        """Compare all outputs of one exit with its live predictions `(batch, units)`.

        Returns:
            The largest difference.

        Raises:
            ExportMismatchError: it is too large.
        """
        if self.kind == "values":
            return self._difference(name, got["values"].numpy(), wanted)
        probabilities = np.asarray(class_probabilities(tf.constant(wanted), self.kind))
        found = self._difference(name, got["probabilities"].numpy(), probabilities)
        if self.kind == "logits":
            found = max(found, self._difference(name, got["logits"].numpy(), wanted))
        return found

    def compare_confident(
        self, got: dict[str, Any], wanted: Sequence[Any], thresholds: Sequence[float]
    ) -> float:
        """Compare `confident_exit`: each row must leave where it says, and be allowed to.

        Raises:
            ExportMismatchError: a row differs, or leaves at the wrong depth.
        """
        exits = got["exit"].numpy()
        rows = np.arange(len(exits))
        found = self.compare("confident_exit", got, np.stack(wanted)[exits - 1, rows])
        # A row whose confidence is the threshold but for rounding may leave or stay.
        for depth, threshold in enumerate(thresholds, start=1):
            sure = np.asarray(confidence(tf.constant(wanted[depth - 1]), self.kind))
            early = (exits == depth) & (sure < threshold - self.tolerance)
            late = (exits > depth) & (sure >= threshold + self.tolerance)
            if early.any() or late.any():
                raise ExportMismatchError(
                    f"Every row of `confident_exit` must leave at the first depth where it is "
                    f"sure. Received: exits {exits[early | late]} of rows whose confidence at "
                    f"depth {depth} is {sure[early | late]}, threshold {threshold}."
                )
        return found

    def _difference(self, name: str, got: Any, wanted: Any) -> float:
        if got.shape != wanted.shape:
            raise ExportMismatchError(f"`{name}` must give {wanted.shape}. Received: {got.shape}.")
        # Both may be no numbers, as the mean of a row that a mask hides whole.
        found = np.where(np.isnan(got) & np.isnan(wanted), 0.0, np.abs(got - wanted))
        size = float(np.nan_to_num(np.abs(wanted)).max(initial=0.0))
        if not np.all(found <= self.tolerance * max(1.0, size)):
            raise ExportMismatchError(
                f"`{name}` must give what the live model gives, within {self.tolerance:g}. "
                f"Received: a difference of {np.nanmax(found):.3g}. Is `preprocess` random, or "
                "does a row's result depend on the other rows?"
            )
        return float(found.max(initial=0.0))


def check_numbers(folder: Path, layers: Sequence[Any]) -> int:
    """Count the numbers stored, and raise if there are more than the layers have.

    Args:
        folder: path of the SavedModel.
        layers: all layers that the export needs.

    Returns:
        int. Numbers in the stored weights.

    Raises:
        ExportMismatchError: something is stored twice, or was not needed.
    """
    stored = tf.train.list_variables(str(folder / "variables" / "variables"))
    # Beside variables a checkpoint lists the graph of its objects.
    count = sum(int(np.prod(shape)) for name, shape in stored if "VARIABLE_VALUE" in name)
    needed = sum(int(np.prod(one.shape)) for layer in layers for one in layer.variables)
    if count > needed:
        raise ExportMismatchError(
            f"An export must hold the weights it needs once, {needed} numbers. Received: {count}."
        )
    return count


def row_by_row(signature: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Give a signature's outputs for rows that are sent one at a time."""
    count = len(next(iter(inputs.values())))
    single = [
        signature(**{key: tf.constant(rows[i : i + 1]) for key, rows in inputs.items()})
        for i in range(count)
    ]
    return {name: tf.concat([one[name] for one in single], 0) for name in single[0]}
