"""The auxiliary nets of decoupled greedy learning."""

from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.heads.head import Head
from keras_trgl.heads.parts import Layers, Parts, image_sides
from keras_trgl.registration import public
from keras_trgl.types import Shape


class _DGLHead(Head):
    """What the three nets share: initializers, and that features are images of known size."""

    def __init__(
        self, units: int, kernel_initializer: Any, data_format: str | None, **kwargs: Any
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def make_layers(self, input_shape: Shape) -> Layers:
        """Give the head's layers for features `(batch, height, width, channels)`.

        Raises:
            ValueError: features that are no images of known size.
        """
        height, width, channels = image_sides(self, input_shape)
        return self._in_order(Parts(self, self.kernel_initializer), (height, width), channels)

    def _in_order(self, make: Parts, sides: tuple[int, int], channels: int) -> Layers:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _at_most_two(sides: tuple[int, int]) -> tuple[int, int]:
    return min(sides[0], 2), min(sides[1], 2)


@public
class DGLConvHead(_DGLHead):
    """Twice 3x3 convolution, BN, ReLU; average pool to 2x2, BN, dense layer: the paper's `CNN`.

    Parameters: `18c² + 6c + 4c·units + units` for c channels.

    Args:
        units: int > 0. Numbers in a prediction.
        kernel_initializer: `keras.initializers.Initializer` of the kernels, or its name. Defaults
            to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `units` is below 1, or another word for `data_format`; at build, features
            that are no `(batch, height, width, channels)` of known size.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import DGLConvHead
        >>> DGLConvHead(units=10)(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Belilovsky et al., "Decoupled Greedy Learning of CNNs", 2020, section 4.1.
    """

    def __init__(
        self,
        units: int,
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer, data_format, **kwargs)

    def _in_order(self, make: Parts, sides: tuple[int, int], channels: int) -> Layers:
        convolutions = [layer for _ in range(2) for layer in make.conv(channels, 3)]
        pool = [make.average(sides, _at_most_two(sides)), make.norm(), make.flat()]
        return [*convolutions, *pool, make.dense(self.units)]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return super().get_config()


@public
class DGLMLPHead(_DGLHead):
    """Average pool to a quarter of each side, then to 2x2; hidden dense layers; a dense layer.

    The paper's `MLP`: every hidden layer has 4c units for c channels, BN and ReLU. A quarter is
    rounded up; where it is one pixel it stays one, as in the published code. With two hidden
    layers it ends the paper's layer-wise networks.

    Args:
        units: int > 0. Numbers in a prediction.
        hidden_layers: int ≥ 0. Number of hidden dense layers. Defaults to `3`.
        kernel_initializer: `keras.initializers.Initializer` of the kernels, or its name. Defaults
            to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        TypeError: `hidden_layers` is no integer.
        ValueError: `units` is below 1, `hidden_layers` below 0, or another word for
            `data_format`; at build, features that are no `(batch, height, width, channels)` of
            known size.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import DGLMLPHead
        >>> DGLMLPHead(units=10)(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Belilovsky et al., "Decoupled Greedy Learning of CNNs", 2020, section 4.1.
    """

    num_convolutions = 0

    def __init__(
        self,
        units: int,
        hidden_layers: int = 3,
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer, data_format, **kwargs)
        check_integer("hidden_layers", hidden_layers, 0)
        self.hidden_layers = int(hidden_layers)

    def _in_order(self, make: Parts, sides: tuple[int, int], channels: int) -> Layers:
        quarter = (-(-sides[0] // 4), -(-sides[1] // 4))
        row = [make.average(sides, quarter)]
        for _ in range(self.num_convolutions):
            row += make.conv(channels, 1)
        rows, columns = _at_most_two(quarter)
        row += [make.average(quarter, (rows, columns)), make.flat()]
        for _ in range(self.hidden_layers):
            row += [make.dense(rows * columns * channels), make.vector_norm(), make.relu()]
        return [*row, make.dense(self.units)]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {**super().get_config(), "hidden_layers": self.hidden_layers}


@public
class DGLMLPSRHead(DGLMLPHead):
    """`DGLMLPHead` with three 1x1 convolutions, each with BN and ReLU, between the two pools.

    The paper's `MLP-SR`, 'spatially reduced': what it costs beside the stage is small.

    Args:
        units: int > 0. Numbers in a prediction.
        hidden_layers: int ≥ 0. Number of hidden dense layers. Defaults to `3`.
        kernel_initializer: `keras.initializers.Initializer` of the kernels, or its name. Defaults
            to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        TypeError: `hidden_layers` is no integer.
        ValueError: as for `DGLMLPHead`.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import DGLMLPSRHead
        >>> DGLMLPSRHead(units=10)(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Belilovsky et al., "Decoupled Greedy Learning of CNNs", 2020, section 4.1.
    """

    num_convolutions = 3
