"""The depth to ship, and when a row may leave early, from held-out data and measured time."""

import dataclasses
import time
from typing import Any

import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_choice, check_integer, needed
from keras_trgl.export.exported_parts import check_model, live_parts, unplaced
from keras_trgl.export.intake import check_one_input
from keras_trgl.export.options import Inputs, Outputs
from keras_trgl.export.signatures import Exits, confidence
from keras_trgl.network.door import the_one
from keras_trgl.network.truncate import AllExits
from keras_trgl.recording import Words, shown
from keras_trgl.registration import public

GOALS = ("max_drop", "max_latency", "target")
POINTS = 200
"""Thresholds on the curve, at equal steps in the number of rows that leave."""


@public
@dataclasses.dataclass(frozen=True, repr=False)
class ExitChoice:
    """A depth, thresholds of early exit, and the measurements they come from.

    Args:
        depth: int, 1…K.
        thresholds: tuple of K − 1 floats, for `Outputs(thresholds=…)`.
        accuracy: tuple of K floats: accuracy of each depth on the held-out data.
        latency: tuple of K floats, seconds: median time of a call of each depth.
        curve: dict of tuples, an entry per threshold, ascending: `threshold`, `accuracy`,
            `mean_depth`, `mean_latency` (seconds; each row counted with the time of its depth).

    Example:
        >>> from keras_trgl.export import ExitChoice
        >>> curve = {"threshold": (0.0, 1.1), "accuracy": (0.8, 0.9), "mean_depth": (1.0, 2.0),
        ...          "mean_latency": (0.001, 0.002)}
        >>> ExitChoice(2, (1.1,), (0.8, 0.9), (0.001, 0.002), curve).depth
        2
    """

    depth: int
    thresholds: tuple[float, ...]
    accuracy: tuple[float, ...]
    latency: tuple[float, ...]
    curve: dict[str, tuple[float, ...]]

    def __repr__(self) -> str:
        rounded = {
            name: tuple(float(f"{one:.3g}") for one in getattr(self, name))
            for name in ("thresholds", "accuracy", "latency")
        }
        points = len(next(iter(self.curve.values()), ()))
        return shown(self, depth=self.depth, **rounded, curve=Words(f"{points} points"))

    def plot(self, path: Any) -> None:
        """Draw accuracy over mean depth, threshold by threshold, with the single depths.

        Args:
            path: str or path of the picture; its ending says the format.

        Raises:
            ImportError: matplotlib, the extra `[plot]`, is missing.
        """
        figures = needed("matplotlib.figure", "plot", "A picture")
        figure = figures.Figure(figsize=(9.6, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(self.curve["mean_depth"], self.curve["accuracy"], label="confident exit")
        left.plot(range(1, len(self.accuracy) + 1), self.accuracy, "o", label="depth k alone")
        left.set_xlabel("mean depth")
        left.set_ylabel("accuracy on held-out data")
        left.legend()
        right.plot(self.curve["threshold"], self.curve["mean_depth"], color="C2")
        right.set_xlabel("threshold")
        right.set_ylabel("mean depth")
        if self.thresholds:
            right.axvline(self.thresholds[0], linestyle="--", color="0.5")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        figure.savefig(path, dpi=130)


@public
def choose_exit(
    model: Any,
    data: Any,
    max_drop: float | None = None,
    max_latency: float | None = None,
    target: float | None = None,
    batch_size: int = 1,
    predictions: str = "logits",
    repeats: int = 30,
) -> ExitChoice:
    """Choose the depth to ship and calibrate early exit, on data held out from training.

    Depths are timed by calls of their own graph, in turn, so that noise meets all alike. One
    threshold serves all depths: every value on the curve is tried on the held-out rows. Give
    validation data; a depth chosen on test data makes the test's figure worthless.

    Args:
        model: built `GreedyModel`, a classifier.
        data: tuple `(x, y)`: the model's data `(examples, …)` and class indices `(examples,)`
            or one-hot labels.
        max_drop: float ≥ 0: the fastest choice whose accuracy is at most this much below that of
            the last depth; 0.01 is one point. Defaults to `None`.
        max_latency: float > 0, seconds: the most accurate choice whose call takes no longer.
            Defaults to `None`.
        target: float, 0 to 1: the fastest choice that is at least as accurate. Defaults to
            `None`.
        batch_size: int ≥ 1: rows of a timed call. Defaults to `1`.
        predictions: `"logits"` or `"probabilities"`: what the heads give. Defaults to
            `"logits"`.
        repeats: int ≥ 1: timed calls of each depth. Defaults to `30`.

    Returns:
        `ExitChoice`.

    Raises:
        TypeError: labels that are no numbers.
        ValueError: not exactly one of `max_drop`, `max_latency` and `target`; none of the depths
            is fast or accurate enough; x and y differ in length; labels that are none of the
            classes; the model is not built.

    Example:
        >>> import numpy as np, keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1), widths=(2, 2, 2))
        >>> model = trgl.GreedyModel.from_blocks(blocks, [2, 1], trgl.heads.LinearHead(3), seed=0)
        >>> x, y = np.zeros((6, 8, 8, 1), "float32"), np.zeros(6, int)
        >>> trgl.export.choose_exit(model, (x, y), max_drop=1.0, repeats=1).depth in (1, 2)
        True
    """
    goal, bound = _goal(max_drop, max_latency, target)
    check_model(model)
    check_choice("predictions", predictions, ("logits", "probabilities"))
    check_integer("batch_size", batch_size, 1)
    check_integer("repeats", repeats, 1)
    check_one_input(model.stages, "`choose_exit`")
    x, labels = _rows(data)
    stages, heads, shape = live_parts(model, model.num_stages)
    stages, heads = unplaced(stages, heads, shape)
    found = AllExits(stages, heads, "exits").predict(x, verbose=0)
    _check_labels(np.asarray(data[1]), labels, found[-1].shape[-1])
    right = np.stack([_classes(one) == labels for one in found])
    sure = np.stack([np.asarray(confidence(tf.constant(one), predictions)) for one in found])
    depths = range(1, len(found) + 1)
    exits = Exits(stages, heads, shape, Inputs(), Outputs(predictions), depths)
    latency = _latencies(exits, np.resize(x, (batch_size, *exits.spec.shape[1:])), repeats)
    accuracy = right.mean(1)
    curve = _curve(right, sure, latency)
    bound = accuracy[-1] - bound if goal == "max_drop" else bound
    depth = _best(goal, bound, accuracy, latency) + 1
    threshold = curve["threshold"][_best(goal, bound, curve["accuracy"], curve["mean_latency"])]
    return ExitChoice(
        depth=depth,
        thresholds=(float(threshold),) * (len(found) - 1),
        accuracy=tuple(map(float, accuracy)),
        latency=tuple(map(float, latency)),
        curve={name: tuple(map(float, values)) for name, values in curve.items()},
    )


def _goal(*given: float | None) -> tuple[str, float]:
    wanted = [(name, value) for name, value in zip(GOALS, given, strict=True) if value is not None]
    if len(wanted) != 1:
        raise ValueError(
            f"Exactly one of {', '.join(f'`{name}`' for name in GOALS)} must be given. Received: "
            f"{dict(wanted) or 'none'}. `max_drop=0.01` allows one point."
        )
    return wanted[0][0], float(wanted[0][1])


def _rows(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(
            "`data` must be a tuple (x, y) of held-out arrays. Received: "
            f"{type(data).__name__}. `ImageData.arrays('validation')` gives one."
        )
    x, y = np.asarray(the_one(data[0])), np.asarray(the_one(data[1]))
    labels = y.argmax(-1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
    if len(x) != len(labels) or not len(x):
        raise ValueError(
            "`data` must hold as many labels as examples, at least one. Received: "
            f"{len(x)} examples and {len(labels)} labels."
        )
    return x, labels


def _check_labels(given: Any, labels: Any, units: int) -> None:
    """Raise unless labels are among the classes: others count as wrong at every depth.

    Args:
        given: array, as the user gave it: indices, or rows of one-hot.
        labels: int array, `(examples,)`, read from it.
        units: int. Classes of the last head.
    """
    way_out = "Count classes from 0, as in training."
    if given.dtype.kind not in "biuf":
        raise TypeError(
            f"Labels must be numbers of classes, 0 to {units - 1}. Received: labels of type "
            f"{given.dtype}. {way_out}"
        )
    if given.ndim == 2 and given.shape[1] not in (1, units):
        raise ValueError(
            f"One-hot labels must have a column per class, {units}. Received: {given.shape[1]} "
            f"columns. {way_out}"
        )
    strange = np.unique(labels[~np.isin(labels, np.arange(units))])
    if units > 1 and len(strange):
        raise ValueError(
            f"Labels must be numbers of classes, 0 to {units - 1}. Received: "
            f"{', '.join(map(str, strange[:5]))}{', …' if len(strange) > 5 else ''}. {way_out}"
        )


def _classes(predictions: Any) -> Any:
    if predictions.shape[-1] == 1:
        raise ValueError(
            "A depth is chosen for classifiers with a unit per class. Received: a single unit."
        )
    return predictions.argmax(-1)


def _latencies(exits: Exits, batch: Any, repeats: int) -> Any:
    """Give the median seconds of a call of each depth; calls of all depths take turns."""
    calls = [tf.function(exits.single(depth), autograph=False) for depth in exits.depths]
    rows = tf.constant(batch)
    rows = rows if rows.dtype == tf.string else tf.cast(rows, exits.spec.dtype)
    seconds = np.empty((repeats, len(calls)))
    # The first call traces.
    for call in calls:
        call(rows)
    for round_ in seconds:
        for k, call in enumerate(calls):
            begin = time.perf_counter()
            call(rows)["class_id"].numpy()
            round_[k] = time.perf_counter() - begin
    return np.median(seconds, 0)


def _curve(right: Any, sure: Any, latency: Any) -> dict[str, Any]:
    """Give accuracy, mean depth and mean latency of early exit at each threshold.

    Args:
        right: bool array, `(K, examples)`: whether depth k is right.
        sure: float array, `(K, examples)`: its confidence.
        latency: float array, `(K,)`, seconds.
    """
    inner = np.quantile(sure[:-1], np.linspace(0.0, 1.0, POINTS)) if len(sure) > 1 else []
    # Above 1 no row leaves early: the last depth itself.
    thresholds = np.unique([0.0, *inner, 1.1])
    names = ("threshold", "accuracy", "mean_depth", "mean_latency")
    points = []
    for threshold in thresholds:
        leaves = sure >= threshold
        leaves[-1] = True
        exit_of = leaves.argmax(0)
        correct = right[exit_of, np.arange(right.shape[1])]
        points.append(
            (threshold, correct.mean(), 1.0 + exit_of.mean(), np.asarray(latency)[exit_of].mean())
        )
    return dict(zip(names, np.transpose(points), strict=True))


def _best(goal: str, bound: float, accuracy: Any, latency: Any) -> int:
    """Give the place of the best choice.

    Raises:
        ValueError: none meets the bound.
    """
    # `lexsort` orders by its last key first; the other one decides among equals.
    if goal == "max_latency":
        fits = np.asarray(latency) <= bound
        order = np.lexsort((latency, -np.asarray(accuracy)))
    else:
        # A difference of two accuracies may miss the very accuracy that it allows by a last bit.
        fits = np.asarray(accuracy) >= bound - 1e-12
        order = np.lexsort((-np.asarray(accuracy), latency))
    for place in order:
        if fits[place]:
            return int(place)
    raise ValueError(
        f"No depth meets the goal. Received: {goal} with accuracy or seconds {bound:.4g}; the "
        f"best accuracy is {max(accuracy):.4g}, the least latency {min(latency):.4g} seconds."
    )
