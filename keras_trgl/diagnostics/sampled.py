"""The rows that a diagnostic looks at: drawn by a seed, the same share of every class."""

import contextlib
import dataclasses
import numbers
from typing import Any

import numpy as np

from keras_trgl.checks import check_integer
from keras_trgl.datasets.image_data import stratified
from keras_trgl.network.held_rows import held_rows
from keras_trgl.scores import class_labels


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
        ValueError: there are no labels, no rows, or not as many of both.
    """
    check_integer("sample", size, 1)
    check_integer("seed", seed, 0)
    x, y = held_rows(data)
    labels = None
    if needs_labels:
        if y is None:
            raise ValueError(
                "Labels are needed here. Received: data without. Give a tuple (x, y) of arrays."
            )
        labels = class_labels(y)
    elif y is not None:
        # Labels only share rows out; those of a regression have no part here.
        with contextlib.suppress(TypeError, ValueError):
            labels = class_labels(y)
    kept = stratified_order(labels, len(x), seed)[:size]
    return Sample(x[kept], None if labels is None else labels[kept], len(x), seed)


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
        ValueError: `fraction` is no number or outside (0, 1), there is only one class, or there
            are fewer rows than two of each class.
    """
    if not isinstance(fraction, numbers.Real) or not 0 < fraction < 1:
        raise ValueError(
            f"`held_out` must lie between 0 and 1. Received: held_out={fraction!r}. 0.3 is a start."
        )
    classes = np.unique(labels)
    if len(labels) < 2 * len(classes):
        raise ValueError(
            "A sample must have at least twice as many rows as classes, of which there are "
            f"{len(classes)}. Received: {len(labels)} rows. Take a larger `sample`, or more data."
        )
    if len(classes) < 2:
        raise ValueError(
            "A probe tells classes apart, so there must be two at least. Received: labels of "
            f"class {', '.join(map(str, classes))} alone."
        )
    out = stratified(labels, fraction, seed, least=1)
    return np.flatnonzero(~out), np.flatnonzero(out)
