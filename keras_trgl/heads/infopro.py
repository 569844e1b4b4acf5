"""The auxiliary classifiers of InfoPro."""

from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.heads.head import Head
from keras_trgl.heads.parts import Parts, image_sides
from keras_trgl.registration import public
from keras_trgl.types import Shape

WIDEST = 64
HIDDEN = 128


@public
class InfoProHead(Head):
    """3x3 convolutions with batch normalization and ReLU, mean over positions, dense layers.

    The published `1c2f`, with other counts `0c1f`, `0c2f`, `1c1f`, `1c3f`, `2c2f`. The first
    convolution doubles up to 64 channels and has stride 2 where it does; more channels are kept.
    Hidden dense layers have 128 units and a ReLU. Of 128 `units` it is the net before the
    contrastive loss.

    Args:
        units: int > 0. Numbers in a prediction.
        convolutions: int ≥ 0. Number of convolutions. Defaults to `1`.
        dense: int ≥ 1. Number of dense layers, the last one included. Defaults to `2`.
        kernel_initializer: `keras.initializers.Initializer` of the kernels, or its name. Defaults
            to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        TypeError: `convolutions` or `dense` is no integer.
        ValueError: `units`, `convolutions` or `dense` is too small; another word for
            `data_format`; at build, features that are no images of known size.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import InfoProHead
        >>> InfoProHead(units=10)(np.ones((2, 8, 8, 16), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Wang et al., "Revisiting Locally Supervised Learning: an Alternative to End-to-end
        Training" (InfoPro), ICLR 2021: its code.
    """

    def __init__(
        self,
        units: int,
        convolutions: int = 1,
        dense: int = 2,
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        check_integer("convolutions", convolutions, 0)
        check_integer("dense", dense, 1)
        self.convolutions = int(convolutions)
        self.dense = int(dense)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def make_layers(self, input_shape: Shape) -> list[keras.layers.Layer]:
        """Give the head's layers.

        Args:
            input_shape: tuple, `(batch, height, width, channels)`.

        Returns:
            List of layers.

        Raises:
            ValueError: features that are no images of known size.
        """
        _, _, channels = image_sides(self, input_shape)
        make = Parts(self, self.kernel_initializer)
        row: list[keras.layers.Layer] = []
        for position in range(self.convolutions):
            grows = position == 0 and channels < WIDEST
            channels = min(2 * channels, WIDEST) if grows else channels
            row += make.conv(channels, 3, 2 if grows else 1)
        row += self.mean(len(input_shape))
        for _ in range(self.dense - 1):
            row += [make.dense(HIDDEN), make.relu()]
        return [*row, make.dense(self.units)]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "convolutions": self.convolutions,
            "dense": self.dense,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
