"""What every auxiliary head F_k has in common."""

from typing import Any

import keras

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.layers.chain import build_chain
from keras_trgl.layers.masks import hands_on
from keras_trgl.recording import Recorded
from keras_trgl.types import Shape, Tensor

FORMATS = ("channels_last", "channels_first")

POOLS = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}
"""Means over positions, by rank."""


class Head(Recorded, keras.layers.Layer):
    """A small network from features to prediction; its layers are made from the features' shape.

    A single unbuilt head is a recipe: `GreedyModel` makes one copy per stage. A member fills in
    `make_layers`.

    Args:
        units: int > 0. Numbers in a prediction: classes, or 1 for a binary task or a
            regression.
        data_format: `"channels_last"` or `"channels_first"`: where features have their channels.
            `None` takes that of the stage before, in a model, or the one of
            `keras.config.image_data_format()`. Defaults to `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `units` is below 1, or another word for `data_format`.
    """

    def __init__(self, units: int, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_integer("units", units, 1)
        check_choice("data_format", data_format, (None, *FORMATS))
        self.units = int(units)
        self.data_format = data_format
        self._row: list[keras.layers.Layer] = []
        # Masks are the inner layers' to use and to hand on.
        self.supports_masking = True

    def make_layers(self, input_shape: Shape) -> list[keras.layers.Layer]:
        """Give the head's unbuilt layers.

        Args:
            input_shape: tuple, the features' shape, batch axis included: for images
                `(batch, height, width, channels)`.

        Returns:
            List of layers, called in a row; the last one gives `(batch, units)`.
        """
        raise NotImplementedError

    @property
    def layers_in_a_row(self) -> list[keras.layers.Layer]:
        """The head's layers, in order; empty before it is built."""
        return list(self._row)

    @property
    def channel_axis(self) -> int:
        """Axis of the features' channels: 1 or −1."""
        return 1 if self.data_format == "channels_first" else -1

    def mean(self, rank: int) -> list[keras.layers.Layer]:
        """Give the mean over all axes but batch and channels: one layer, or none for vectors.

        Args:
            rank: int, 2 to 5. Number of axes of what it is called on, batch axis included.

        Returns:
            List of layers.
        """
        if rank == 2:
            return []
        # A sequence has its steps before its channels, whatever the format of images.
        form = self.data_format if rank > 3 else "channels_last"
        return [POOLS[rank](data_format=form, dtype=self.dtype_policy)]

    def build(self, input_shape: Shape) -> None:
        """Make and build the layers for features of this shape, batch axis included."""
        shape = tuple(input_shape)
        self.data_format = self.data_format or keras.config.image_data_format()
        self._row = self.make_layers(shape)
        # A layer that the head was given may come built, from a file for one.
        build_chain(self._row, shape)

    def call(self, features: Tensor) -> Tensor:
        """Give the prediction, `(batch, units)`.

        Args:
            features: tensor, the output of the head's stage.

        Returns:
            Tensor, `(batch, units)`, without a final activation.
        """
        for layer in self._row:
            features = layer(features)
        return features

    compute_mask = hands_on

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give `(batch, units)`."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {**super().get_config(), "units": self.units, "data_format": self.data_format}
