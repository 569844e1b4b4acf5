"""The door: in what form data reach the network, the same for every call that takes data.

`fit`, `evaluate`, `predict`, `predict_exits`, truncated models and exports read types, names and
shapes here, so that they give the same numbers.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.layers.inner import data_format_of, inner_layers
from keras_trgl.network.part import Part
from keras_trgl.network.several_inputs import inputs_of
from keras_trgl.types import Shape, Tensor

KEEPING = (
    keras.layers.CategoryEncoding,
    keras.layers.Embedding,
    keras.layers.HashedCrossing,
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
)
"""Layers that take whole numbers, which a cast to a float type would round."""

TEXTS = (keras.layers.StringLookup, keras.layers.TextVectorization)
"""Layers that take text."""

PASSED = (keras.layers.InputLayer, keras.layers.Identity, keras.layers.Flatten)
"""Layers that hand on what they get."""


def input_type(blocks: Sequence[Any]) -> str | None:
    """Give the type of data that blocks in a row take.

    Args:
        blocks: the blocks of the first stage.

    Returns:
        The declared type of a functional model; `"int64"` or `"string"` where a layer that takes
        whole numbers or text comes first; `None` for numbers of any float type.
    """
    for block in blocks:
        if isinstance(block, keras.Sequential):
            return input_type(block.layers)
        declared = _declared(block)
        if declared is not None:
            return str(keras.backend.standardize_dtype(declared.dtype))
        if isinstance(block, PASSED):
            continue
        inside = [block, *inner_layers(block)]
        if any(isinstance(layer, TEXTS) for layer in inside):
            return "string"
        keeps = any(isinstance(layer, KEEPING) for layer in inside)
        return "int64" if keeps or "int" in str(block.compute_dtype) else None
    return None


def _declared(block: Any) -> Any:
    """Give the input of a functional model or of a part of one; a sequential one is its layers."""
    if isinstance(block, Part):
        return block.declared_input
    if not isinstance(block, keras.Model) or isinstance(block, keras.Sequential):
        return None
    inputs = getattr(block, "inputs", None)
    return inputs[0] if inputs else None


def input_of(blocks: Sequence[Any], shape: Shape, name: str | None = None) -> Any:
    """Give the symbolic input of a functional model that begins with these blocks.

    Args:
        blocks: the blocks of the first stage.
        shape: shape of the data, batch axis included.
        name: str or `None`. The input's name; `None` takes a declared one. Defaults to `None`.
    """
    several = inputs_of(blocks[0])
    if several is not None:
        return several.symbolic()
    declared = _declared(blocks[0])
    if name is None and declared is not None:
        name = declared.name
    return keras.Input(shape[1:], dtype=input_type(blocks), name=name)


def the_one(x: Any) -> Any:
    """Give the data out of a list, tuple or dict of one; others pass.

    Raises:
        ValueError: there are several, or none.
    """
    if not isinstance(x, (list, tuple, dict)):
        return x
    parts = list(x.values()) if isinstance(x, dict) else list(x)
    if isinstance(x, list) and parts and not hasattr(parts[0], "shape"):
        return x
    if len(parts) != 1:
        raise ValueError(
            f"A network takes one input. Received: {type(x).__name__} of {len(parts)}. Put them "
            "together before, as by `keras.ops.concatenate`."
        )
    return the_one(parts[0])


def plain(x: Any) -> Any:
    """Give the array out of a list, tuple or dict of one, and a dataset of such arrays."""
    spec = getattr(x, "element_spec", None)
    if spec is not None and hasattr(x, "map"):
        first = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(first, dict):
            return x
        return x.map(lambda *batch: (the_one(batch[0]), *batch[1:]))
    leaves = keras.tree.flatten(x)
    holds_one = len(leaves) == 1 and hasattr(leaves[0], "__array__")
    return leaves[0] if holds_one else x


def check_rows(x: Any) -> None:
    """Raise where data in arrays have no rows at all.

    Raises:
        ValueError: they have none.
    """
    leaves = keras.tree.flatten(x)
    shapes = [tuple(one.shape) for one in leaves if isinstance(getattr(one, "shape", None), tuple)]
    if shapes and all(shape[:1] == (0,) for shape in shapes):
        raise ValueError(
            "Predictions are made of one row at least. Received: data without any. Leave empty "
            "parts of the data out."
        )


class Door:
    """What a network's data are, settled by its first block or by the first data.

    Args:
        blocks: the blocks of the first stage.

    Attributes:
        name: str or `None`. Name of the input, of the first block or of the first dict that came.
    """

    def __init__(self, blocks: Sequence[Any]) -> None:
        self._blocks = blocks
        self.several = inputs_of(blocks[0])
        declared = _declared(blocks[0])
        named = declared is not None and self.several is None
        self.name: str | None = declared.name if named else None
        self._told: set[str] = set()

    @property
    def keeps(self) -> bool:
        """Whether whole numbers or text stay as they are."""
        return input_type(self._blocks) is not None and _declared(self._blocks[0]) is None

    def note(self, x: Any) -> None:
        """Learn the name of the input from data, or from a dataset's structure."""
        if self.several is not None:
            return
        spec = getattr(x, "element_spec", x)
        if isinstance(spec, tuple) and spec:
            spec = spec[0]
        if self.name is None and isinstance(spec, dict) and len(spec) == 1:
            self.name = str(next(iter(spec)))

    def zeros(self, shape: Any) -> Any:
        """Give one example of nothing, of the type that the network takes.

        Args:
            shape: shape of the data, batch axis included.
        """
        if self.several is not None:
            return self.several.zeros()
        sides = (1, *[side or 1 for side in shape[1:]])
        kind = input_type(self._blocks)
        if kind == "string":
            return keras.ops.convert_to_tensor(np.full(sides, ""))
        return keras.ops.zeros(sides, kind)

    def build_shape(self, shape: Any) -> Any:
        """Give the shape that a network is built for, from that of the data in any form.

        Of several inputs these are the declared ones, in the model's structure.

        Raises:
            ValueError: images without channels.
        """
        if self.several is not None:
            return self.several.shapes
        if isinstance(shape, dict):
            shape = next(iter(shape.values()))
        if shape and isinstance(shape[0], (list, tuple)):
            shape = shape[0]
        shape = (None, *tuple(shape)[1:])
        rank = self._convolved()
        if rank is not None and len(shape) == rank + 1:
            raise ValueError(
                f"Data must have {rank} axes between batch and channels, and channels. Received: "
                f"{shape}. Give images their channels: `x[..., None]`."
            )
        return (None, 1) if len(shape) == 1 and not self.keeps else shape

    def _convolved(self) -> int | None:
        """Give over how many axes the very first layer convolves, if it does."""
        for block in self._blocks[:1]:
            for layer in (block, *inner_layers(block)):
                if not inner_layers(layer) and not isinstance(layer, PASSED[:2]):
                    rank = getattr(layer, "rank", None)
                    return rank if isinstance(rank, int) else None
        return None

    def take(self, x: Any, shape: Any) -> Any:
        """Give the data as the first block takes them.

        Args:
            x: tensor `(batch, …)`, or a list, tuple or dict with one; of several inputs with all.
            shape: shape that the network was built for, or `None`.

        Raises:
            ValueError: several inputs, sparse or ragged data, or another rank or number of
                channels than the network was built for.
        """
        if self.several is not None:
            return self.several.take(x)
        self.note(x)
        x = the_one(x)
        if type(x).__name__ in ("RaggedTensor", "SparseTensor", "IndexedSlices"):
            raise ValueError(
                f"Data must be dense. Received: a {type(x).__name__}. Use `x.to_tensor()` of a "
                "ragged tensor, `tf.sparse.to_dense(x)` of a sparse one."
            )
        kind = keras.backend.standardize_dtype(getattr(x, "dtype", keras.config.floatx()))
        wanted = input_type(self._blocks)
        if not self.keeps and kind != wanted:
            if kind == "string":
                raise ValueError(
                    "Data must be numbers, as no layer before the first block reads text. "
                    "Received: text. Begin with `keras.layers.TextVectorization` or "
                    "`keras.layers.StringLookup`."
                )
            # Other floats stay: every layer casts them to its own type.
            if wanted is not None or "float" not in kind:
                x = keras.ops.cast(x, wanted or keras.config.floatx())
        return self._fitted(x, shape)

    def check(self, x: Any, shape: Shape | None) -> None:
        """Raise where data tell that they are not what the network was built for.

        Before a step is traced: one that was traced for several shapes has forgotten the sizes
        in which they differ, and TensorFlow takes other channels for those of a grouped
        convolution.

        Args:
            x: data in any form; arrays, tensors and `tf.data` pipelines tell their shape.
            shape: shape that the network was built for, or `None`.

        Raises:
            ValueError: another rank or number of channels.
        """
        spec = getattr(x, "element_spec", None)
        if spec is None:
            one = plain(x)
        else:
            one = spec[0] if isinstance(spec, tuple) and spec else spec
            if isinstance(one, dict) and len(one) == 1:
                (one,) = one.values()
        given: Any = getattr(one, "shape", None)
        ranked = isinstance(given, tuple) or getattr(given, "rank", None) is not None
        if self.several is not None or shape is None or not ranked:
            return
        given = tuple(given)
        # Text, and a pipeline without batches, are told by others, in words of their own.
        unbatched = spec is not None and len(given) == len(shape) - 1
        kind = str(getattr(one, "dtype", ""))
        numbers = "int" in kind or "float" in kind or kind == "bool"
        if numbers and not unbatched and not self._lacks_axis(given, shape):
            self._compare(given, shape)

    def _fitted(self, x: Any, shape: Shape | None) -> Tensor:
        given = tuple(getattr(x, "shape", ()) or ())
        if shape is None:
            return keras.ops.expand_dims(x, -1) if len(given) == 1 and not self.keeps else x
        if self._lacks_axis(given, shape):
            return keras.ops.expand_dims(x, -1)
        self._compare(given, shape)
        return x

    def _lacks_axis(self, given: Sequence[Any], shape: Shape) -> bool:
        return len(given) == len(shape) - 1 and shape[-1] == 1 and len(shape) < 4

    def _compare(self, given: Sequence[Any], shape: Shape) -> None:
        if len(given) != len(shape):
            channels = len(given) == len(shape) - 1 > 2
            way_out = " Give images their channels: `x[..., None]`." if channels else ""
            raise ValueError(
                f"Data must have the shape (batch, …) that the network was built for, {shape}. "
                f"Received: {given}.{way_out}"
            )
        differs = [
            axis
            for axis, (side, built) in enumerate(zip(given, shape, strict=True))
            if axis and None not in (side, built) and side != built
        ]
        axis = len(shape) - 1
        if axis > 2 and data_format_of(self._blocks[:1]) == "channels_first":
            axis = 1
        if axis in differs and (len(shape) > 3 or not self.keeps):
            raise ValueError(
                "Data must have as many channels as the network was built for, "
                f"{shape[axis]}. Received: {given}. Give channels axis {axis}, or build "
                "another model."
            )
        if differs and len(shape) > 3 and "size" not in self._told:
            self._told.add("size")
            warnings.warn(
                f"The network was built for images of {tuple(shape[1:])}. Received: {given[1:]}. "
                "It runs, on features of other sizes than it was trained for. Resize the images, "
                "or build with `(None, None, None, channels)` where sizes may differ.",
                stacklevel=2,
            )
