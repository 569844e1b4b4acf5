"""Early exit: accuracy against time, and against depth."""

from typing import Any

from keras_trgl.plot.style import COLORS, dressed, finished, panels
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
        >>> curve = {"thresholds": ((0.0,), (1.1,)), "accuracy": (0.8, 0.9),
        ...          "mean_depth": (1.0, 2.0), "mean_latency": (0.001, 0.002)}
        >>> choice = trgl.export.ExitChoice(2, (1.1,), (0.8, 0.9), (0.001, 0.002), curve)
        >>> [one.get_xlabel() for one in trgl.plot.exits(choice).axes]
        ['mean time of a call, ms', 'mean depth']
    """
    if not all(hasattr(choice, name) for name in ("curve", "thresholds", "latency", "accuracy")):
        raise TypeError(
            f"`choice` must be an `ExitChoice`. Received: {choice!r}. `export.choose_exit(model, "
            "data, max_drop=0.01)` gives one."
        )
    figure, axes = panels(2)
    accuracy = [100 * value for value in choice.curve["accuracy"]]
    alone = [100 * value for value in choice.accuracy]
    place = choice.curve["thresholds"].index(choice.thresholds)
    sides = (
        ("mean_latency", "mean time of a call, ms", 1e3, choice.latency),
        ("mean_depth", "mean depth", 1.0, range(1, len(alone) + 1)),
    )
    for panel, (name, label, unit, depths) in zip(axes, sides, strict=True):
        x = [unit * one for one in choice.curve[name]]
        panel.plot(x, accuracy, color=COLORS[0], label="confident exit")
        panel.plot(
            [unit * one for one in depths], alone, "o", color=COLORS[1], label="depth k alone"
        )
        panel.plot(x[place], accuracy[place], "k*", ms=12, label="chosen")
        dressed(panel, label, "accuracy on held-out data, %")
    return finished(figure, "early exit", subject, path)
