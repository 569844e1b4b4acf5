"""Bytes that a block takes in training, found in the graph of its own forward and backward pass.

The operations are gone through in the order in which they were made, as an executor does that has
a row to work through. A tensor is there from the operation that makes it to the last that reads it;
an operation by numbers writes over an input that nobody else needs. Sizes are known for two
batches, and so for any: every one is a constant and a share per example.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.layers.chain import build_layer, passes_several
from keras_trgl.layers.copying import copy_layer
from keras_trgl.layers.stage import InTraining, run_blocks
from keras_trgl.types import Shape

SAME_BUFFER = {
    *{"Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "EnsureShape"},
    "PreventGradient",
}
"""Operations that pass on the tensor that they get."""

NO_BUFFER = {"ReadVariableOp", "NoOp", "Const"}
"""Operations whose tensor is counted elsewhere: a weight, or what the graph holds."""

ELEMENTWISE = {
    *{"Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "BiasAdd"},
    *{"Relu", "ReluGrad", "Relu6", "Relu6Grad", "Elu", "EluGrad", "Selu", "SeluGrad", "Erf"},
    *{"Tanh", "TanhGrad", "Sigmoid", "SigmoidGrad", "Exp", "Neg", "Square", "Sqrt", "Rsqrt"},
    *{"SelectV2", "Softmax", "LeakyRelu", "LeakyReluGrad", "SquaredDifference", "Pow"},
    "FusedBatchNormV3",
}
"""Operations that may write over an input of their output's size."""

SCRATCH = {"Conv2D": 0.0, "Conv2DBackpropInput": 1.0, "Conv2DBackpropFilter": 1.0}
"""Kernels that put their inputs into another order first: shares of the largest input."""

MARKS = {"FusedBatchNormV3": ("Relu", 1 / 8), "MaxPool": (None, 1 / 4)}
"""What kernels on a CPU note for their gradients, if this follows, as shares of their output."""


FEW = (3, 5)
"""Sizes of the batches that are traced."""


@dataclasses.dataclass(frozen=True)
class BlockBytes:
    """What a block takes for a batch of one size; all in bytes.

    Attributes:
        kept: what lies between its input and its output, and waits for the backward pass.
        input: its input's size, and `reads_input`: whether the backward pass reads it.
        output: its output's, and `reads_output`.
        forward: most at once in the forward pass, without its input.
        backward: most at once in the backward pass, without its input and with what was kept.
        gradients: those of its trained weights.
        stays: bool. Whether what it kept is there to the end of the whole backward pass: an
            executor follows the one way that leads on, to the block before, and comes back to
            weights' gradients, which nothing waits for.
        passing: most at once in a pass that nothing of is kept, without its input.
    """

    kept: int
    input: int
    reads_input: bool
    output: int
    reads_output: bool
    forward: int
    backward: int
    gradients: int
    stays: bool = True
    passing: int = 0

    @property
    def held(self) -> int:
        """What is kept, with its input and output where the backward pass reads them."""
        input_, output = self.input * self.reads_input, self.output * self.reads_output
        return self.kept + input_ + output


@dataclasses.dataclass(frozen=True)
class _Step:
    """One operation: what it reads and makes, by the tensors' numbers."""

    kind: str
    reads: tuple[int, ...]
    makes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Trace:
    """A forward and a backward pass.

    Attributes:
        steps: the operations that count, in order; `forward` are those of the forward pass.
        sizes: bytes of every tensor.
        given: numbers of the inputs; `above`, of the outputs' gradients; `made`, of the outputs.
        left: numbers of the gradients.
        marks: what operations of the forward pass note beside, as shares of their output.
    """

    steps: tuple[_Step, ...]
    forward: int
    sizes: tuple[int, ...]
    given: tuple[int, ...]
    above: tuple[int, ...]
    made: tuple[int, ...]
    left: tuple[int, ...]
    marks: tuple[float, ...]


