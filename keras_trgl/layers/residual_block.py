"""`ResidualBlock`, a residual unit with its own branch.

Within `with block.recording():`, `block.energy(reduction)` speaks of the latest call. The block
decides how the energy is found:

- closed form: the branch ends in a layer that knows the mean square of its output, as our
  `BatchNormalization` does in training mode;
- recomputed: nothing follows the sum, so the gradient finds the residual again as a difference;
- direct: everything else, evaluation included.
"""

from typing import Any

import keras
from keras import ops

from keras_trgl.checks import check_list
from keras_trgl.layers.chain import (
    as_layers,
    build_chain,
    call_chain,
    chain_output_shape,
    deserialize_chain,
    serialize_chain,
)
from keras_trgl.layers.kernels import add_with_energy
from keras_trgl.layers.masks import keeping_mask, mask_of, mask_of_sum, with_mask
from keras_trgl.layers.residual_unit import ResidualUnit
from keras_trgl.registration import public
from keras_trgl.types import KnowsMeanSquare, Shape, Tensor


@public
class ResidualBlock(ResidualUnit):
    """A residual unit: `activation(shortcut(x) + branch(x))`, with `x = entry(inputs)`.

    The residual r(x) is the branch's output, before the sum and what follows it.

    Args:
        branch: layer or list of layers, applied in a row: r. Must end in the shape that the
            shortcut has.
        shortcut: layer or list of layers. Defaults to `None`, the identity.
        activation: function, a Keras activation, its name, or `None`. Applied after the sum.
            Defaults to `None`.
        entry: layer or list of layers before the unit, outside its energy: a stem, or a change
            of resolution. Defaults to `None`.
        input_shape: tuple of int without the batch axis, or `None`. Lets a model be built
            before it sees data; architectures give it to their first block. Defaults to `None`.
        **kwargs: `name`, `dtype` and the like, as for any Keras layer.

    Raises:
        TypeError: `branch`, `shortcut` or `entry` holds something that is no layer.
        ValueError: at build, when branch and shortcut end in different shapes.

    Example:
        >>> import keras, numpy as np
        >>> from keras_trgl.layers import ResidualBlock
        >>> block = ResidualBlock([keras.layers.Dense(4)], activation="relu")
        >>> block(np.ones((2, 4), "float32")).shape
        TensorShape([2, 4])

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, equation 1.
    """

    def __init__(
        self,
        branch: Any,
        shortcut: Any = None,
        activation: Any = None,
        entry: Any = None,
        input_shape: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.branch = as_layers("branch", branch)
        self.shortcut = as_layers("shortcut", shortcut)
        self.entry = as_layers("entry", entry)
        self.activation = None if activation is None else keras.activations.get(activation)
        if input_shape is not None:
            check_list("input_shape", input_shape, "ints", "The batch axis stays out: (8, 8, 3).")
        self.expected_input_shape = None if input_shape is None else tuple(input_shape)

    def build(self, input_shape: Shape) -> None:
        """Build every layer of the unit for inputs of this shape, batch axis included."""
        shape = build_chain(self.entry, tuple(input_shape))
        added = build_chain(self.branch, shape)
        kept = build_chain(self.shortcut, shape)
        if added[1:] != kept[1:]:
            raise ValueError(
                f"Branch and shortcut of {self.name} must end in the same shape. Received: "
                f"branch {added[1:]}, shortcut {kept[1:]}. Give a `shortcut` that changes the "
                "shape as the branch does, for instance `PadShortcut(channels, stride)`."
            )

    def call(self, inputs: Tensor) -> Tensor:
        """Add the residual to the shortcut.

        Args:
            inputs: tensor of the shape that the block was built for.

        Returns:
            Tensor of the shortcut's shape.
        """
        x = call_chain(self.entry, inputs)
        residual = keeping_mask(lambda x: call_chain(self.branch, x), x)
        shortcut = call_chain(self.shortcut, x)
        mask = mask_of_sum(mask_of(shortcut), mask_of(residual))
        merged = self._merge(shortcut, residual)
        merged = merged if self.activation is None else self.activation(merged)
        return with_mask(merged, mask)

    def _merge(self, shortcut: Tensor, residual: Tensor) -> Tensor:
        if not self._recording:
            return ops.add(shortcut, residual)
        mean_square = self._end.mean_square if self._end is not None else None
        # With something after the sum nobody keeps the sum itself, so the gradient could not find
        # the residual again from it, and the residual is kept.
        if mean_square is None and self.activation is None:
            merged, mean_square = add_with_energy(shortcut, residual)
        else:
            merged = ops.add(shortcut, residual)
        self._keep(residual, mean_square)
        return merged

    @property
    def _end(self) -> KnowsMeanSquare | None:
        last = self.branch[-1] if self.branch else None
        return last if isinstance(last, KnowsMeanSquare) else None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the output's shape; needs nothing built."""
        shape = chain_output_shape(self.entry, tuple(input_shape))
        return chain_output_shape(self.branch, shape)

    def _record(self, on: bool) -> None:
        super()._record(on)
        if self._end is not None:
            self._end.record(on)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration, layers included."""
        activation = self.activation
        return {
            **super().get_config(),
            "branch": serialize_chain(self.branch),
            "shortcut": serialize_chain(self.shortcut),
            "entry": serialize_chain(self.entry),
            "activation": None if activation is None else keras.activations.serialize(activation),
            "input_shape": self.expected_input_shape,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ResidualBlock":
        """Make the block from `get_config`'s result."""
        config = dict(config)
        for part in ("branch", "shortcut", "entry"):
            config[part] = deserialize_chain(config[part])
        return cls(**config)
