"""How many bytes of activations backpropagation keeps, counted from shapes and types.

Rules, one tensor counted once however many layers need it: convolutions, dense layers and
normalizations keep their input; ReLU keeps its output, which is the next layer's input; other
activations keep their input; max pooling keeps both, dropout its mask; sums, average pooling,
padding and reshaping keep nothing. A layer not known here keeps both sides.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.layers.residual_block import ResidualBlock
from keras_trgl.types import Shape

layers = keras.layers

KEEP_INPUT = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv2D,
    layers.Dense,
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
)
KEEP_NOTHING = (
    layers.Add,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
    layers.InputLayer,
)
SAME_TENSOR = (layers.Flatten, layers.Reshape)
KEEP_BOTH = (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)


class Counter:
    """Walks layers with one tensor in hand, and adds up what is kept.

    Args:
        shape: the tensor's shape, batch axis included.
        counted: bool. Whether the tensor in hand is counted already.
    """

    def __init__(self, shape: Shape, counted: bool) -> None:
        self.shape = shape
        self.counted = counted
        self.bytes = 0
        self.largest = 0

    def _size(self, layer: Any) -> int:
        width = np.dtype("float16" if "16" in layer.compute_dtype else layer.compute_dtype)
        size = math.prod(int(side or 1) for side in self.shape[1:]) * width.itemsize
        self.largest = max(self.largest, size)
        return size

    def _keep(self, layer: Any) -> None:
        size = self._size(layer)
        if not self.counted:
            self.bytes += size
            self.counted = True

    def _move(self, layer: Any) -> None:
        self.shape = tuple(layer.compute_output_shape(self.shape))
        self.counted = False
        self._size(layer)

    def walk(self, chain: Sequence[Any]) -> None:
        """Pass the tensor through layers in a row."""
        for layer in chain:
            self._pass(layer)

    def _pass(self, layer: Any) -> None:
        row = getattr(layer, "layers_in_a_row", None)
        if isinstance(layer, ResidualBlock):
            self._pass_block(layer)
        elif row or isinstance(layer, keras.Model):
            self.walk(row or layer.layers)
        elif isinstance(layer, KEEP_NOTHING) or type(layer).__name__ == "PadShortcut":
            self._move(layer)
        elif isinstance(layer, SAME_TENSOR):
            counted = self.counted
            self._move(layer)
            self.counted = counted
        elif isinstance(layer, layers.ReLU) or _is_relu(layer):
            self._move(layer)
            self._keep(layer)
        else:
            known = isinstance(layer, (*KEEP_INPUT, layers.Activation))
            if not isinstance(layer, layers.Dropout):
                self._keep(layer)
            self._move(layer)
            if isinstance(layer, KEEP_BOTH) or not known or _is_relu(layer):
                self._keep(layer)

    def _pass_block(self, block: ResidualBlock) -> None:
        self.walk(block.entry)
        side = Counter(self.shape, self.counted)
        side.walk(block.branch)
        # The shortcut begins at the tensor that the branch has counted by now.
        skip = Counter(self.shape, True)
        skip.walk(block.shortcut)
        self.bytes += side.bytes + skip.bytes
        self.largest = max(self.largest, side.largest, skip.largest)
        self.shape, self.counted = side.shape, False
        if block.activation is None:
            return
        self._keep(block)


def _is_relu(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    return isinstance(layer, layers.Activation) and activation is keras.activations.relu
