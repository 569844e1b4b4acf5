"""How many bytes of activations backpropagation keeps, counted from shapes and types.

Rules, one tensor counted once however many layers need it:

- convolutions, dense layers and normalizations keep their input, as do activations that are not
  found from their output; a padded copy that a convolution reads is such an input;
- ReLU and its like keep their output, mostly the next layer's input; an activation inside a
  convolution or dense layer counts as one after it;
- max pooling keeps both sides, dropout a mask of one byte per number;
- sums, average pooling, padding and `PadShortcut` keep nothing; reshaping gives the same tensor.

A layer not known here keeps both sides. Left out are parameters, what kernels use inside, the
gradients of the backward pass, and what an energy adds.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.layers.chain import output_shape
from keras_trgl.layers.pad_shortcut import PadShortcut
from keras_trgl.layers.residual_add import ResidualAdd
from keras_trgl.layers.residual_block import ResidualBlock
from keras_trgl.types import Shape, Tensor


def _each_rank(*names: str) -> tuple[type, ...]:
    return tuple(getattr(keras.layers, f"{name}{rank}D") for name in names for rank in (1, 2, 3))


KEEP_INPUT = (
    *_each_rank("Conv"),
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Dense,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LeakyReLU,
)
KEEP_OUTPUT = (keras.layers.ReLU, keras.layers.ELU, keras.layers.Softmax)
KEEP_BOTH = _each_rank("MaxPooling")
KEEP_NOTHING = (
    *_each_rank("AveragePooling", "GlobalAveragePooling", "ZeroPadding", "Cropping", "UpSampling"),
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Concatenate,
    keras.layers.Permute,
    keras.layers.Rescaling,
    PadShortcut,
    ResidualAdd,
)
SAME_TENSOR = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Identity,
    keras.layers.InputLayer,
)
OPERATIONS_KEEP_NOTHING = {"Add", "Subtract", "Concatenate", "GetItem", "Mean", "Pad", "Transpose"}
"""Of `keras.ops` in a functional model, which are no layers and known by name alone."""

FOUND_FROM_OUTPUT = {"relu", "relu6", "elu", "selu", "sigmoid", "tanh", "softmax"}
"""Activations whose gradient needs what came out, not what went in."""


class Held:
    """A tensor on its way through layers.

    Args:
        shape: tuple, batch axis included.
        counted: bool. Whether its bytes are counted already. Defaults to `False`.
    """

    def __init__(self, shape: Shape, counted: bool = False) -> None:
        self.shape = shape
        self._counted = [counted]

    @property
    def counted(self) -> bool:
        """Whether the tensor's bytes are counted, under this shape or another."""
        return self._counted[0]

    def count(self) -> None:
        """Enter the tensor as counted."""
        self._counted[0] = True

    def reshaped(self, shape: Shape) -> "Held":
        """Give the same tensor in another shape."""
        other = Held(shape)
        other._counted = self._counted
        return other