class TracedBlock:
    """What a block takes in training, for any batch.

    Args:
        layer: Keras layer. Where it is not built, a copy is traced.
        shape: tuple, its input's shape, batch axis included.
        dtype: str, its input's type.
        reduction: `"mean"`, `"sum"`, or `None` where no energy is found.
        needs_gradient: bool. Whether its input's gradient is asked for.

    Attributes:
        weights: int, bytes of all its variables.
        trained: int, bytes of those that are trained.
        largest: int, bytes of the largest of these.
    """

    def __init__(
        self, layer: Any, shape: Shape, dtype: str, reduction: str | None, needs_gradient: bool
    ) -> None:
        copy = layer if layer.built else copy_layer(layer)
        build_layer(copy, (None, *shape[1:]))
        few, more = (
            _trace(copy, (rows, *shape[1:]), dtype, reduction, needs_gradient) for rows in FEW
        )
        self._trace = few
        self._shares = [
            (two - one) // (FEW[1] - FEW[0]) for one, two in zip(few.sizes, more.sizes, strict=True)
        ]
        self.weights = sum(tensor_bytes(v.shape, v.dtype) for v in copy.variables)
        trained = [tensor_bytes(v.shape, v.dtype) for v in copy.trainable_variables]
        self.trained, self.largest = sum(trained), max(trained, default=0)
        self._found: dict[int, BlockBytes] = {}

    def at(self, rows: int) -> BlockBytes:
        """Give the bytes for a batch of so many examples."""
        if rows not in self._found:
            self._found[rows] = self._count(rows)
        return self._found[rows]

    def sizes_at(self, rows: int) -> list[int]:
        """Give the bytes of every tensor of the passes, for a batch of so many examples."""
        return [
            size + share * (rows - FEW[0])
            for size, share in zip(self._trace.sizes, self._shares, strict=True)
        ]

    def _count(self, rows: int) -> BlockBytes:
        trace, sizes = self._trace, self.sizes_at(rows)
        end = len(trace.steps)
        last: dict[int, int] = {}
        for place, step in enumerate(trace.steps):
            last.update(dict.fromkeys(step.reads, place))
        reads_input = any(last.get(one, -1) >= trace.forward for one in trace.given)
        reads_output = any(last.get(one, -1) >= trace.forward for one in trace.made)
        # Who calls holds the output through the forward pass, and the gradients to the end.
        for one in trace.made:
            last[one] = max(last.get(one, -1), trace.forward)
        last.update(dict.fromkeys(trace.left, end))
        marks = sum(
            share * sizes[step.makes[0]] if share else 0
            for share, step in zip(trace.marks, trace.steps, strict=False)
        )
        inner = {one for step in trace.steps[: trace.forward] for one in step.makes}
        inner -= set(trace.made)
        kept = sum(sizes[one] for one in inner if last.get(one, -1) >= trace.forward)
        peaks = _peaks(trace, sizes, last)
        alone: dict[int, int] = {}
        for place, step in enumerate(trace.steps[: trace.forward]):
            alone.update(dict.fromkeys(step.reads, place))
        alone.update(dict.fromkeys(trace.made, trace.forward))
        passing = _peaks(trace, sizes, alone)[: trace.forward]
        return BlockBytes(
            kept=kept + int(marks),
            input=sum(sizes[one] for one in trace.given),
            reads_input=reads_input,
            output=sum(sizes[one] for one in trace.made),
            reads_output=reads_output,
            forward=max(peaks[: trace.forward], default=0) + int(marks),
            # What arrives from above is as large as the output.
            backward=max(peaks[trace.forward :], default=0)
            + sum(sizes[one] for one in trace.above)
            + int(marks),
            gradients=self.trained,
            passing=max(passing, default=0),
        )


def _peaks(trace: _Trace, sizes: Sequence[int], last: dict[int, int]) -> list[int]:
    """Give the bytes that are there during each operation, without what comes from outside."""
    there, peaks = 0, []
    outside = {*trace.given, *trace.above}
    # In the backward pass an executor works at several ends, so what two operations read is
    # there when either of them begins.
    readers = collections.Counter(
        one for step in trace.steps[trace.forward :] for one in step.reads
    )
    for place, step in enumerate(trace.steps):
        made = sum(sizes[one] for one in step.makes)
        dying = {one for one in step.reads if last.get(one) == place} - outside
        largest = max((sizes[one] for one in step.makes), default=0)
        free = {one for one in dying if readers[one] < 2}
        over = step.kind in ELEMENTWISE and any(sizes[one] >= largest for one in free)
        scratch = SCRATCH.get(step.kind, 0.0) * max((sizes[o] for o in step.reads), default=0)
        peaks.append(there + made - (largest if over else 0) + int(scratch))
        unread = {one for one in step.makes if last.get(one, -1) < place}
        there += made - sum(sizes[one] for one in dying | unread)
    return peaks


