"""What every auxiliary head F_k has in common."""

from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.layers.chain import build_chain
from keras_trgl.recording import Recorded
from keras_trgl.types import Shape, Tensor


class Head(Recorded, keras.layers.Layer):
    """A small network from features to prediction; its layers are made from the features' shape.

    A single unbuilt head is a recipe: `GreedyModel` makes one copy per stage. A member fills in
    `make_layers`.

    Args:
        units: int > 0. Numbers in a prediction: classes, or 1 for a binary task or a
            regression.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `units` is below 1.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_integer("units", units, 1)
        self.units = int(units)
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

    def build(self, input_shape: Shape) -> None:
        """Make and build the layers for features of this shape, batch axis included."""
        shape = tuple(input_shape)
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

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Give none: a prediction has no positions."""
        return None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give `(batch, units)`."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {**super().get_config(), "units": self.units}
