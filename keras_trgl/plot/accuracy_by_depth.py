"""Accuracy of every depth, of one model or of several side by side."""

from collections.abc import Mapping
from typing import Any

from keras_trgl.greedy_model import GreedyModel
from keras_trgl.network.head_end import kind_of
from keras_trgl.network.held_rows import held_rows
from keras_trgl.network.no_head import NoHead
from keras_trgl.plot.style import color_of, dressed, finished, taken
from keras_trgl.registration import public
from keras_trgl.scores import check_classes, class_labels, right_rows


@public
def accuracy_by_depth(
    models: Any,
    data: Any = None,
    subject: str | None = None,
    axes: Any = None,
    path: Any = None,
) -> Any:
    """Draw the accuracy of every depth.

    Args:
        models: `GreedyModel`, built; or dict of name to a `GreedyModel`, or to a list of
            accuracies, 0 to 1, of depths 1…K. What has one depth alone is a dashed line.
        data: tuple `(x, y)` of arrays, `(examples, …)` and class indices or one-hot labels, that
            models are judged by. Defaults to `None`.
        subject: str. Data set and model for the title, as in `"digits, ResNet-26"`. `None` is the
            name of a single model. Defaults to `None`.
        axes: `Axes` of matplotlib to draw into, or `None` for a new figure. Defaults to
            `None`.
        path: str or path of the picture; its ending says the format. `None` writes none. Defaults
            to `None`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib, the extra `[plot]`, is missing.
        TypeError: something else than models or accuracies, or labels that are no classes.
        ValueError: models without data, labels that heads do not know, or accuracies outside 0
            to 1.

    Example:
        >>> import keras_trgl as trgl
        >>> figure = trgl.plot.accuracy_by_depth(
        ...     {"TRGL": [0.7, 0.8], "VanGL": [0.72, 0.78], "end-to-end": [0.81]}, subject="digits")
        >>> figure.axes[0].get_xlabel()
        'depth k'
    """
    if isinstance(models, GreedyModel):
        subject = subject or models.name
        models = {models.name: models}
    if not isinstance(models, Mapping) or not models:
        raise TypeError(
            "`models` must be a `GreedyModel`, or a dict of names to models or to accuracies. "
            f"Received: {models!r}."
        )
    found = {str(name): _accuracies(name, one, data) for name, one in models.items()}
    figure, panel = taken(axes)
    for place, (name, values) in enumerate(found.items()):
        percent = [100 * value for value in values]
        if len(percent) > 1:
            depths = range(1, len(percent) + 1)
            panel.plot(depths, percent, "o-", color=color_of(place), label=name)
        else:
            panel.axhline(percent[0], linestyle="--", color=color_of(place), label=name)
    lowest = 100 * min(value for values in found.values() for value in values)
    panel.set_ylim(max(0.0, min(lowest - 1.0, 95.0)), 100.0)
    dressed(panel, "depth k", "accuracy of depth k, %", whole=True)
    return finished(figure, "accuracy by depth", subject, path, axes)


def _accuracies(name: Any, one: Any, data: Any) -> list[float]:
    """Give accuracies of depths that have one."""
    if isinstance(one, GreedyModel):
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ValueError(
                "A model's accuracy needs `data`, a tuple (x, y) of arrays. Received: "
                f"{type(data).__name__}. `ImageData.arrays('test')` gives one."
            )
        x, y = held_rows(data)
        if y is None:
            raise ValueError(
                "A model's accuracy needs labels. Received: data without. Give a tuple (x, y)."
            )
        labels = class_labels(y)
        if any(isinstance(head, NoHead) for head in one.heads):
            predictions, heads = [one.predict(x, verbose=0)], one.heads[-1:]
        else:
            predictions, heads = one.predict_exits(x, verbose=0), one.heads
        loss, found = one.loss if one.compiled else None, []
        for given, head in zip(predictions, heads, strict=True):
            check_classes(given, labels)
            found.append(float(right_rows(given, labels, kind_of(head, loss, given)).mean()))
        return found
    numbers = [float(value) for value in one]
    if not numbers or not all(0.0 <= value <= 1.0 for value in numbers):
        raise ValueError(
            f"Accuracies must lie between 0 and 1. Received: {name}: {numbers}. Divide percents "
            "by 100."
        )
    return numbers
