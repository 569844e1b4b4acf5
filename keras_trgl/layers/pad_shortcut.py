"""The shortcut without parameters: fewer pixels, more channels."""

from typing import Any

import keras
from keras import ops

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Shape, Tensor


@public
class PadShortcut(Recorded, keras.layers.Layer):
    """Takes every `stride`-th pixel and appends zeros up to `channels` channels.

    Args:
        channels: int ≥ 1. Channels of the output, at least those of the input.
        stride: int ≥ 1. Step over rows and columns, in pixels. Defaults to `2`.
        data_format: `"channels_last"` or `"channels_first"`. `None` is Keras's. Defaults to
            `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: another word for `data_format`; at build, when the input has more than
            `channels` channels.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.layers import PadShortcut
        >>> PadShortcut(channels=4)(np.ones((1, 8, 8, 2), "float32")).shape
        TensorShape([1, 4, 4, 4])

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, shortcut option A.
    """

    def __init__(
        self, channels: int, stride: int = 2, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_integer("channels", channels, 1)
        check_integer("stride", stride, 1)
        self.channels = int(channels)
        self.stride = int(stride)
        check_choice("data_format", data_format, (None, "channels_last", "channels_first"))
        self.data_format = data_format or keras.config.image_data_format()
        self._axis = 1 if self.data_format == "channels_first" else 3

    def build(self, input_shape: Shape) -> None:
        """Check the number of channels."""
        if (input_shape[self._axis] or 0) > self.channels:
            raise ValueError(
                f"`channels` must be at least the input's. Received: channels={self.channels}, "
                f"input shape {tuple(input_shape)}."
            )

    def call(self, inputs: Tensor) -> Tensor:
        """Give the subsampled and padded features, `(batch, height, width, channels)`."""
        if self._axis == 1:
            x = inputs[:, :, :: self.stride, :: self.stride]
        else:
            x = inputs[:, :: self.stride, :: self.stride, :]
        missing = self.channels - inputs.shape[self._axis]
        pads = [[0, missing] if axis == self._axis else [0, 0] for axis in range(4)]
        return ops.pad(x, pads) if missing else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the output's shape."""
        sides = [
            None if side is None else -(-side // self.stride)
            for axis, side in enumerate(input_shape)
            if axis not in (0, self._axis)
        ]
        batch = input_shape[0]
        return (batch, self.channels, *sides) if self._axis == 1 else (batch, *sides, self.channels)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "stride": self.stride,
            "data_format": self.data_format,
        }
