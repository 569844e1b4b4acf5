"""The signatures of an export: plain functions over stages and heads that are traced once.

Every stage T_k and head F_k becomes one TensorFlow function, and all signatures call those, so
the graph grows with K and not with K². Nothing is tracked beside what a signature uses: weights
are stored once, and parts that no signature uses not at all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.export.intake import Intake
from keras_trgl.export.options import Inputs, Outputs
from keras_trgl.feeding.batch_forms import open_spec
from keras_trgl.layers.stage import Stage
from keras_trgl.network.passing import apart, main, together
from keras_trgl.types import Shape, Tensor

Signature = tuple[Callable[[Any], dict[str, Tensor]], Any]
"""A function, and the spec of what it takes, or a dict of specs by the names of several inputs."""

PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


class Exits:
    """Traced stages 1…k and some of their heads.

    Args:
        stages: built stages with plain variables.
        heads: built heads, as many.
        input_shape: shape of the model's data, batch axis included.
        inputs: how data come in.
        outputs: what the heads predict.
        depths: depths whose heads are used.

    Raises:
        ValueError: `preprocess` cannot become part of a graph, or gives another shape than the
            model takes; heads of classifiers that give no `(batch, classes)`.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        heads: Sequence[Any],
        input_shape: Any,
        inputs: Inputs,
        outputs: Outputs,
        depths: Sequence[int],
    ) -> None:
        # A traced function holds its variables weakly.
        self._layers = (list(stages), list(heads))
        self.outputs = outputs
        self.depths = list(depths)
        self.labels = None
        if outputs.class_names is not None:
            self.labels = [str(name).encode() for name in outputs.class_names]
        intake = Intake(inputs, stages[0].blocks)
        self._prepare = self._prepared(intake, inputs, input_shape)
        given = tf.nest.map_structure(open_spec, self._prepare.structured_outputs)
        spec: Any = (given, {})
        self._stages, self._heads = [], {}
        for depth, (stage, head) in enumerate(zip(stages, heads, strict=True), start=1):
            self._stages.append(_traced(_features_of(stage), spec, f"stage_{depth}"))
            # Features with their masks, as `apart` gives them.
            spec = tf.nest.map_structure(open_spec, self._stages[-1].structured_outputs)
            if depth in self.depths or (outputs.average and depth < self.depths[-1]):
                traced = _traced(_prediction_of(head), spec, f"head_{depth}")
                self._heads[depth] = traced
        shape = self._heads[self.depths[-1]].structured_outputs.shape
        if outputs.predictions != "values" and shape.rank != 2:
            raise ValueError(
                "A classifier's heads must give (batch, classes). Received: predictions "
                f"{tuple(shape)}. `Outputs('values')` takes others."
            )
        self.units = int(shape[-1])

    def _prepared(self, intake: Intake, inputs: Inputs, input_shape: Any) -> Any:
        """Give the traced function of what a client sends, and settle its spec."""
        if intake.several is not None:
            self.spec: Any = {
                name: tf.TensorSpec((None, *one.shape[1:]), one.dtype, name)
                for name, one in intake.several.by_name.items()
            }
            return _traced(intake, self.spec, "preprocess")
        shape = (None, *(inputs.shape or input_shape[1:]))
        self.spec = tf.TensorSpec(shape, intake.dtype, "inputs")
        layer = inputs.preprocess
        if isinstance(layer, keras.layers.Layer) and not layer.built:
            # What a layer makes while a function is traced cannot be used outside.
            layer.build(shape)
        prepare = _traced(_prepare_by(intake, shape), self.spec, "preprocess")
        _check_preprocess(prepare, input_shape)
        return prepare

    def prepare(self, inputs: Any) -> Any:
        """Give the model's data from what a client sends, as `apart` gives what crosses a cut."""
        return self._prepare(inputs), {}

    def single(self, depth: int) -> Callable[[Any], dict[str, Tensor]]:
        """Give the function of `exit_k`."""

        def run(inputs: Any) -> dict[str, Tensor]:
            x, found = self.prepare(inputs), None
            for at, stage in enumerate(self._stages[:depth], start=1):
                x = stage(x)
                if at == depth or self.outputs.average:
                    prediction, found = self._exit(at, x, found)
            return self.described(prediction)

        return run

    def _exit(self, depth: int, features: Any, before: Any) -> tuple[Tensor, Any]:
        """Give what an exit predicts, `(batch, units)`, and the sum of probabilities so far.

        Args:
            depth: int, 1…K.
            features: its stage's, as `apart` gives them.
            before: the sum of probabilities of the exits before, where they are averaged; `None`
                at the first.
        """
        kind, prediction = self.outputs.predictions, self._heads[depth](features)
        if self.outputs.temperatures is not None:
            prediction = tempered(prediction, kind, float(self.outputs.temperatures[depth - 1]))
        if not self.outputs.average:
            return prediction, None
        total = class_probabilities(prediction, kind)
        total = total if before is None else total + before
        mean = total / depth
        return (logits_of(mean) if kind == "logits" else mean), total

    def every(self, inputs: Any) -> dict[str, Tensor]:
        """Give what `all_exits` does: every output of every exit, its depth in its name."""
        found, x, total = {}, self.prepare(inputs), None
        for depth, stage in enumerate(self._stages, start=1):
            x = stage(x)
            if depth in self._heads:
                prediction, total = self._exit(depth, x, total)
                described = self.described(prediction)
                found.update({f"{name}_{depth}": value for name, value in described.items()})
        return found

    def confident(self, thresholds: Sequence[float]) -> Callable[[Any], dict[str, Tensor]]:
        """Give the function of `confident_exit`: rows leave when they are sure.

        Args:
            thresholds: K − 1 floats. A row leaves at depth k when its confidence is at least
                the k-th.
        """

        def leave(depth: int, features: Any, before: Any) -> tuple[Tensor, Tensor]:
            """Give predictions and exits of rows that come out of stage `depth` − 1."""
            features = self._stages[depth - 1](features)
            predictions, total = self._exit(depth, features, before)
            exits = tf.fill(tf.shape(predictions)[:1], depth)
            if depth == len(self._stages):
                return predictions, exits
            sure = confidence(predictions, self.outputs.predictions) >= thresholds[depth - 1]

            def go_on() -> tuple[Tensor, Tensor]:
                unsure = tf.where(~sure)
                left = tf.nest.map_structure(
                    lambda one: None if one is None else tf.gather_nd(one, unsure),
                    (features, total),
                )
                later = leave(depth + 1, *left)
                return (
                    tf.tensor_scatter_nd_update(predictions, unsure, later[0]),
                    tf.tensor_scatter_nd_update(exits, unsure, later[1]),
                )

            return tf.cond(tf.reduce_all(sure), lambda: (predictions, exits), go_on)

        def run(inputs: Any) -> dict[str, Tensor]:
            predictions, exits = leave(1, self.prepare(inputs), None)
            # A condition forgets shapes, and a signature shows them.
            predictions = tf.ensure_shape(predictions, (None, self.units))
            return {**self.described(predictions), "exit": tf.ensure_shape(exits, (None,))}

        return run

    def encoded(self, depth: int, shape: Sequence[Any]) -> Callable[[Tensor], dict[str, Tensor]]:
        """Give the function of `encoded`: images as bytes, resized, then exit `depth`."""
        rows, columns, channels = shape
        predict = self.single(depth)

        def image_of(data: Tensor) -> Tensor:
            image = tf.io.decode_image(data, channels=channels, expand_animations=False)
            image.set_shape((None, None, channels))
            resized = tf.image.resize(image, (rows, columns), antialias=True)
            if self.spec.dtype == tf.uint8:
                resized = tf.clip_by_value(tf.round(resized), 0.0, 255.0)
            return tf.cast(resized, self.spec.dtype)

        def run(image_bytes: Tensor) -> dict[str, Tensor]:
            spec = tf.TensorSpec((rows, columns, channels), self.spec.dtype)
            image_bytes = tf.ensure_shape(image_bytes, (None,))
            return predict(tf.map_fn(image_of, image_bytes, fn_output_signature=spec))

        return run

    def described(self, predictions: Tensor) -> dict[str, Tensor]:
        """Give all outputs of a prediction `(batch, units)`; each has the batch axis first."""
        kind = self.outputs.predictions
        if kind == "values":
            return {"values": predictions}
        probabilities = class_probabilities(predictions, kind)
        if probabilities.shape[-1] == 1:
            chosen = tf.cast(probabilities[:, 0] >= 0.5, tf.int64)
        else:
            chosen = tf.argmax(probabilities, -1, tf.int64)
        found = {"probabilities": probabilities, "class_id": chosen}
        if kind == "logits":
            found["logits"] = predictions
        if self.labels is not None:
            found["label"] = tf.gather(tf.constant(self.labels), chosen)
        return found


