"""What a model shows of its network: its parts, its shapes, its predictions."""

from typing import Any

import keras

from keras_trgl.html_table import InNotebooks, Table
from keras_trgl.network.placement import Placement
from keras_trgl.network.staged_network import StagedNetwork
from keras_trgl.network.summary import network_table
from keras_trgl.types import Shape, Tensor


class ShowsNetwork(keras.Model, InNotebooks):
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
        return self._network.shown_shape("input_shape")

    @property
    def output_shape(self) -> Shape:
        """Shape of the last prediction, batch axis included."""
        return self._network.output_shape(self._network.shown_shape("output_shape"))

    @property
    def inputs(self) -> list[Tensor]:
        """Symbolic data, as a rule a list of one; with `outputs` they make a plain model."""
        self._network.shown_shape("inputs")
        return list(self._network.truncated(None, self.name).inputs)

    @property
    def outputs(self) -> list[Tensor]:
        """Symbolic prediction of the last depth, a list of one."""
        self._network.shown_shape("outputs")
        return list(self._network.truncated(None, self.name).outputs)

    @property
    def input(self) -> Tensor:
        """Symbolic data, in the structure of the inputs where there are several."""
        inputs = self.inputs
        return inputs[0] if len(inputs) == 1 else self._network.truncated(None, self.name).input

    @property
    def output(self) -> Tensor:
        """Symbolic prediction of the last depth."""
        return self.outputs[0]

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """Blocks in order, then heads and a method's layers: what a plain model would have."""
        network = getattr(self, "_network", None)
        return [] if network is None else network.shown_layers

    def get_layer(self, name: str | None = None, index: int | None = None) -> keras.layers.Layer:
        """Find a block, a head, a method's layer, a stage, or a layer of a model among the blocks.

        Args:
            name: str. Name of it. Defaults to `None`.
            index: int. Position in `layers`. Defaults to `None`.

        Returns:
            `keras.layers.Layer`.

        Raises:
            ValueError: there is none, or neither or both of the two came.
        """
        found = None
        if index is None and name is not None:
            found = next((one for one in self._network.every_layer if one.name == name), None)
        return super().get_layer(name, index) if found is None else found

    def _as_table(self) -> Table | None:
        # A subclass may be shown before its `__init__` is done.
        network = getattr(self, "_network", None)
        return None if network is None else network_table(self.name, network)

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
