"""Tables as notebooks and pages show them: HTML that needs nothing beside it."""

import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Table(NamedTuple):
    """What a table shows; all of it is escaped.

    Attributes:
        title: str, above it.
        header: sequence, names of columns.
        rows: iterable of sequences, a cell per column; the first names the row.
        notes: str, below it, lines apart. Defaults to `""`.
    """

    title: str
    header: Sequence[Any]
    rows: Iterable[Sequence[Any]]
    notes: str = ""


class InNotebooks:
    """Base of what a notebook shows as a table. A member fills in `_as_table`."""

    def _as_table(self) -> Table | None:
        """Give the table, or `None` where there is nothing to show yet."""
        raise NotImplementedError

    def _repr_html_(self) -> str | None:
        """Give what a notebook shows; of `None` it shows `repr`."""
        table = self._as_table()
        if table is None:
            return None
        notes = "<br>".join(html.escape(line) for line in table.notes.splitlines())
        return (
            f"<div><p><b>{html.escape(table.title)}</b></p>\n"
            f"{html_table(table.header, table.rows)}\n"
            f"<p>{notes}</p></div>"
        )


def html_table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Give a table as HTML, its cells escaped.

    Args:
        header: sequence, names of columns.
        rows: iterable of sequences, a cell per column; the first names the row.
    """
    names = "".join(f'<th scope="col">{_escaped(one)}</th>' for one in header)
    lines = "\n".join(
        f'<tr><th scope="row">{_escaped(name)}</th>'
        + "".join(f"<td>{_escaped(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return f"<table><thead><tr>{names}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>"


def _escaped(cell: Any) -> str:
    return html.escape(str(cell))
