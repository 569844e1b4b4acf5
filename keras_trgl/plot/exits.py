"""Early exit: accuracy against time, and against depth."""

from typing import Any

from keras_trgl.plot.style import COLORS, GREY, dressed, finished, panels
from keras_trgl.registration import public


@public
def exits(choice: Any, subject: str | None = None, path: Any = None) -> Any:
    """Draw accuracy over mean time and mean depth, threshold by threshold, with the single depths.

    Args:
        choice: `ExitChoice`.
        subject: str. Data set and model for the title, as in `"digits, ResNet-26"`. Defaults to
            `None`.
        path: str or path of the picture; its ending says the format. `None` writes none. Defaults
            to `None`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib, the extra `[plot]`, is missing.
        TypeError: something else than an `ExitChoice` came.

    Example:
        >>> import keras_trgl as trgl
        >>> curve = {"threshold": (0.0, 1.1), "accuracy": (0.8, 0.9), "mean_depth": (1.0, 2.0),
        ...          "mean_latency": (0.001, 0.002)}
        >>> choice = trgl.export.ExitChoice(2, (1.1,), (0.8, 0.9), (0.001, 0.002), curve)
        >>> [one.get_xlabel() for one in trgl.plot.exits(choice).axes]
        ['mean time of a call, ms', 'mean depth', 'threshold of confidence']
    """
    if not all(hasattr(choice, name) for name in ("curve", "thresholds", "latency", "accuracy")):
        raise TypeError(
            f"`choice` must be an `ExitChoice`. Received: {choice!r}. `export.choose_exit(model, "
            "data, max_drop=0.01)` gives one."
        )
    figure, (time, depth, threshold) = panels(3, across=3)
    curve = {name: list(values) for name, values in choice.curve.items()}
    accuracy = [100 * value for value in curve["accuracy"]]
    alone = [100 * value for value in choice.accuracy]
    times = [1e3 * value for value in curve["mean_latency"]]
    of_depths = [1e3 * value for value in choice.latency]
    for panel, x, points in (
        (time, times, of_depths),
        (depth, curve["mean_depth"], range(1, len(alone) + 1)),
    ):
        panel.plot(x, accuracy, color=COLORS[0], label="confident exit")
        panel.plot(points, alone, "o", color=COLORS[1], label="depth k alone")
    threshold.plot(curve["threshold"], curve["mean_depth"], color=COLORS[2])
    if choice.thresholds:
        threshold.axvline(choice.thresholds[0], linestyle="--", color=GREY)
    dressed(time, "mean time of a call, ms", "accuracy on held-out data, %")
    dressed(depth, "mean depth", "accuracy on held-out data, %")
    dressed(threshold, "threshold of confidence", "mean depth")
    return finished(figure, "early exit", subject, path)