def class_probabilities(predictions: Tensor, kind: str) -> Tensor:
    """Give probabilities, `(batch, units)`, from logits or from themselves."""
    if kind == "probabilities":
        return predictions
    if predictions.shape[-1] == 1:
        return keras.ops.sigmoid(predictions)
    return keras.ops.softmax(predictions)


def tempered(predictions: Tensor, kind: str, temperature: float) -> Tensor:
    """Give predictions `(batch, units)` whose logits were divided by a temperature."""
    if kind == "logits":
        return predictions / temperature
    return class_probabilities(logits_of(predictions) / temperature, "logits")


def logits_of(probabilities: Tensor) -> Tensor:
    """Give logits of probabilities, `(batch, units)`; of a single unit those of its sigmoid."""
    small = 1e-30
    if probabilities.shape[-1] == 1:
        odds = keras.ops.maximum(probabilities, small) / keras.ops.maximum(
            1.0 - probabilities, small
        )
        return keras.ops.log(odds)
    return keras.ops.log(keras.ops.maximum(probabilities, small))


def confidence(predictions: Tensor, kind: str) -> Tensor:
    """Give the probability of the likeliest class, `(batch,)`.

    Args:
        predictions: tensor, `(batch, units)`.
        kind: `"logits"` or `"probabilities"`.
    """
    probabilities = class_probabilities(predictions, kind)
    if probabilities.shape[-1] == 1:
        probabilities = keras.ops.concatenate([probabilities, 1.0 - probabilities], -1)
    return keras.ops.max(probabilities, -1)


