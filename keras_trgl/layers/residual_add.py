"""`ResidualAdd`, the merge that marks the residual in a functional model."""

from typing import Any

from keras import ops

from keras_trgl.layers.masks import mask_of, mask_of_sum, with_mask
from keras_trgl.layers.residual_unit import ResidualUnit
from keras_trgl.registration import public
from keras_trgl.types import Shape, Tensor


@public
class ResidualAdd(ResidualUnit):
    """The sum of a shortcut and a residual in a functional model; marks which is which.

    Called on `[shortcut, residual]`, two tensors of one shape. `GreedyModel.from_model` reads
    the energy of the second.

    Example:
        >>> import keras
        >>> from keras_trgl.layers import ResidualAdd
        >>> x = keras.Input((8, 8, 4))
        >>> r = keras.layers.Conv2D(4, 3, padding="same")(x)
        >>> ResidualAdd()([x, r]).shape
        (None, 8, 8, 4)
    """

    def build(self, input_shape: Any) -> None:
        """Check that two inputs of one shape came."""
        if len(input_shape) != 2 or tuple(input_shape[0])[1:] != tuple(input_shape[1])[1:]:
            raise ValueError(
                f"{self.name} adds a shortcut and a residual of one shape. Received: input "
                f"shapes {list(input_shape)}. Call it on `[shortcut, residual]`."
            )

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Add the two tensors of `inputs`, `[shortcut, residual]`."""
        shortcut, residual = inputs
        if self._recording:
            self._keep(residual, None)
        mask = mask_of_sum(mask_of(shortcut), mask_of(residual))
        return with_mask(ops.add(shortcut, residual), mask)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Give the shortcut's shape."""
        return tuple(input_shape[0])
