"""Batches as structures of arrays: taken apart, described by specs, and served by a dataset."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.datasets.batch_stream import ENDLESS, as_tuples


def split(batch: Any) -> tuple[Any, Any]:
    """Give `x`, and what comes beside it in NumPy arrays."""
    inputs, *rest = batch if isinstance(batch, (tuple, list)) else (batch,)
    return inputs, keras.tree.map_structure(
        lambda one: None if one is None else np.asarray(one), as_tuples(tuple(rest))
    )


def rows_of(stores: Any, rows: slice, make: Any) -> Any:
    """Give rows of every store of a structure, made into arrays or tensors."""
    return keras.tree.map_structure(lambda store: make(store[rows]), stores)


def leaves_of(structure: Any) -> list[Any]:
    """Give the arrays of a batch, in order."""
    return [leaf for leaf in tf.nest.flatten(structure) if leaf is not None]


def filled(structure: Any, leaves: Iterable[Any]) -> Any:
    """Put arrays in the places of a structure that `leaves_of` takes them from."""
    left = iter(leaves)
    return tf.nest.map_structure(lambda one: None if one is None else next(left), structure)


def open_spec(one: Any) -> tf.TensorSpec:
    """Give the spec of a tensor, or of another spec, with an open batch axis."""
    return tf.TensorSpec([None, *one.shape[1:]] if one.shape.rank else one.shape, one.dtype)


def length(inputs: Any) -> int:
    """Give the number of examples."""
    return int(leaves_of(inputs)[0].shape[0])


def bytes_of(rest: Any) -> int:
    """Give the bytes of all arrays of a batch."""
    return sum(int(leaf.nbytes) for leaf in leaves_of(rest))


def spec_of(structure: Any) -> Any:
    """Give shapes, without the batch axis, and types of a batch."""

    def spec(leaf: Any) -> Any:
        if leaf is None:
            return None
        leaf = np.asarray(leaf)
        return tf.TensorSpec([None, *leaf.shape[1:]] if leaf.ndim else [], leaf.dtype)

    return tf.nest.map_structure(spec, structure)


def merged(specs: list[Any]) -> Any:
    """Give the spec that all batches fit, where they differ along other axes too."""
    return tf.nest.map_structure(
        lambda first, *others: (
            None if first is None else tf.TensorSpec(_common_shape([first, *others]), first.dtype)
        ),
        *specs,
    )


def _common_shape(specs: list[Any]) -> Any:
    shape = specs[0].shape
    for one in specs[1:]:
        shape = shape.most_specific_compatible_shape(one.shape)
    return shape


def served_batches(read: Callable[[int], Any], spec: Any, step: int) -> tf.data.Dataset:
    """Give the batches `read(step)`, `read(step + 1)`, …, which fit `spec`."""
    specs = leaves_of(spec)

    def serve(step: Any) -> Any:
        types = [one.dtype for one in specs]
        values = tf.numpy_function(lambda at: leaves_of(read(int(at))), [step], types)
        for value, one in zip(values, specs, strict=True):
            value.set_shape(one.shape)
        batch = filled(spec, values)
        # A tuple alone would be read as (x, y).
        return batch[0] if len(batch) == 1 and not isinstance(batch[0], tuple) else batch

    return tf.data.Dataset.range(step, ENDLESS).map(serve)
