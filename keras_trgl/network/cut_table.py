"""The table of a model's cuts: what each stage holds, and what crosses after it."""

from typing import Any, NamedTuple

from keras_trgl.html_table import InNotebooks, Table
from keras_trgl.types import Shape


class CutRow(NamedTuple):
    """One stage of a model that was cut.

    Attributes:
        depth: int. k, counted from 1.
        first: str. Its first layer.
        last: str. Its last layer.
        crosses: tuple of (name, shape, type) of the tensors that cross after it, the one that
            heads read first.
        residuals: int. Residuals whose energy counts.
        parameters: int.
        bytes: int. Of what crosses, per example; `None` where an axis has no fixed size.
    """

    depth: int
    first: str
    last: str
    crosses: tuple[tuple[str, Shape, str], ...]
    residuals: int
    parameters: int
    bytes: int | None


class CutTable(list[CutRow], InNotebooks):
    """Rows, one per stage, that print as a table."""

    def _as_table(self) -> Table:
        return Table("Cuts", CutRow._fields, map(_cells, self))

    def __repr__(self) -> str:
        cells: list[tuple[str, ...]] = [CutRow._fields, *map(_cells, self)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(CutRow._fields))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join(lines)


def _cells(row: CutRow) -> tuple[str, ...]:
    crosses = ", ".join(f"{name} {tuple(shape[1:])} {dtype}" for name, shape, dtype in row.crosses)
    shown: tuple[Any, ...] = (row.depth, row.first, row.last, crosses, row.residuals)
    size = "" if row.bytes is None else f"{row.bytes:,}"
    return (*map(str, shown), f"{row.parameters:,}", size)
