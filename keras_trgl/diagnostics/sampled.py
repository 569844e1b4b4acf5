"""The rows that a diagnostic looks at: drawn by a seed, the same share of every class."""

import dataclasses
from typing import Any

import numpy as np

from keras_trgl.checks import check_integer
from keras_trgl.datasets.image_data import stratified
from keras_trgl.network.door import the_one

WAY_OUT = "Count classes from 0, as in training."


@dataclasses.dataclass(frozen=True)
class Sample:
    """Rows of data.

    Attributes:
        x: array, `(examples, …)`.
        labels: int array, `(examples,)`, or `None` where there are none.
        of: int. Rows that there were.
        seed: int. What they were drawn by.
    """

    x: Any
    labels: Any
    of: int
    seed: int

    @property
    def text(self) -> str:
        """Which rows, in words."""
        count = len(self.x)
        if count == self.of:
            return f"all {count} rows"
        share = ", the same share of every class" if self.labels is not None else ""
        return f"{count} of {self.of} rows, drawn by seed {self.seed}{share}"

    @property
    def num_classes(self) -> int:
        """Classes among the labels."""
        return len(np.unique(self.labels))

    def first(self, rows: int) -> "Sample":
        """Give the first rows: every beginning has the same share of every class."""
        labels = None if self.labels is None else self.labels[:rows]
        return dataclasses.replace(self, x=self.x[:rows], labels=labels)


def draw(data: Any, size: int, seed: int, needs_labels: bool) -> Sample:
    """Draw rows of data.

    Args:
        data: array `(examples, …)`, or a tuple `(x, y)` of arrays.
        size: int ≥ 1. Rows to draw at most.
        seed: int ≥ 0.
        needs_labels: bool. Whether labels must be there.

    Raises:
        TypeError: labels that are no whole numbers.
        ValueError: there are no labels, no rows, or not as many of both; fewer rows than classes.
    """
    check_integer("sample", size, 1)
    check_integer("seed", seed, 0)
    x, y = data if isinstance(data, (tuple, list)) and len(data) == 2 else (data, None)
    x = np.asarray(the_one(x))
    if not x.ndim or not len(x) or x.dtype == object:
        raise ValueError(
            "`data` must be an array of examples, or a tuple (x, y) of arrays. Received: "
            f"{type(data).__name__}. `ImageData.arrays('test')` gives one."
        )
    if y is None:
        if needs_labels:
            raise ValueError(
                "Labels are needed here. Received: data without. Give a tuple (x, y) of arrays."
            )
        labels = None
    else:
        labels = class_labels(np.asarray(the_one(y)))
        if len(labels) != len(x):
            raise ValueError(
                "`data` must hold as many labels as examples. Received: "
                f"{len(x)} examples and {len(labels)} labels."
            )
    kept = stratified_order(labels, len(x), seed)[:size]
    found = Sample(x[kept], None if labels is None else labels[kept], len(x), seed)
    classes = 0 if labels is None else len(np.unique(labels))
    if needs_labels and len(kept) < 2 * classes:
        raise ValueError(
            f"A sample must have at least twice as many rows as classes, of which there are "
            f"{classes}. Received: {len(kept)} rows. Take a larger `sample`, or more data."
        )
    return found


def class_labels(y: Any) -> Any:
    """Give class indices from indices or one-hot rows.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: they have other axes, or are below 0.
    """
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf":
        if not (((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()):
            raise ValueError(
                "Labels of several columns must be one-hot. Received: rows without a single 1. "
                f"{WAY_OUT}"
            )
        return y.argmax(1)
    if y.ndim not in (1, 2):
        raise ValueError(
            f"Labels must be `(examples,)` or one-hot. Received: shape {y.shape}. {WAY_OUT}"
        )
    y = y.reshape(-1)
    whole = y.dtype.kind in "biu" or (y.dtype.kind == "f" and np.array_equal(y, np.round(y)))
    if not whole:
        raise TypeError(
            "Labels must be whole numbers, those of classes. Received: labels of type "
            f"{y.dtype}. {WAY_OUT}"
        )
    if len(y) and y.min() < 0:
        raise ValueError(f"Labels must be at least 0. Received: {int(y.min())}. {WAY_OUT}")
    return y.astype(int)


def stratified_order(labels: Any, count: int, seed: int) -> Any:
    """Give an order of rows of which every beginning has the same share of every class.

    Args:
        labels: int array, `(examples,)`, or `None` for an order that is only mixed.
        count: int. Rows.
        seed: int ≥ 0.
    """
    mixed = np.random.default_rng(seed).permutation(count)
    if labels is None:
        return mixed
    places = np.empty(count)
    for label in np.unique(labels):
        own = mixed[labels[mixed] == label]
        # Rows of a class stand evenly over [0, 1); rare classes are not left to the end.
        places[own] = (np.arange(len(own)) + 0.5) / len(own)
    return mixed[np.argsort(places[mixed], kind="stable")]


def held_out(labels: Any, fraction: float, seed: int) -> tuple[Any, Any]:
    """Give the places of training rows and of held-out rows, which hold every share of a class.

    Every class keeps a training row at least; a class of two rows or more is held out too.

    Args:
        labels: int array, `(examples,)`.
        fraction: float in (0, 1). Share that is held out.
        seed: int ≥ 0.

    Raises:
        ValueError: `fraction` is outside (0, 1), or there is only one class.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            f"`held_out` must lie between 0 and 1. Received: held_out={fraction}. 0.3 is a start."
        )
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            "A probe tells classes apart, so there must be two at least. Received: labels of "
            f"class {', '.join(map(str, classes))} alone."
        )
    out = stratified(labels, fraction, seed, least=1)
    return np.flatnonzero(~out), np.flatnonzero(out)
