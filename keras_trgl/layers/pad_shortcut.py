"""The shortcut without parameters: fewer pixels, more channels."""

from typing import Any

import keras
from keras import ops

from keras_trgl.checks import check_integer
from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Shape, Tensor


@public
class PadShortcut(Recorded, keras.layers.Layer):
    """Takes every `stride`-th pixel and appends zeros up to `channels` channels.

    Args:
        channels: int ≥ 1. Channels of the output, at least those of the input.
        stride: int ≥ 1. Step over rows and columns, in pixels. Defaults to `2`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: at build, when the input has more than `channels` channels.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.layers import PadShortcut
        >>> PadShortcut(channels=4)(np.ones((1, 8, 8, 2), "float32")).shape
        TensorShape([1, 4, 4, 4])

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, shortcut option A.
    """

    def __init__(self, channels: int, stride: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_integer("channels", channels, 1)
        check_integer("stride", stride, 1)
        self.channels = int(channels)
        self.stride = int(stride)

    def build(self, input_shape: Shape) -> None:
        """Check the number of channels."""
        if (input_shape[-1] or 0) > self.channels:
            raise ValueError(
                f"`channels` must be at least the input's. Received: channels={self.channels}, "
                f"input shape {tuple(input_shape)}."
            )

    def call(self, inputs: Tensor) -> Tensor:
        """Give the subsampled and padded features, `(batch, height, width, channels)`."""
        x = inputs[:, :: self.stride, :: self.stride, :]
        missing = self.channels - inputs.shape[-1]
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, missing]]) if missing else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the output's shape."""
        batch, rows, columns, _ = input_shape
        step = self.stride
        return (
            batch,
            None if rows is None else -(-rows // step),
            None if columns is None else -(-columns // step),
            self.channels,
        )

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {**super().get_config(), "channels": self.channels, "stride": self.stride}
