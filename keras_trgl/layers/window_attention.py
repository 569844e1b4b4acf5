"""Self-attention inside windows of a grid, plain or shifted."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_trgl.checks import check_integer
from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Shape, Tensor

FAR = -3e4
"""Added where positions must not attend: finite in float16, and its exponential is zero."""


@public
class WindowAttention(Recorded, keras.layers.Layer):
    """Multi-head self-attention inside windows, with a learned bias per relative position.

    The grid is cut into windows of M x M positions. Per window and head, with d channels a head:
    softmax(q·kᵀ/√d + b)·v, where b comes from a table of `(2M − 1)²` numbers a head, by the
    distance of two positions in rows and columns. With a shift of s all borders lie s positions
    further, and the windows at the grid's edges are smaller: nothing wraps around. Channels are
    last, whatever Keras's default. Parameters: `4c² + 4c + (2M − 1)²·num_heads`.

    Args:
        num_heads: int ≥ 1. Must divide the channels.
        window: int ≥ 1. M, in positions. A grid whose smaller side is not above it has windows of
            that side, and no shift.
        shift: int ≥ 0, below `window`. s, in positions; the published one is `window // 2` in
            every second block. Defaults to `0`.
        kernel_initializer: `keras.initializers.Initializer` of both matrices and the table, or its
            name. Defaults to `"glorot_uniform"`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        TypeError: `num_heads`, `window` or `shift` is no integer.
        ValueError: one of them is out of range; at build, for inputs that are no `(batch, height,
            width, channels)` of known sides, sides that windows do not divide, or channels that
            `num_heads` does not divide.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.layers import WindowAttention
        >>> layer = WindowAttention(num_heads=2, window=4, shift=2)
        >>> layer(np.ones((1, 8, 8, 6), "float32")).shape
        TensorShape([1, 8, 8, 6])

    Reference:
        Liu et al., "Swin Transformer", 2021, equations 3 and 4, figure 4.
    """

    data_format = "channels_last"

    def __init__(
        self,
        num_heads: int,
        window: int,
        shift: int = 0,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_integer("num_heads", num_heads, 1)
        check_integer("window", window, 1)
        check_integer("shift", shift, 0)
        if shift >= window:
            raise ValueError(
                f"`shift` must be below `window`. Received: shift={shift}, window={window}. The "
                f"published one is {window // 2}."
            )
        self.num_heads = int(num_heads)
        self.window = int(window)
        self.shift = int(shift)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Shape) -> None:
        """Make matrices and table for inputs of this shape, batch axis included."""
        size, self._shift = self._fit(input_shape)
        self._size = size
        channels = int(input_shape[3] or 0)
        windows = (None, size * size, channels)
        for name, units in (("qkv", 3 * channels), ("projection", channels)):
            # A copy draws numbers of its own; from one initializer they would be alike.
            kernel = self.kernel_initializer.clone()
            dense = keras.layers.Dense(
                units, kernel_initializer=kernel, name=name, dtype=self.dtype_policy
            )
            dense.build(windows)
            setattr(self, name, dense)
        self.relative_position_bias = self.add_weight(
            name="relative_position_bias",
            shape=((2 * size - 1) ** 2, self.num_heads),
            initializer=self.kernel_initializer.clone(),
        )
        self._pairs = _pairs(size)
        self._far = _far(int(input_shape[1] or 0), int(input_shape[2] or 0), size, self._shift)

    def _fit(self, shape: Shape) -> tuple[int, int]:
        """Give the windows' side and shift on a grid."""
        if len(shape) != 4 or None in shape[1:]:
            raise ValueError(
                f"{self.name} takes a grid (batch, height, width, channels) of known sides. "
                f"Received: inputs {tuple(shape)}. Use `SelfAttention` for a sequence."
            )
        height, width, channels = (int(side or 0) for side in shape[1:])
        if channels % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the channels. Received: num_heads={self.num_heads}, "
                f"inputs {tuple(shape)}."
            )
        size = min(self.window, height, width)
        if height % size or width % size:
            fitting = [m for m in range(1, size) if height % m == 0 and width % m == 0]
            raise ValueError(
                f"Windows must divide the grid. Received: window={self.window}, inputs "
                f"{tuple(shape)}. Use images of another size, or window={fitting[-1]}."
            )
        return size, self.shift if min(height, width) > self.window else 0

    def call(self, inputs: Tensor) -> Tensor:
        """Let every position attend to those of its window.

        Args:
            inputs: tensor, `(batch, height, width, channels)`.

        Returns:
            Tensor of the inputs' shape.
        """
        size, shift = self._size, self._shift
        height, width, channels = inputs.shape[1:]
        down, across = height // size, width // size
        # The shift moves the grid under the windows; those at the edge then hold parts of two
        # edges, which `_far` keeps apart.
        x = _moved(inputs, shift) if shift else inputs
        x = ops.reshape(x, (-1, down, size, across, size, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, size * size, channels))
        x = self.projection(self._attend(self.qkv(x), down * across))
        x = ops.reshape(x, (-1, down, across, size, size, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))
        return _moved(x, -shift) if shift else x

    def _attend(self, qkv: Tensor, windows: int) -> Tensor:
        """Give the attention's result per window, heads side by side.

        Args:
            qkv: tensor, (batch times windows, positions, 3 · channels).
            windows: int. Windows of one example.
        """
        positions, depth = qkv.shape[1], qkv.shape[2] // (3 * self.num_heads)
        qkv = ops.reshape(qkv, (-1, positions, 3, self.num_heads, depth))
        query, key, value = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3, axis=0)
        scores = ops.matmul(query * depth**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        bias = ops.take(self.relative_position_bias, self._pairs, axis=0)
        bias = ops.transpose(bias, (2, 0, 1))
        if self._far is None:
            scores = scores + bias
        else:
            apart = ops.expand_dims(ops.cast(self._far, bias.dtype), 1) + bias
            scores = ops.reshape(scores, (-1, windows, self.num_heads, positions, positions))
            scores = ops.reshape(scores + apart, (-1, self.num_heads, positions, positions))
        # Keras warns of a softmax over one number, as in a grid of one position: it is 1, and its
        # gradient 0, like this.
        weights = ops.softmax(scores) if positions > 1 else ops.exp(scores - scores)
        x = ops.matmul(weights, value)
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, positions, self.num_heads * depth))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the inputs' shape."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "window": self.window,
            "shift": self.shift,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _moved(x: Tensor, shift: int) -> Tensor:
    """Move a grid up and to the left; what leaves it comes in at the other side.

    By slices, as LiteRT and ONNX know no operation that rolls.
    """
    x = ops.concatenate([x[:, shift:], x[:, :shift]], axis=1)
    return ops.concatenate([x[:, :, shift:], x[:, :, :shift]], axis=2)


def _pairs(size: int) -> np.ndarray[Any, Any]:
    """Give the table's row of every pair of a window's positions, (positions, positions)."""
    place = np.stack(np.divmod(np.arange(size * size), size), axis=-1)
    distance = place[:, None] - place[None] + size - 1
    rows: np.ndarray[Any, Any] = distance[..., 0] * (2 * size - 1) + distance[..., 1]
    return rows.astype("int32")


def _far(height: int, width: int, size: int, shift: int) -> np.ndarray[Any, Any] | None:
    """Give what keeps pairs apart that only the shift brought together, or `None`.

    Returns:
        Array, (windows, positions, positions), of zeros and `FAR`.
    """
    if not shift:
        return None
    rows, columns = np.arange(height) >= height - shift, np.arange(width) >= width - shift
    part = 2 * rows[:, None] + columns[None]
    part = part.reshape(height // size, size, width // size, size).transpose(0, 2, 1, 3)
    part = part.reshape(-1, size * size)
    return np.where(part[:, :, None] == part[:, None], 0.0, FAR).astype("float32")
