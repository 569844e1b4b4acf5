"""What a model shows of its network: its parts, its shapes, its predictions."""

from typing import Any

import keras

from keras_trgl.network.placement import Placement
from keras_trgl.network.staged_network import StagedNetwork
from keras_trgl.types import Shape, Tensor


class ShowsNetwork(keras.Model):
    """A Keras model whose layers and predictions are those of a `StagedNetwork`.

    A member sets `_network`.
    """

    _network: StagedNetwork

    @property
    def seed(self) -> int:
        """Seed of initial weights and of the order of the data, as given or drawn."""
        return self._network.seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._network.seed = value

    @property
    def num_stages(self) -> int:
        """Number of stages, K."""
        return self._network.num_stages

    @property
    def input_shape(self) -> Shape:
        """Shape of the data, batch axis included."""
        return self._network.built_shape()

    @property
    def output_shape(self) -> Shape:
        """Shape of the last prediction, batch axis included."""
        return self._network.output_shape(self._network.built_shape())

    @property
    def heads(self) -> list[keras.layers.Layer]:
        """F_1 … F_K; once built those in use, which a method may have put around the given ones."""
        return self._network.heads

    @property
    def placement(self) -> Placement:
        """Where the stages live."""
        return self._network.placement

    def call(self, inputs: Tensor, training: bool | None = None, exits: Any = None) -> Any:
        """Predict at one depth or at all; adds no energy.

        Args:
            inputs: tensor, `(batch, …)`.
            training: bool. Whether layers run in training mode. Defaults to the caller's.
            exits: `None`: the last depth; `"all"`: every depth, a list; int k: depth k. Defaults
                to `None`.

        Returns:
            Tensor `(batch, units)`, or the list of K of them.
        """
        return self._network.call(inputs, exits)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the last prediction's shape."""
        return self._network.output_shape(input_shape)

    def truncate(self, depth: int) -> keras.Model:
        """Give F_k∘G_k as a plain functional model that shares the weights.

        Args:
            depth: int, k = 1…K.

        Returns:
            `keras.Model` without energy loss, which loads as a functional model.

        Raises:
            ValueError: `depth` is not 1…K, or the model is not built.
        """
        return self._network.truncated(depth, self.name)