def _trace(
    layer: Any, shape: Shape, dtype: str, reduction: str | None, needs_gradient: bool
) -> _Trace:
    """Trace a layer forward and backward on a batch of this shape.

    One that takes several tensors tells their shapes and types itself.
    """
    variables = [one.value for one in layer.trainable_variables]
    ends: dict[str, Any] = {}

    def run(given: Any, above: Any) -> None:
        blocks = InTraining(lambda x: run_blocks([layer], x, reduction))
        features, energies = blocks(tf.nest.map_structure(tf.identity, given), training=True)
        given, features = tf.nest.flatten(given), tf.nest.flatten(features)
        ends["forward"] = len(given[0].graph.get_operations())
        ones = [tf.ones_like(one) for one in energies]
        numbers = [one for one in features if one.dtype.is_floating]
        inputs = [one for one in given if one.dtype.is_floating]
        wanted = [*variables, *(inputs if needs_gradient else [])]
        found = (
            tf.gradients([*numbers, *energies], wanted, grad_ys=[*above, *ones]) if wanted else []
        )
        there = [one for one in found if one is not None]
        there = [one.values if isinstance(one, tf.IndexedSlices) else one for one in there]
        ends.update(
            x=given,
            above=above,
            features=features,
            energies=energies,
            found=there,
            needs_gradient=needs_gradient,
        )

    function = tf.function(run, autograph=False)
    given = keras.KerasTensor(shape, dtype)
    if passes_several(layer):
        given = keras.tree.map_structure(
            lambda one: keras.KerasTensor((shape[0], *one.shape[1:]), one.dtype), layer.given
        )
    left = keras.tree.flatten(layer.compute_output_spec(given))
    above = [tf.TensorSpec(one.shape, layer.compute_dtype) for one in left]
    if len(left) > 1:
        above = [tf.TensorSpec(one.shape, one.dtype) for one in left if "float" in one.dtype]
    specs = keras.tree.map_structure(lambda one: tf.TensorSpec(one.shape, one.dtype), given)
    graph = function.get_concrete_function(specs, above).graph
    return _steps(graph.get_operations(), ends)


def _steps(operations: Sequence[Any], ends: dict[str, Any]) -> _Trace:
    """Give what a graph's operations make, without those that nobody needs."""
    numbers: dict[str, int] = {}
    sizes: list[int] = []
    steps: list[_Step] = []
    forward = 0
    needed = _needed(operations, [*ends["features"], *ends["energies"], *ends["found"]])
    for place, op in enumerate(operations):
        forward = len(steps) if place == ends["forward"] else forward
        if op.name not in needed and op.type != "Placeholder":
            continue
        reads = tuple(dict.fromkeys(numbers[one.name] for one in op.inputs if one.name in numbers))
        if op.type in SAME_BUFFER and op.inputs:
            for one, source in zip(op.outputs, op.inputs, strict=False):
                if source.name in numbers:
                    numbers[one.name] = numbers[source.name]
            continue
        if op.type in NO_BUFFER:
            continue
        makes = tuple(range(len(sizes), len(sizes) + len(op.outputs)))
        numbers.update({one.name: number for one, number in zip(op.outputs, makes, strict=True)})
        sizes += [tensor_bytes(one.shape, one.dtype) for one in op.outputs]
        if op.type != "Placeholder":
            steps.append(_Step(op.type, reads, makes))
    given, above, made = (
        tuple(dict.fromkeys(numbers.get(one.name, -1) for one in ends[name]))
        for name in ("x", "above", "features")
    )
    left = tuple(numbers[one.name] for one in ends["found"] if one.name in numbers)
    return _Trace(
        tuple(steps),
        forward,
        tuple(sizes),
        given,
        above,
        made,
        left,
        _marks(steps[:forward]),
    )


def _marks(steps: Sequence[_Step]) -> tuple[float, ...]:
    """Give what each step notes beside its output, as a share of that."""
    marks = []
    for step in steps:
        follower, share = MARKS.get(step.kind, ("", 0.0))
        read_by = [one.kind for one in steps if step.makes and step.makes[0] in one.reads]
        marks.append(share if follower is None or follower in read_by else 0.0)
    return tuple(marks)


def _needed(operations: Sequence[Any], ends: Sequence[Any]) -> set[str]:
    """Give the names of the operations that the ends, or a variable, depend on."""
    found: set[str] = set()
    row = [*(one.op for one in ends), *(op for op in operations if op.type.startswith("Assign"))]
    while row:
        op = row.pop()
        if op.name not in found:
            found.add(op.name)
            row += [one.op for one in op.inputs]
    return found


def tensor_bytes(shape: Any, dtype: Any) -> int:
    """Give a tensor's bytes, 0 where its shape is not known or it is a handle."""
    sides = tf.TensorShape(shape)
    type_ = tf.as_dtype(dtype)
    if not sides.is_fully_defined() or type_ in (tf.resource, tf.variant, tf.string):
        return 0
    size: int = type_.size
    return math.prod(sides.as_list()) * size
