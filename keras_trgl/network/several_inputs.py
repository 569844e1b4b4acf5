"""Data of several inputs: brought into the structure, shapes and types that a model declares."""

from typing import Any

import keras
import numpy as np

from keras_trgl.layers.chain import passes_several
from keras_trgl.types import Tensor


class SeveralInputs:
    """The inputs of a model that has several.

    Args:
        structure: list, tuple, dict or nest of them of what tells `shape`, `dtype` and `name`.
    """

    def __init__(self, structure: Any) -> None:
        self.structure = structure
        self._declared = keras.tree.flatten(structure)

    @property
    def names(self) -> list[str]:
        """Names of the inputs, in order."""
        return [one.name for one in self._declared]

    @property
    def by_name(self) -> dict[str, Any]:
        """The inputs by the names that data give them in a dict: its keys, or their own names."""
        keys = self.names
        if isinstance(self.structure, dict) and len(self.structure) == len(keys):
            keys = sorted(self.structure)
        return dict(zip(keys, self._declared, strict=True))

    @property
    def shapes(self) -> Any:
        """Their shapes, batch axis included, in the structure."""
        return keras.tree.map_structure(lambda one: tuple(one.shape), self.structure)

    def symbolic(self) -> Any:
        """Give `keras.Input`s of the same names, shapes and types, in the structure."""
        return keras.tree.map_structure(
            lambda one: keras.Input(
                one.shape[1:], dtype=one.dtype, name=one.name.replace("/", "_")
            ),
            self.structure,
        )

    def zeros(self) -> Any:
        """Give one example of nothing."""

        def blank(one: Any) -> Tensor:
            sides = (1, *[side or 1 for side in one.shape[1:]])
            if one.dtype == "string":
                return keras.ops.convert_to_tensor(np.full(sides, ""))
            return keras.ops.zeros(sides, one.dtype)

        return keras.tree.map_structure(blank, self.structure)

    def take(self, x: Any) -> Any:
        """Give data in the structure and types of the inputs, as Keras's own models take them.

        Args:
            x: structure of tensors, or dict of them by the inputs' names.

        Raises:
            ValueError: an input is not there, or has another rank or size.
        """
        leaves = [
            self._fitted(one, of) for one, of in zip(self._matched(x), self._declared, strict=True)
        ]
        return keras.tree.pack_sequence_as(self.structure, leaves)

    def _matched(self, x: Any) -> list[Any]:
        """Give one array per input, in order."""
        keys = list(self.by_name)
        by_name = isinstance(x, dict)
        missing = [key for key in keys if by_name and key not in x]
        leaves = [x[key] for key in keys] if by_name and not missing else keras.tree.flatten(x)
        if missing or len(leaves) != len(keys):
            came = f"{type(x).__name__} of {len(keras.tree.flatten(x))}"
            came += f", without {', '.join(missing)}" if missing else ""
            raise ValueError(
                f"The model takes {len(keys)} inputs: {', '.join(map(str, keys))}. Received: "
                f"{came}. Give a dict by these names, or a list in this order."
            )
        return leaves

    def _fitted(self, x: Any, of: Any) -> Tensor:
        shape = tuple(getattr(x, "shape", ()))
        if len(shape) == len(of.shape) - 1 and of.shape[-1] == 1:
            x, shape = keras.ops.expand_dims(x, -1), (*shape, 1)
        differs = len(shape) != len(of.shape) or any(
            None not in (side, built) and side != built
            for side, built in zip(shape[1:], of.shape[1:], strict=True)
        )
        if differs:
            raise ValueError(
                f"Input {of.name!r} must have the shape that the model declares, {of.shape}. "
                f"Received: {shape}. Give one array for every input."
            )
        kind = getattr(x, "dtype", None)
        if kind is not None and keras.backend.standardize_dtype(kind) == of.dtype:
            return x
        return keras.ops.convert_to_tensor(x, of.dtype)


def inputs_of(block: Any) -> SeveralInputs | None:
    """Give the inputs of a network's first block, or `None` where it takes one.

    Args:
        block: layer. A part of a model that was cut, or a functional model.
    """
    structure: Any = None
    if passes_several(block):
        structure = block.given
    elif isinstance(block, keras.Model) and len(getattr(block, "inputs", None) or ()) > 1:
        structure = block.input
    return SeveralInputs(structure) if len(keras.tree.flatten(structure)) > 1 else None
