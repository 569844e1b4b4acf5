"""Rows of data in arrays, with labels or without, that a trained model is looked at with."""

from typing import Any

import keras
import numpy as np

from keras_trgl.network.door import the_one


def held_rows(data: Any) -> tuple[Any, Any]:
    """Give examples and labels as NumPy arrays.

    Args:
        data: array `(examples, …)`, or a tuple `(x, y)` of arrays.

    Returns:
        Tuple `(x, y)`; `y` is `None` where there are no labels.

    Raises:
        ValueError: data in another form, without rows, or not as many labels as examples.
    """
    is_pair = isinstance(data, (tuple, list)) and len(data) == 2
    x, y = data if is_pair else (data, None)
    came = type(data).__name__
    if isinstance(data, tuple) and len(data) == 3:
        came = "a tuple of 3; weights of examples have no part here"
    elif not is_pair and isinstance(data, (tuple, dict)) and len(data) != 1:
        came = f"{came} of {len(data)}"
    else:
        x = _array(the_one(x))
        if x is not None and x.ndim and len(x):
            y = None if y is None else _array(the_one(y))
            if is_pair and data[1] is not None and (y is None or y.shape[:1] != x.shape[:1]):
                raise ValueError(
                    "`data` must hold as many labels as examples. Received: "
                    f"{len(x)} examples and {'others' if y is None else len(y)} labels."
                )
            return x, y
    raise ValueError(
        "`data` must be an array of examples, or a tuple (x, y) of arrays. Received: "
        f"{came}. `ImageData.arrays('test')` gives one."
    )


def _array(given: Any) -> Any:
    """Give an array of numbers or text, or `None` where it is none: a dataset, a ragged list."""
    # A sequence of batches would pass for rows.
    if isinstance(given, keras.utils.PyDataset):
        return None
    if not hasattr(given, "__array__") and not isinstance(given, (list, tuple)):
        return None
    try:
        found = np.asarray(given)
    except (ValueError, TypeError, RuntimeError):
        return None
    return None if found.dtype == object else found