class Counter:
    """Walks layers, and adds up what they keep, per example.

    Attributes:
        bytes: int. What is kept so far.
        largest: int. Bytes of the largest tensor seen, kept or not.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.largest = 0

    def walk(self, chain: Sequence[Any], held: Held) -> Held:
        """Pass a tensor through layers in a row, and give the last one's output."""
        for layer in chain:
            held = self._pass(layer, held)
        return held

    def _pass(self, layer: Any, held: Held) -> Held:
        row = getattr(layer, "layers_in_a_row", None)
        if row:
            return self.walk(row, held)
        if isinstance(layer, ResidualBlock):
            return self._pass_block(layer, held)
        if isinstance(layer, keras.Sequential):
            return self.walk(layer.layers, held)
        if isinstance(layer, keras.Model):
            graph = _graph(layer)
            if graph is not None:
                return self._pass_graph(graph, held)
        if isinstance(layer, keras.layers.InputLayer):
            return held
        shape = output_shape(layer, held.shape)
        return self._pass_layer(layer, [held], [Held(shape)])[0]

    def _pass_block(self, block: ResidualBlock, held: Held) -> Held:
        start = self.walk(block.entry, held)
        merged = Held(self.walk(block.branch, start).shape)
        self.walk(block.shortcut, start)
        return merged if block.activation is None else self._activate(block, merged)

    def _pass_graph(self, graph: keras.Model, held: Held) -> Held:
        start = keras.Input(batch_shape=held.shape, dtype=graph.inputs[0].dtype)
        ways: dict[int, tuple[Tensor, Held]] = {id(start): (start, held)}

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            came = [x for x in keras.tree.flatten((args, kwargs)) if keras.utils.is_keras_tensor(x)]
            given = layer(*args, **kwargs)
            left = keras.tree.flatten(given)
            inputs = [ways[id(x)][1] for x in came]
            if len(inputs) == len(left) == 1 and isinstance(layer, keras.layers.Layer):
                outputs = [self._pass(layer, inputs[0])]
            else:
                outputs = self._pass_layer(layer, inputs, [Held(tuple(x.shape)) for x in left])
            # The tensor is held too, so that no later one can get its identity.
            ways.update({id(x): (x, output) for x, output in zip(left, outputs, strict=True)})
            return given

        copy = keras.models.clone_model(graph, input_tensors=start, call_function=call)
        return ways[id(copy.outputs[0])][1]

    def _pass_layer(self, layer: Any, inputs: list[Held], outputs: list[Held]) -> list[Held]:
        for held in (*inputs, *outputs):
            self.largest = max(self.largest, _size(layer, held))
        kind = type(layer).__name__
        layered = isinstance(layer, keras.layers.Layer)
        if isinstance(layer, SAME_TENSOR) or (not layered and kind == "Reshape"):
            return [inputs[0].reshaped(outputs[0].shape)]
        if isinstance(layer, keras.layers.Activation):
            return [self._activate(layer, inputs[0])]
        if isinstance(layer, keras.layers.Dropout):
            self.bytes += _numbers(outputs[0]) if layer.rate else 0
        elif isinstance(layer, KEEP_OUTPUT) or (not layered and kind.lower() in FOUND_FROM_OUTPUT):
            self._keep(layer, outputs)
        elif isinstance(layer, KEEP_INPUT):
            self._keep(layer, inputs)
            if getattr(layer, "activation", None) is not None:
                return [self._activate(layer, outputs[0])]
        elif not isinstance(layer, KEEP_NOTHING) and (
            layered or kind not in OPERATIONS_KEEP_NOTHING
        ):
            self._keep(layer, [*inputs, *outputs])
        return outputs

    def _activate(self, layer: Any, held: Held) -> Held:
        """Pass a tensor through a layer's `activation`."""
        if layer.activation is keras.activations.linear:
            return held
        output = Held(held.shape)
        name = getattr(layer.activation, "__name__", "")
        self._keep(layer, [output if name in FOUND_FROM_OUTPUT else held])
        return output

    def _keep(self, layer: Any, tensors: Sequence[Held]) -> None:
        for held in tensors:
            size = _size(layer, held)
            self.largest = max(self.largest, size)
            if not held.counted:
                self.bytes += size
                held.count()


def activation_bytes(layer: Any, input_shape: Shape) -> int:
    """Give the bytes that backpropagation through a layer keeps, for one example.

    Args:
        layer: Keras layer, built or not, of one input; a `ResidualBlock`, a built head, a
            sequential or functional model counts with all it holds.
        input_shape: tuple, batch axis included, every other side known.

    Returns:
        int, bytes. The input counts if a layer keeps it, the output likewise.

    Example:
        >>> import keras
        >>> from keras_trgl.splitting.activation_bytes import activation_bytes
        >>> activation_bytes(keras.layers.Dense(3), (None, 10))
        40
    """
    counter = Counter()
    counter.walk([layer], Held(tuple(input_shape)))
    return counter.bytes


def bytes_of(layer: Any, shape: Shape) -> int:
    """Give the bytes of one example of this shape in the type that a layer computes in."""
    return _size(layer, Held(shape))


def _numbers(held: Held) -> int:
    return math.prod(int(side or 1) for side in held.shape[1:])


def _size(layer: Any, held: Held) -> int:
    dtype = getattr(layer, "compute_dtype", None) or keras.config.floatx()
    # NumPy does not know bfloat16.
    return _numbers(held) * np.dtype("float16" if dtype == "bfloat16" else dtype).itemsize


def _graph(model: keras.Model) -> keras.Model | None:
    """Give the model's graph, or `None` where it has none, or more than one way in or out."""
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1:
        return None
    graph = keras.Model(inputs[0], outputs[0])
    return graph if type(model).call is type(graph).call else None
