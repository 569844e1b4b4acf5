"""Memory of training: of a model by stage, of a plan's ways, or of what was measured."""

import math
from collections.abc import Mapping
from typing import Any

from keras_trgl.greedy_model import GreedyModel
from keras_trgl.plot.style import COLORS, GREY, color_of, dressed, finished, taken
from keras_trgl.registration import public

MIB = 2**20


@public
def memory(
    what: Any,
    batch_size: int | None = None,
    subject: str | None = None,
    axes: Any = None,
    path: Any = None,
) -> Any:
    """Draw the bytes that training takes.

    - Of a model: what every stage takes at its worst moment, predicted, on top of weights, slots
      and data.
    - Of a plan: every way that was weighed, bytes over work, with the line of the budget.
    - Of a dict of names to bytes: a bar for each, as of what `measure_peak` gave.

    Args:
        what: `GreedyModel`, built, `Plan`, or dict of str to int, bytes.
        batch_size: int ≥ 1, examples; needed for a model. Defaults to `None`.
        subject: str. Data set and model for the title, as in `"digits, ResNet-26"`. `None` is the
            model's name. Defaults to `None`.
        axes: `Axes` of matplotlib to draw into, or `None` for a new figure. Defaults to
            `None`.
        path: str or path of the picture; its ending says the format. `None` writes none. Defaults
            to `None`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib, the extra `[plot]`, is missing.
        TypeError: something else came.
        ValueError: a model without `batch_size`, or one that is not built.

    Example:
        >>> import keras_trgl as trgl
        >>> figure = trgl.plot.memory({"TRGL": 12 * 2**20, "end-to-end": 20 * 2**20})
        >>> figure.axes[0].get_ylabel()
        'memory peak of training, MiB'
    """
    figure, panel = taken(axes)
    if isinstance(what, GreedyModel):
        _of_model(panel, what, batch_size)
        subject, title = subject or what.name, f"memory by stage, batch size {batch_size}"
    elif hasattr(what, "weighed") and hasattr(what, "max_bytes"):
        _of_plan(panel, what)
        title = f"ways to train within {what.max_bytes / MIB:.4g} MiB, batch size {what.batch_size}"
    elif isinstance(what, Mapping) and what:
        _of_measured(panel, what)
        title = "memory of training"
    else:
        raise TypeError(
            "`what` must be a `GreedyModel`, a `Plan`, or a dict of names to bytes. Received: "
            f"{what!r}."
        )
    return finished(figure, title, subject, path, axes)


def _of_measured(panel: Any, measured: Mapping[str, Any]) -> None:
    names = [str(name) for name in measured]
    sizes = [float(size) / MIB for size in measured.values()]
    bars = panel.bar(names, sizes, color=[color_of(place) for place in range(len(names))])
    panel.bar_label(bars, fmt="%.1f")
    # Room for the highest bar's number.
    panel.margins(y=0.1)
    dressed(panel, "", "memory peak of training, MiB", legend=False)


def _of_model(panel: Any, model: Any, batch_size: int | None) -> None:
    if batch_size is None:
        raise ValueError(
            "Bytes of a model depend on the batch. Received: batch_size=None. Give the number of "
            "examples of a step, `batch_size=32`."
        )
    sizes, standing, peak = model.count_bytes(batch_size)
    depths = range(1, len(sizes) + 1)
    stages = [size / MIB for size in sizes]
    below = [standing / MIB] * len(stages)
    panel.bar(depths, below, color="#c9c9c9", label="weights, slots and data")
    panel.bar(depths, stages, bottom=below, color=COLORS[0], label="the stage in training")
    panel.axhline(peak / MIB, linestyle="--", color=GREY, label="predicted peak")
    dressed(panel, "stage k", "predicted bytes while stage k trains, MiB", whole=True)


def _of_plan(panel: Any, plan: Any) -> None:
    for remat, mark, color in ((False, "o", COLORS[0]), (True, "s", COLORS[1])):
        rows = [one for one in plan.weighed if one.remat == remat]
        if rows:
            panel.scatter(
                [1 + one.work for one in rows],
                [one.predicted_bytes / MIB for one in rows],
                [12 + 10 * math.log2(one.micro_batches) for one in rows],
                color=color,
                marker=mark,
                alpha=0.6,
                label="remat" if remat else "all kept",
            )
    asked = (plan.stage_sizes, plan.remat, plan.micro_batches)
    best = next(
        one for one in plan.weighed if (one.stage_sizes, one.remat, one.micro_batches) == asked
    )
    panel.plot(1 + best.work, best.predicted_bytes / MIB, "k*", ms=12, label="taken")
    panel.axhline(plan.max_bytes / MIB, linestyle="--", color=GREY, label="budget")
    panel.set_yscale("log")
    dressed(
        panel,
        "work of a step, of end-to-end's (larger marks: more parts)",
        "predicted peak, MiB",
    )
