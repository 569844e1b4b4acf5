"""The one style of all pictures: sizes, colours, axes, titles."""

import math
from typing import Any

from keras_trgl.checks import needed

COLORS = ("#1b6ca8", "#d1702a", "#3a8f5c", "#8a4f9e", "#b8860b", "#c0405c", "#555555")
GREY = "#555555"
DPI = 130
PANEL = (4.8, 3.4)
"""Width and height of a panel, in inches."""


def panels(count: int, across: int = 2, widths: Any = None) -> tuple[Any, list[Any]]:
    """Give a figure and its axes.

    Args:
        count: int ≥ 1. Panels.
        across: int ≥ 1. Panels in a row at most. Defaults to `2`.
        widths: list of relative widths of a row, or `None` for equal ones. Defaults to `None`.

    Raises:
        ImportError: matplotlib is missing.
    """
    figures = needed("matplotlib.figure", "plot", "A picture")
    across = min(count, across)
    down = math.ceil(count / across)
    size = (PANEL[0] * across if across > 1 else 6.4, PANEL[1] * down)
    figure = figures.Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, width_ratios=widths)
    axes = list(grid.flat)
    for one in axes[count:]:
        one.set_axis_off()
    return figure, axes[:count]


def taken(axes: Any) -> tuple[Any, Any]:
    """Give figure and axes: the given ones, or new ones.

    Args:
        axes: matplotlib axes or `None`.

    Raises:
        TypeError: it is something else.
    """
    if axes is None:
        figure, (made,) = panels(1)
        return figure, made
    if not hasattr(axes, "get_figure"):
        raise TypeError(
            f"`axes` must be axes of matplotlib, or `None`. Received: {axes!r}. Take one of "
            "`figure.subplots(1, 2)`."
        )
    return axes.get_figure(), axes


def dressed(axes: Any, x: str, y: str, whole: bool = False, legend: bool = True) -> None:
    """Label axes, with a light grid and, where there is more than one line, a legend.

    Args:
        axes: matplotlib axes.
        x: str. What is on the x axis, with its unit.
        y: str. What is on the y axis, with its unit.
        whole: bool. Whether x has whole numbers. Defaults to `False`.
        legend: bool. Whether lines are named. Defaults to `True`.
    """
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if whole:
        axes.xaxis.get_major_locator().set_params(integer=True)
    lines = len(axes.get_legend_handles_labels()[1])
    if legend and lines > 1:
        # Many lines are named in small columns, so that their names stay inside the panel.
        many = {"fontsize": "xx-small", "ncols": math.ceil(lines / 11)}
        axes.legend(**({"fontsize": "small"} if lines <= len(COLORS) else many))


def finished(figure: Any, title: str, subject: Any, path: Any, axes: Any = None) -> Any:
    """Give a figure its title, `subject: title`, and write it where a path is given.

    Args:
        figure: matplotlib figure.
        title: str. What is shown.
        subject: str or `None`. Data set and model.
        path: str or path of the picture, or `None`.
        axes: the axes that a user gave, which then bear the title, or `None`. Defaults to `None`.
    """
    text = f"{subject}: {title}" if subject else title
    if axes is None:
        figure.suptitle(text, fontsize=10)
    else:
        axes.set_title(text, fontsize=10)
    if path is not None:
        figure.savefig(path, dpi=DPI)
    return figure


def color_of(place: int, count: int = 0) -> Any:
    """Give the colour of the how-manieth line, from 0.

    Args:
        place: int ≥ 0.
        count: int. Lines that there are; more than there are colours take a scale from dark to
            light. Defaults to `0`.
    """
    if count <= len(COLORS):
        return COLORS[place % len(COLORS)]
    scale = needed("matplotlib", "plot", "A picture").colormaps["viridis"]
    return scale(0.95 * place / (count - 1))
