"""The picture of a table by depth: a panel for every unit, or a map."""

import math
from typing import Any

import numpy as np

from keras_trgl.plot.style import color_of, dressed, finished, panels


def drawn_table(table: Any, subject: Any, path: Any) -> Any:
    """Draw what has `title`, `index`, `columns`, `units`, `index_name` and `is_matrix`.

    Args:
        table: `DepthTable`.
        subject: str or `None`. Data set and model, for the title.
        path: str or path of the picture, or `None`.

    Raises:
        ImportError: matplotlib is missing.
    """
    if table.is_matrix:
        return _map(table, subject, path)
    groups: dict[str, list[str]] = {}
    for name, numbers in table.columns.items():
        if not all(map(math.isnan, numbers)):
            groups.setdefault(table.units.get(name, name), []).append(name)
    figure, axes = panels(max(len(groups), 1))
    if not groups:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "no numbers: see the table", ha="center", va="center")
    numbered = all(isinstance(one, int) for one in table.index)
    x = list(table.index) if numbered else list(range(len(table.index)))
    for panel, (unit, names) in zip(axes, groups.items(), strict=False):
        for place, name in enumerate(names):
            style = {"marker": "o", "markersize": 4} if len(x) < 40 else {}
            panel.plot(
                x, table.columns[name], color=color_of(place, len(names)), label=name, **style
            )
        x_label = f"{table.index_name} k" if table.index_name == "depth" else table.index_name
        dressed(panel, x_label, unit, whole=numbered)
        # All rows have their place, whether there is a number or none.
        panel.set_xlim(x[0] - 0.3, x[-1] + 0.3)
        if not numbered:
            panel.set_xticks(x, [str(one) for one in table.index], rotation=30, ha="right")
    return finished(figure, table.title, subject, path)


def _map(table: Any, subject: Any, path: Any) -> Any:
    figure, (axes,) = panels(1)
    values = np.array(list(table.columns.values()), np.float64).T
    image = axes.imshow(values, vmin=0.0, vmax=1.0, cmap="viridis", origin="lower")
    for ticks, names in (
        (axes.set_xticks, list(table.columns)),
        (axes.set_yticks, [str(one) for one in table.index]),
    ):
        # Every so many, where there is no room for all.
        every = math.ceil(len(names) / 16)
        ticks(range(0, len(names), every), names[::every])
        if ticks == axes.set_xticks and max(map(len, names)) > 3:
            axes.tick_params("x", rotation=45)
    if values.size <= 144:
        for (row, across), value in np.ndenumerate(values):
            shade = "black" if value > 0.6 else "white"
            text = "-" if math.isnan(value) else f"{value:.2f}"
            axes.text(across, row, text, ha="center", va="center", color=shade, fontsize=8)
    figure.colorbar(image, ax=axes, label=next(iter(table.units.values()), ""))
    names = table.about.get("axes", (table.index_name, table.index_name))
    axes.set_ylabel(names[0])
    axes.set_xlabel(names[1])
    return finished(figure, table.title, subject, path)
