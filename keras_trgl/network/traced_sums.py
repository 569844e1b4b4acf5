"""Residual sums x + r(x) among the operations of a traced graph, those inside layers included.

A sum counts if both terms are computed from the data, are of one shape, and one is the shortcut:

- one term is an ancestor of the other, which is then the residual;
- of a chain x + f + g one term is an ancestor of all others, which are the residual together;
- a projection: one way from where the two part is affine and the other is not. What has no such
  place, as two embeddings of two inputs, adds no residual.

On the residual's own way there must be a weight, or the inside of a GELU would count. A sum that
goes to a softmax adds to attention scores, and is none. Dependence through a shape alone is none.
The affine rule fails for a residual without any nonlinearity beside a projection: such a sum is
left out, as ambiguous.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.types import Tensor

BY_SHAPE = {"Shape", "Size", "Rank", "ZerosLike", "OnesLike"}
READS = {"ReadVariableOp", "ResourceGather"}
PASSING = {"Cast", "Reshape", "Identity", "IdentityN", "AddV2", "BiasAdd", "SelectV2", "Transpose"}
"""What attention scores go through on their way to a softmax."""

KEEP_OUTPUT = {"Relu", "Relu6", "Elu", "Selu", "Sigmoid", "Tanh", "Softmax"}
"""What needs its output for its gradient, and not its input: the sum before it is not kept."""

FUNCTIONS = {"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "While"}
FUNCTIONS |= {"StatelessWhile"}
PRODUCTS = {"MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv3D", "DepthwiseConv2dNative"}

_PLAIN_AFFINE = {
    *("Add", "AddV2", "AvgPool", "AvgPool3D", "BatchMatMulV2", "BatchToSpaceND", "BiasAdd"),
    *("Bitcast", "BroadcastTo", "Cast", "ConcatV2", "Const", "Conv2D", "Conv3D", "Einsum"),
    *("DepthwiseConv2dNative", "EnsureShape", "ExpandDims", "Fill", "FloorMod", "GatherV2"),
    *("FusedBatchNormV3", "GreaterEqual", "Identity", "IdentityN", "MatMul", "Maximum", "Mean"),
    *("Mul", "Neg", "NoOp", "Pack", "Pad", "PadV2", "Placeholder", "Prod", "Range", "Rank"),
    *("ReadVariableOp", "RealDiv", "Reshape", "Rsqrt", "SelectV2", "SpaceToBatchND", "Split"),
    *("Sqrt", "Square", "SquaredDifference", "Squeeze", "StatelessRandomUniformV2", "Sub"),
    *("StatelessRandomGetAlg", "StatelessRandomGetKeyCounter", "StopGradient", "StridedSlice"),
    *("StatelessRandomUniformIntV2", "Sum", "Transpose", "Unpack", *BY_SHAPE),
    *("AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp"),
}
"""Affine in the data, batch normalization and dropout (by their own draws) among them."""


@dataclasses.dataclass(eq=False)
class FoundSum:
    """A sum that adds a residual.

    Attributes:
        op: the operation of the graph.
        terms: which terms of the sum make up the residual: one place of the two, or, of a chain,
            every (operation, place).
        forgotten: whether all that follows the sum forgets it, so that nobody else keeps it.
    """

    op: Any
    terms: list[tuple[Any, int]]
    forgotten: bool = False


class TracedSums:
    """The residual sums among a graph's operations from one on.

    Args:
        graph: `tf.Graph`.
        start: int. Position of the first operation that counts.
        given: list of tensors, the data.
        may_count: dict of operation to whatever the caller knows it by: the sums to judge.

    Attributes:
        found: list of `FoundSum`, in order.
        ambiguous: list of operations that add two ways of one kind.
    """

    def __init__(
        self, graph: Any, start: int, given: Sequence[Tensor], may_count: dict[Any, Any]
    ) -> None:
        before = {one.op: None for one in given}
        self._ops = [*before, *(op for op in graph.get_operations()[start:] if op not in before)]
        self._may_count = may_count
        self._place = {op: index for index, op in enumerate(self._ops)}
        self._above: dict[Any, int] = {}
        self._depends: set[Any] = {one.op for one in given}
        self._weights = 0
        self._consumers: dict[Any, list[Any]] = {}
        for op in self._ops:
            self._enter(op)
        self.found: list[FoundSum] = []
        self.ambiguous: list[Any] = []
        in_chains: set[Any] = set()
        for op in reversed(self._ops):
            if op in may_count and op not in in_chains:
                self._judge(op, in_chains)
        self.found.reverse()
        self.ambiguous = [op for op in reversed(self.ambiguous) if op not in in_chains]

    def _enter(self, op: Any) -> None:
        place = self._place[op]
        bits, depends = 1 << place, op in self._depends
        for one in op.inputs:
            bits |= self._above.get(one.op, 0)
            depends = depends or one.op in self._depends
            if op.type not in BY_SHAPE:
                self._consumers.setdefault(one.op, []).append(op)
        self._above[op] = bits
        if depends and op.type not in BY_SHAPE:
            self._depends.add(op)
        if op.type in READS:
            self._weights |= 1 << place

    def _judge(self, op: Any, in_chains: set[Any]) -> None:
        """Enter a sum among what was found, or as ambiguous, or not at all."""
        if not self._adds_features(op) or self._scores(op):
            return
        terms = self._terms(op)
        if terms is None and op.type != "Sub":
            chain = self._chain(op)
            terms = self._rest_of(chain)
            if terms is not None:
                in_chains.update(term[0] for term in chain if term[0] is not op)
            else:
                terms = self._beside_projection(op)
        if terms:
            self.found.append(FoundSum(op, terms, self._is_forgotten(op)))

    def _adds_features(self, op: Any) -> bool:
        """Tell whether both terms come from the data and are of one shape."""
        one, other = op.inputs
        return {one.op, other.op} <= self._depends and _same_shape(one.shape, other.shape)

    def _own(self, tensor: Any, other: Any) -> int:
        """Give what is above one tensor and not above another, as bits."""
        return self._above.get(tensor.op, 0) & ~self._above.get(other.op, 0)

    def _is_above(self, tensor: Any, other: Any) -> bool:
        if tensor.op not in self._place or other.op is tensor.op:
            return False
        return bool(self._above.get(other.op, 0) >> self._place[tensor.op] & 1)

    def _terms(self, op: Any) -> list[tuple[Any, int]] | None:
        """Give the residual's place where one term is an ancestor of the other, else `None`.

        No place, `[]`, where there is no weight on the way between them: that is settled too.
        """
        for place in (1, 0):
            shortcut, residual = op.inputs[1 - place], op.inputs[place]
            if self._is_above(shortcut, residual):
                # r(x) - x does not start from x.
                fits = self._own(residual, shortcut) & self._weights and (place, op.type) != (
                    0,
                    "Sub",
                )
                return [(op, place)] if fits else []
        return None

    def _chain(self, op: Any) -> list[tuple[Any, int]]:
        """Give the terms of a sum of sums, each as the operation that adds it and its place."""
        terms: list[tuple[Any, int]] = []
        for place, tensor in enumerate(op.inputs):
            inner = tensor.op
            alone = len(self._consumers.get(inner, ())) == 1
            is_sum = inner in self._may_count and inner.type != "Sub"
            if alone and is_sum and self._adds_features(inner):
                terms += self._chain(inner)
            else:
                terms.append((op, place))
        return terms

    def _rest_of(self, chain: list[tuple[Any, int]]) -> list[tuple[Any, int]] | None:
        """Give the other terms of a chain in which one is an ancestor of all others."""
        tensors = [op.inputs[place] for op, place in chain]
        for index, tensor in enumerate(tensors if len(chain) > 2 else ()):
            others = [one for place, one in enumerate(tensors) if place != index]
            own = [self._own(one, tensor) & self._weights for one in others]
            if all(own) and all(self._is_above(tensor, one) for one in others):
                return [term for place, term in enumerate(chain) if place != index]
        return None

    def _beside_projection(self, op: Any) -> list[tuple[Any, int]] | None:
        own = [self._own(op.inputs[0], op.inputs[1]), self._own(op.inputs[1], op.inputs[0])]
        if not own[0] or not own[1] or not self._part_somewhere(*op.inputs):
            return None
        affine = [all(map(_is_affine, self._among(bits))) for bits in own]
        place = affine.index(False) if affine[0] != affine[1] else 0
        if affine[0] == affine[1] or op.type == "Sub":
            if own[0] & self._weights or own[1] & self._weights:
                self.ambiguous.append(op)
            return None
        return [(op, place)] if own[place] & self._weights else None

    def _part_somewhere(self, one: Any, other: Any) -> bool:
        """Tell whether two tensors are made of one: two embeddings of two inputs are not."""
        both = self._above.get(one.op, 0) & self._above.get(other.op, 0)
        return any(op in self._depends for op in self._among(both))

    def _among(self, bits: int) -> list[Any]:
        return [op for place, op in enumerate(self._ops) if bits >> place & 1]

    def _scores(self, op: Any) -> bool:
        """Tell whether a sum goes to a softmax, and to nothing else."""
        ways, seen, ends = [op], {op}, False
        while ways:
            for follower in self._consumers.get(ways.pop(), ()):
                if follower.type == "Softmax":
                    ends = True
                elif follower.type in PASSING and follower not in seen:
                    seen.add(follower)
                    ways.append(follower)
                elif follower not in seen and follower.type not in PASSING:
                    return False
        return ends

    def _is_forgotten(self, op: Any) -> bool:
        followers = self._consumers.get(op, ())
        return bool(followers) and all(one.type in KEEP_OUTPUT for one in followers)


def _same_shape(one: Any, other: Any) -> bool:
    """Tell whether shapes are the same as far as they are known; an axis of 1 is spread out."""
    pairs = list(zip(one.as_list(), other.as_list(), strict=True))
    return all(a == b or (None in (a, b) and 1 not in (a, b)) for a, b in pairs)


def _is_affine(op: Any) -> bool:
    if op.type == "MaxPool":
        return set(op.get_attr("ksize")) == {1}
    return op.type in _PLAIN_AFFINE


def graph_here() -> Any:
    """Give the graph under construction, or `None` where calls run at once."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def is_candidate(one: Any, other: Any) -> bool:
    """Tell whether two terms may be a shortcut and a residual, whatever the sizes of their axes.

    Sizes are not compared: they are known or not depending on how the layer is called, and the
    number of candidates must not depend on it.
    """
    if not (tf.is_tensor(one) and tf.is_tensor(other)):
        return False
    rank = one.shape.rank
    return rank is not None and rank >= 2 and rank == other.shape.rank and one.dtype.is_floating


def hides_sums(graph: Any, start: int, stop: int) -> bool:
    """Tell whether operations call functions that add, and multiply by weights too.

    Args:
        graph: `tf.Graph`.
        start: int. Position of the first operation.
        stop: int. Position after the last one.
    """
    called = set()
    for op in graph.get_operations()[start:stop]:
        if op.type in FUNCTIONS:
            for name in ("f", "then_branch", "else_branch", "body"):
                if name in op.node_def.attr:
                    called.add(op.node_def.attr[name].func.name)
    if not called:
        return False
    kinds = {
        one.signature.name: {node.op for node in one.node_def}
        for one in graph.as_graph_def().library.function
    }
    return any("AddV2" in kinds[name] and kinds[name] & PRODUCTS for name in called)
