"""What diagnostics give: numbers by depth, by epoch, or of every pair of depths."""

import csv
import dataclasses
import math
from typing import Any

import numpy as np

from keras_trgl.html_table import InNotebooks, Table
from keras_trgl.plot.drawn_table import drawn_table
from keras_trgl.recording import short
from keras_trgl.registration import public

SHOWN = 4
"""Columns, and numbers of each, that `repr` shows."""


@public
@dataclasses.dataclass(frozen=True, repr=False)
class DepthTable(InNotebooks):
    """Numbers with a row per depth, epoch, or layer, and what they were made of.

    `table["column"]` gives a column as an array; `print(table)` shows all of it, and so does
    a notebook.

    Args:
        title: str. What the numbers are.
        index: tuple, what rows are called: depths k, epochs, or names of layers.
        columns: dict of name to a tuple of floats, a number per row; NaN where there is none.
        units: dict of column to str: what it is, with its unit. Columns with the same text share
            an axis in the picture.
        about: dict of what the numbers come from: the model, rows, how features were made.
        index_name: str. What a row is. Defaults to `"depth"`.
        is_matrix: bool. Whether columns are depths too, and the picture a map. Defaults to
            `False`.

    Example:
        >>> from keras_trgl.diagnostics import DepthTable
        >>> table = DepthTable("Accuracy", (1, 2), {"probe": (0.5, 0.75)}, {}, {"model": "net"})
        >>> table
        DepthTable('Accuracy', depth=(1, 2), probe=(0.5, 0.75))
        >>> print(table)
        Accuracy
        depth   probe
        1      0.5000
        2      0.7500
        model: net
        >>> float(table["probe"].max())
        0.75
    """

    title: str
    index: tuple[Any, ...]
    columns: dict[str, tuple[float, ...]]
    units: dict[str, str]
    about: dict[str, Any]
    index_name: str = "depth"
    is_matrix: bool = False

    def __getitem__(self, column: str) -> Any:
        if column not in self.columns:
            raise KeyError(
                f"A column must be one of {', '.join(self.columns)}. Received: {column!r}."
            )
        return np.array(self.columns[column], np.float64)

    def __repr__(self) -> str:
        shown = [f"{self.index_name}={short(self.index)}"]
        for name, numbers in list(self.columns.items())[:SHOWN]:
            shown.append(f"{name}={short(tuple(float(f'{one:.3g}') for one in numbers[:SHOWN]))}")
            shown[-1] = shown[-1].replace(")", ", …)") if len(numbers) > SHOWN else shown[-1]
        if len(self.columns) > SHOWN:
            shown.append(f"… {len(self.columns)} columns")
        return f"DepthTable({self.title!r}, {', '.join(shown)})"

    def __str__(self) -> str:
        header, rows = self.cells()
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = [
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [header, *rows]
        ]
        return "\n".join([self.title, *lines, *self._origin()])

    def _origin(self) -> list[str]:
        return [f"{name}: {value}" for name, value in self.about.items()]

    def _as_table(self) -> Table:
        return Table(self.title, *self.cells(), "\n".join(self._origin()))

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Give the table as texts, as it is shown.

        Returns:
            Tuple: names of columns, and a list of texts per row.
        """
        header = [self.index_name, *self.columns]
        return header, [[str(name), *map(shown_number, row)] for name, row in self.rows()]

    def rows(self) -> list[tuple[Any, tuple[float, ...]]]:
        """Give the table row by row.

        Returns:
            List of tuples: what the row is called, and its numbers.
        """
        numbers = zip(*self.columns.values(), strict=True) if self.columns else ()
        return list(zip(self.index, map(tuple, numbers), strict=True))

    def to_csv(self, path: Any) -> None:
        """Write the numbers, a row each, with a header; what they come from stays behind.

        Args:
            path: str or path of the file.
        """
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([self.index_name, *self.columns])
            for name, numbers in self.rows():
                writer.writerow([name, *("" if math.isnan(one) else repr(one) for one in numbers)])

    def plot(self, path: Any = None, subject: str | None = None) -> Any:
        """Draw the table.

        Args:
            path: str or path of the picture; its ending says the format. `None` writes none.
                Defaults to `None`.
            subject: str. Data set and model for the title, as in `"digits, ResNet-26"`. `None`
                is the model's name. Defaults to `None`.

        Returns:
            `matplotlib.figure.Figure`.

        Raises:
            ImportError: matplotlib, the extra `[plot]`, is missing.
        """
        return drawn_table(self, subject or self.about.get("model"), path)


def shown_number(value: float) -> str:
    """Give a number as tables show it."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1e5:
        return f"{value:.4f}" if size < 1e3 else f"{value:.1f}"
    return f"{value:.2e}"


def column(values: Any) -> tuple[float, ...]:
    """Give numbers as a column; `None` is NaN."""
    return tuple(float("nan") if value is None else float(value) for value in values)
