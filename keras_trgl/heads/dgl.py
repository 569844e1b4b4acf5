"""The auxiliary nets of decoupled greedy learning."""

from typing import Any

import keras

from keras_trgl.checks import check_choice
from keras_trgl.heads.head import Head
from keras_trgl.heads.parts import Parts, image_sides
from keras_trgl.registration import public
from keras_trgl.types import Shape

KINDS = ("mlp-sr", "mlp", "cnn")


@public
class DGLHead(Head):
    """The auxiliary net of decoupled greedy learning, one of three kinds.

    - `"mlp-sr"`: average pool to a quarter of each side, rounded up; three times 1x1 convolution,
      batch normalization, ReLU; average pool to 2x2; three times a dense layer of 4c units,
      batch normalization, ReLU; dense layer.
    - `"mlp"`: the same without the convolutions.
    - `"cnn"`: twice 3x3 convolution, batch normalization, ReLU; average pool to 2x2, batch
      normalization, dense layer.

    Args:
        units: int > 0. Numbers in a prediction.
        kind: `"mlp-sr"`, `"mlp"` or `"cnn"`. Defaults to `"mlp-sr"`.
        kernel_initializer: `keras.initializers.Initializer` of the kernels, or its name. Defaults
            to `"glorot_uniform"`.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes that of the stage
            before, in a model, or Keras's. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `units` is below 1; another word for `kind` or `data_format`; at build,
            features that are no images of known size.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.heads import DGLHead
        >>> DGLHead(units=10)(np.ones((2, 8, 8, 4), "float32")).shape
        TensorShape([2, 10])

    Reference:
        Belilovsky et al., "Decoupled Greedy Learning of CNNs", 2020, section 4.1, and its code.
    """

    def __init__(
        self,
        units: int,
        kind: str = "mlp-sr",
        kernel_initializer: Any = "glorot_uniform",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, data_format, **kwargs)
        check_choice("kind", kind, KINDS)
        self.kind = kind
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
        height, width, channels = image_sides(self, input_shape)
        make, sides = Parts(self, self.kernel_initializer), (height, width)
        if self.kind == "cnn":
            row = [layer for _ in range(2) for layer in make.conv(channels, 3)]
            pool = [*make.average(sides, (2, 2)), make.norm(), make.flat()]
            return [*row, *pool, make.dense(self.units)]
        quarter = (-(-height // 4), -(-width // 4))
        row = make.average(sides, quarter)
        for _ in range(3 if self.kind == "mlp-sr" else 0):
            row += make.conv(channels, 1)
        row += [*make.average(quarter, (2, 2)), make.flat()]
        for _ in range(3):
            row += [make.dense(4 * channels), make.vector_norm(), make.relu()]
        return [*row, make.dense(self.units)]

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            **super().get_config(),
            "kind": self.kind,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
