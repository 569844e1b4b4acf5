"""The depth to ship, and when a row may leave early, from held-out data and measured time."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.checks import check_choice
from keras_trgl.export.calibration import Calibration, checked, parts
from keras_trgl.export.exit_curve import best, curve_of, right_and_sure
from keras_trgl.export.exit_goal import the_goal
from keras_trgl.export.exit_predictions import exit_predictions, fitted_temperature
from keras_trgl.export.exported_parts import check_model, live_parts, unplaced
from keras_trgl.export.intake import check_one_input
from keras_trgl.export.latencies import latencies
from keras_trgl.export.options import Inputs, Outputs
from keras_trgl.export.risk_bound import check_enough, last_safe
from keras_trgl.export.signatures import Exits
from keras_trgl.export.threshold_path import shared_path, threshold_path
from keras_trgl.html_table import InNotebooks, Table
from keras_trgl.network.door import the_one
from keras_trgl.network.head_end import check_end
from keras_trgl.network.truncate import AllExits
from keras_trgl.plot.exits import exits as draw_exits
from keras_trgl.progress import Progress
from keras_trgl.recording import Words, shown
from keras_trgl.registration import public
from keras_trgl.scores import check_predictions, class_indices

ROWS = 32
"""Rows that are predicted at once."""


@public
@dataclasses.dataclass(frozen=True, repr=False)
class ExitChoice(InNotebooks):
    """A depth, thresholds of early exit, and the measurements they come from.

    Args:
        depth: int, 1…K.
        thresholds: tuple of K − 1 floats, for `Outputs(thresholds=…)`.
        accuracy: tuple of K floats: accuracy of each depth on the rows that judge.
        latency: tuple of K floats, seconds: median time of a call of each depth.
        curve: dict of tuples, an entry per point, slowest first: `thresholds` (K − 1 floats),
            `accuracy`, `risk`, the share of rows that are wrong at their exit and right at depth K,
            `mean_depth`, and `mean_latency`, seconds, each row with the time of its depth.
        temperatures: tuple of K floats, or `None`. Defaults to `None`.
        average: bool. Whether exits are averaged. Defaults to `False`.
        promise: str: what holds, and under which assumption; empty without `risk`. Defaults to
            `""`.

    Example:
        >>> from keras_trgl.export import ExitChoice
        >>> curve = {"thresholds": ((1.1,), (0.0,)), "accuracy": (0.9, 0.8), "risk": (0.0, 0.1),
        ...          "mean_depth": (2.0, 1.0), "mean_latency": (0.002, 0.001)}
        >>> print(ExitChoice(2, (1.1,), (0.8, 0.9), (0.001, 0.002), curve))
        Depth 2 of 2 alone: accuracy 0.9, 2 ms a call.
        Early exit at (1.1,): accuracy 0.9, mean depth 2, mean 2 ms.
        No bound on the risk was asked for.
    """

    depth: int
    thresholds: tuple[float, ...]
    accuracy: tuple[float, ...]
    latency: tuple[float, ...]
    curve: dict[str, tuple[Any, ...]]
    temperatures: tuple[float, ...] | None = None
    average: bool = False
    promise: str = ""

    def __repr__(self) -> str:
        rounded = {
            name: tuple(float(f"{one:.3g}") for one in getattr(self, name))
            for name in ("thresholds", "accuracy", "latency")
        }
        points = len(next(iter(self.curve.values()), ()))
        return shown(self, depth=self.depth, **rounded, curve=Words(f"{points} points"))

    def __str__(self) -> str:
        place = self.curve["thresholds"].index(self.thresholds)
        early = {name: values[place] for name, values in self.curve.items()}
        rounded = tuple(float(f"{one:.3g}") for one in self.thresholds)
        alone = self.depth - 1
        return (
            f"Depth {self.depth} of {len(self.accuracy)} alone: accuracy "
            f"{self.accuracy[alone]:.4g}, {1e3 * self.latency[alone]:.3g} ms a call.\n"
            f"Early exit at {rounded}: accuracy {early['accuracy']:.4g}, mean depth "
            f"{early['mean_depth']:.3g}, mean {1e3 * early['mean_latency']:.3g} ms.\n"
            f"{self.promise or 'No bound on the risk was asked for.'}"
        )

    def _as_table(self) -> Table:
        thresholds = [f"{one:.3g}" for one in self.thresholds]
        columns: dict[str, Sequence[Any]] = {
            "depth": range(1, len(self.accuracy) + 1),
            "accuracy": [f"{one:.4g}" for one in self.accuracy],
            "ms a call": [f"{1e3 * one:.3g}" for one in self.latency],
            "leaves at": [*thresholds, "always"],
        }
        if self.temperatures is not None:
            columns["temperature"] = [f"{one:.3g}" for one in self.temperatures]
        rows = zip(*columns.values(), strict=True)
        return Table(f"Depth {self.depth} of {len(self.accuracy)}", [*columns], rows, str(self))

    def outputs(self, **kwargs: Any) -> Outputs:
        """Give the options of an export that does as was chosen.

        Args:
            **kwargs: other options of `Outputs`, such as `class_names`.

        Returns:
            `Outputs`.
        """
        own = {
            "thresholds": self.thresholds,
            "temperatures": self.temperatures,
            "average": self.average,
        }
        return Outputs(**{**own, **kwargs})

    def judged(
        self, outputs: Sequence[Any], labels: Any, predictions: str = "logits"
    ) -> dict[str, tuple[Any, ...]]:
        """Give the curve on other data: what each of its points does there.

        Args:
            outputs: list of K arrays, `(examples, classes)`: what the heads give, as
                `model.predict_exits(x)` has it.
            labels: int array, `(examples,)`: numbers of classes, 0 to `classes` − 1.
            predictions: `"logits"` or `"probabilities"`. Defaults to `"logits"`.

        Returns:
            Dict of tuples, as `curve`.
        """
        found = exit_predictions(outputs, predictions, self.temperatures, self.average)
        right, sure = right_and_sure(found, np.asarray(labels), predictions)
        path = self.curve["thresholds"]
        curve = curve_of(right, sure, self.latency, path)
        return {"thresholds": path} | {name: tuple(map(float, v)) for name, v in curve.items()}

    def plot(self, path: Any = None, subject: str | None = None) -> Any:
        """Draw accuracy over mean depth and mean time, with the single depths; see `plot.exits`.

        Args:
            path: str or path of the picture; its ending says the format. `None` writes none.
                Defaults to `None`.
            subject: str. Data set and model for the title. Defaults to `None`.

        Returns:
            `matplotlib.figure.Figure`.

        Raises:
            ImportError: matplotlib, the extra `[plot]`, is missing.
        """
        return draw_exits(self, subject, path)


@public
def choose_exit(
    model: Any,
    data: Any,
    max_drop: float | None = None,
    max_latency: float | None = None,
    max_depth: float | None = None,
    target: float | None = None,
    risk: float | None = None,
    predictions: str = "logits",
    calibration: Calibration | None = None,
    verbose: Any = "auto",
) -> ExitChoice:
    """Choose the depth to ship and calibrate early exit, on data held out from training.

    Depths are timed by calls of their own graph, in turn, so that noise meets all alike. A row
    leaves at the first depth that is as sure as its threshold. Thresholds are looked for on some
    of the rows, along a path from never leaving to leaving at once, and every point of it is
    judged on the others. Give validation data; a depth chosen on test data makes the test's
    figure worthless.

    Of the goals one is given. `risk` is a bound that holds for new rows: with the confidence of
    `calibration`, over draws of the judging rows, at most this share of rows is wrong at its exit
    and right at depth K. It assumes that those rows and later ones are drawn independently from
    one distribution, and says nothing of data that drift, or of single classes. Points of the
    path are tested slowest first by their binomial p-values, up to the first that fails
    (Angelopoulos et al., "Learn then Test", 2021), and the fastest that passed is chosen.

    Args:
        model: built `GreedyModel`, a classifier.
        data: tuple `(x, y)`: the model's data `(examples, …)` and class indices `(examples,)`
            or one-hot labels.
        max_drop: float ≥ 0: the fastest choice whose accuracy is at most this much below that of
            the last depth; 0.01 is one point. Defaults to `None`.
        max_latency: float > 0, seconds: the most accurate choice whose call, or whose mean over
            the rows, takes no longer. Defaults to `None`.
        max_depth: float ≥ 1: the most accurate choice whose depth, or whose mean depth, is no
            more. Defaults to `None`.
        target: float, 0 to 1: the fastest choice that is at least as accurate. Defaults to
            `None`.
        risk: float, above 0 and below 1: the fastest thresholds with this bound. The depth alone
            is then the last. Defaults to `None`.
        predictions: `"logits"` or `"probabilities"`: what the heads give. Defaults to
            `"logits"`.
        calibration: `Calibration`, how thresholds are fitted and depths are timed. `None` is
            `Calibration()`. Defaults to `None`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        `ExitChoice`.

    Raises:
        TypeError: labels that are no numbers; another `calibration`.
        ValueError: not exactly one goal; none of the depths is fast or accurate enough; too few
            rows for the bound; x and y differ in length; labels that are none of the classes;
            the model is not built.

    Example:
        >>> import numpy as np, keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1), widths=(2, 2, 2))
        >>> model = trgl.GreedyModel.from_blocks(blocks, [2, 1], trgl.heads.LinearHead(3), seed=0)
        >>> x, y = np.zeros((6, 8, 8, 1), "float32"), np.zeros(6, int)
        >>> trgl.export.choose_exit(model, (x, y), max_drop=1.0, verbose=0).depth in (1, 2)
        True
    """
    goal, bound = the_goal(max_drop, max_latency, max_depth, target, risk)
    calibration = checked(calibration)
    check_model(model)
    check_choice("predictions", predictions, ("logits", "probabilities"))
    check_one_input(model.stages, "`choose_exit`")
    check_end(model.heads, predictions)
    x, labels = _rows(data)
    _check_rows(len(labels), goal, bound, calibration)
    stages, heads, shape = live_parts(model, model.num_stages)
    stages, heads = unplaced(stages, heads, shape)
    done = Progress(math.ceil(len(x) / ROWS) + len(heads) + calibration.repeats, verbose)
    counts = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda *_, **__: done())
    found = AllExits(stages, heads, "exits", shape).predict(x, ROWS, 0, callbacks=[counts])
    _check_labels(np.asarray(data[1]), labels, found[-1].shape[-1])
    _check_found(found, predictions)
    options = Outputs(predictions, average=calibration.average)
    exits = Exits(stages, heads, shape, Inputs(), options, range(1, len(found) + 1))
    rows = np.resize(x, (calibration.batch_size, *exits.spec.shape[1:]))
    latency = latencies(exits, rows, calibration.repeats, done)
    return _choice(found, labels, latency, goal, bound, predictions, calibration)


@public
def choose_exit_from(
    outputs: Sequence[Any],
    labels: Any,
    latency: Any,
    max_drop: float | None = None,
    max_latency: float | None = None,
    max_depth: float | None = None,
    target: float | None = None,
    risk: float | None = None,
    predictions: str = "logits",
    calibration: Calibration | None = None,
) -> ExitChoice:
    """Choose as `choose_exit` does, from what the heads gave and from known times.

    Args:
        outputs: list of K arrays, `(examples, classes)`: what the heads give, as
            `model.predict_exits(x)` has it.
        labels: int array, `(examples,)`: numbers of classes, 0 to `classes` − 1.
        latency: sequence of K floats, seconds: time of a call of each depth.
        max_drop: float ≥ 0, as in `choose_exit`. Defaults to `None`.
        max_latency: float > 0, seconds, as in `choose_exit`. Defaults to `None`.
        max_depth: float ≥ 1, as in `choose_exit`. Defaults to `None`.
        target: float, 0 to 1, as in `choose_exit`. Defaults to `None`.
        risk: float > 0 and < 1, as in `choose_exit`. Defaults to `None`.
        predictions: `"logits"` or `"probabilities"`. Defaults to `"logits"`.
        calibration: `Calibration`, or `None` for `Calibration()`. Its `batch_size` and `repeats`
            have no part here. Defaults to `None`.

    Returns:
        `ExitChoice`.

    Raises:
        TypeError: another `calibration`.
        ValueError: not exactly one goal; none of the depths meets it; too few rows for the
            bound; other numbers of outputs, labels and times.

    Example:
        >>> import numpy as np, keras_trgl as trgl
        >>> outputs = [np.eye(2)[[0, 1, 1, 0]], np.eye(2)[[0, 1, 1, 1]]]
        >>> trgl.export.choose_exit_from(outputs, [0, 1, 1, 1], (0.001, 0.002), target=0.0).depth
        1
    """
    goal, bound = the_goal(max_drop, max_latency, max_depth, target, risk)
    calibration = checked(calibration)
    check_choice("predictions", predictions, ("logits", "probabilities"))
    found, labels = [np.asarray(one) for one in outputs], np.asarray(labels)
    if len(found) != len(latency) or any(len(one) != len(labels) for one in found):
        raise ValueError(
            "`outputs` must be as many arrays as times, each with a row per label. Received: "
            f"{len(found)} arrays of {[len(one) for one in found]} rows, {len(labels)} labels, "
            f"{len(latency)} times."
        )
    _check_rows(len(labels), goal, bound, calibration)
    return _choice(found, labels, latency, goal, bound, predictions, calibration)


def _check_found(found: Sequence[Any], predictions: str) -> None:
    """Raise unless every depth predicts finite numbers of the kind that is said.

    Raises:
        ValueError: one does not.
    """
    for depth, given in enumerate(found, start=1):
        bad = ~np.isfinite(given).all(-1)
        if bad.any():
            raise ValueError(
                "Predictions must be finite. Received: NaN or infinite numbers at depth "
                f"{depth}, in {int(bad.sum())} of {len(bad)} rows. Look at the data."
            )
        check_predictions(predictions, given)


def _check_rows(count: int, goal: str, bound: float, calibration: Calibration) -> None:
    """Raise where there are too few rows to fit on, to judge, or to show a bound.

    Raises:
        ValueError: there are.
    """
    judge = parts(count, calibration, goal == "risk")[1]
    if goal == "risk":
        check_enough(len(judge), bound, calibration.confidence)


def _choice(
    found: Sequence[Any],
    labels: Any,
    latency: Any,
    goal: str,
    bound: float,
    predictions: str,
    calibration: Calibration,
) -> ExitChoice:
    fit, judge = parts(len(labels), calibration, goal == "risk")
    temperatures = None
    if calibration.temperature:
        temperatures = tuple(fitted_temperature(o[fit], labels[fit], predictions) for o in found)
    found = exit_predictions(found, predictions, temperatures, calibration.average)
    right, sure = right_and_sure(found, labels, predictions)
    path = shared_path(sure[:, fit])
    if calibration.per_exit:
        gain = ~(right[-1] & ~right) if goal == "risk" else right
        path = threshold_path(gain[:, fit].astype(float), sure[:, fit], latency)
    curve = curve_of(right[:, judge], sure[:, judge], latency, path)
    accuracy = right[:, judge].mean(1)
    depth, place, promise = _chosen(goal, bound, accuracy, latency, curve, calibration, len(judge))
    return ExitChoice(
        depth=depth,
        thresholds=path[place],
        accuracy=tuple(map(float, accuracy)),
        latency=tuple(map(float, latency)),
        curve={"thresholds": tuple(path)} | {n: tuple(map(float, v)) for n, v in curve.items()},
        temperatures=temperatures,
        average=calibration.average,
        promise=promise,
    )


def _chosen(
    goal: str,
    bound: float,
    accuracy: Any,
    latency: Any,
    curve: dict[str, Any],
    calibration: Calibration,
    rows: int,
) -> tuple[int, int, str]:
    """Give depth, place on the curve, and what is promised."""
    if goal == "risk":
        wrong = np.rint(curve["risk"] * rows)
        safe = last_safe(wrong, rows, bound, calibration.confidence)
        place = int(np.argmin(curve["mean_latency"][:safe]))
        promise = (
            f"With confidence {calibration.confidence:g}, at most {bound:g} of rows drawn as the "
            f"{rows} judging ones are wrong at their exit and right at depth {len(accuracy)}."
        )
        return len(accuracy), place, promise
    if goal == "max_depth":
        depths = np.arange(1, len(accuracy) + 1)
        place = best(goal, bound, curve["accuracy"], curve["mean_depth"])
        return best(goal, bound, accuracy, depths) + 1, place, ""
    bound = accuracy[-1] - bound if goal == "max_drop" else bound
    place = best(goal, bound, curve["accuracy"], curve["mean_latency"])
    return best(goal, bound, accuracy, latency) + 1, place, ""


def _rows(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(
            "`data` must be a tuple (x, y) of held-out arrays. Received: "
            f"{type(data).__name__}. `ImageData.arrays('validation')` gives one."
        )
    x, labels = np.asarray(the_one(data[0])), class_indices(the_one(data[1]))
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