def signatures(
    exits: Exits, inputs: Inputs, thresholds: Sequence[float] | None
) -> dict[str, Signature]:
    """Give every signature by name: its function and what it takes.

    Args:
        exits: traced stages and heads.
        inputs: how data come in.
        thresholds: those of `confident_exit`, or `None` for none.

    Raises:
        ValueError: encoded images for a model that takes no images.
    """
    default = exits.outputs.default_exit or exits.depths[-1]
    found: dict[str, Signature] = {"serving_default": (exits.single(default), exits.spec)}
    for depth in exits.depths:
        found[f"exit_{depth}"] = (exits.single(depth), exits.spec)
    if len(exits.depths) > 1:
        found["all_exits"] = (exits.every, exits.spec)
    if thresholds is not None:
        found["confident_exit"] = (exits.confident(thresholds), exits.spec)
    if inputs.encoded:
        shape = exits.spec.shape[1:]
        if shape.rank != 3 or None in shape.as_list() or shape[-1] not in (1, 3, 4):
            raise ValueError(
                "Encoded images need examples of shape (height, width, channels), channels 1, 3 "
                f"or 4. Received: {tuple(shape)}. Leave `encoded` out, or give `shape`."
            )
        spec = tf.TensorSpec((None,), tf.string, "image_bytes")
        found["encoded"] = (exits.encoded(default, shape.as_list()), spec)
    return found


def _traced(function: Callable[[Any], Any], spec: Any, name: str) -> Any:
    def run(given: Any) -> Any:
        return function(given)

    run.__name__ = name
    return tf.function(run, autograph=False).get_concrete_function(spec)


def _features_of(stage: Stage) -> Callable[[Any], Any]:
    def features(sides: Any) -> Any:
        x = together(sides)
        # Blocks, not the stage: a stage may be placed, and adds its energy when it trains.
        for block in stage.blocks:
            x = block(x, training=False)
        return apart(x)

    return features


def _prediction_of(head: Any) -> Callable[[Any], Tensor]:
    return lambda sides: tf.cast(head(main(together(sides)), training=False), tf.float32)


def _prepare_by(intake: Intake, shape: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    def prepare(inputs: Tensor) -> Tensor:
        # A server does not hold requests against the signature, and a kernel may end the whole
        # process over a wrong rank.
        x = tf.ensure_shape(inputs, shape)
        if intake.preprocess is None:
            return intake(x)
        try:
            return intake(x)
        except Exception as error:
            raise ValueError(
                "`preprocess` must be a function of tensors, made of TensorFlow or `keras.ops` "
                "operations, so that it can become part of the exported model. Received: "
                f"{intake.preprocess!r}, which fails on a symbolic tensor {tuple(x.shape)}: "
                f"{error} Write it without NumPy and without Python's `if` on tensors."
            ) from error

    return prepare


def _check_preprocess(prepare: Any, input_shape: Shape) -> None:
    graph = prepare.graph.as_graph_def()
    inner = [node for function in graph.library.function for node in function.node_def]
    used = {node.op for node in [*graph.node, *inner]}
    if used & PYTHON_OPERATIONS:
        raise ValueError(
            "`preprocess` must be made of operations that work without Python. Received: one with "
            "`tf.py_function` or `tf.numpy_function`, which no server can run. Write it with "
            "TensorFlow or `keras.ops` operations."
        )
    shape = prepare.structured_outputs.shape
    if not shape.is_compatible_with(input_shape):
        raise ValueError(
            f"`preprocess` must give the model's data, {input_shape}. Received: {tuple(shape)}. "
            "Give `shape`, that of one example before `preprocess`, if it changes shapes."
        )
