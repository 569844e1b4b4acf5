"""One HTML page that stands by itself: text, tables, and pictures inside it."""

import base64
import dataclasses
import html
import io
from typing import Any

from keras_trgl.html_table import html_table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; }
h2 { font-size: 1.25rem; margin-top: 2.2rem; border-top: 1px solid #ddd; padding-top: 1rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e5e5e5; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #888; }
figure { margin: .8rem 0; }
img { max-width: 100%; height: auto; }
pre { font: 12px/1.35 ui-monospace, monospace; background: #f6f6f6; padding: .8rem;
  overflow-x: auto; }
.wide { overflow-x: auto; }
.made { color: #666; font-size: .85rem; }
.how { background: #f3f7fb; border-left: 3px solid #1b6ca8; padding: .4rem .8rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
@media print { h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""
DPI = 110


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: str, one word, for links.
        title: str.
        shows: str. What it shows.
        how: str. How to read it.
        table: `DepthTable`, or `None`.
        figure: matplotlib figure, or `None`.
        text: str, shown as it is, or "".
        has_table: bool. Whether the numbers stand below the picture.
    """

    name: str
    title: str
    shows: str
    how: str = ""
    table: Any = None
    figure: Any = None
    text: str = ""
    has_table: bool = True


def page(title: str, lead: str, sections: list[Section]) -> str:
    """Give the page as HTML; all it shows is in it.

    Args:
        title: str.
        lead: str. What model and sample, in a sentence or two.
        sections: list of `Section`, in order.
    """
    links = "\n".join(f'<a href="#{one.name}">{html.escape(one.title)}</a>' for one in sections)
    body = "\n".join(map(_section, sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(lead)}</p>\n<nav>{links}</nav>\n"
        f"{body}\n</body>\n</html>\n"
    )


def _section(one: Section) -> str:
    parts = [f'<section id="{one.name}">', f"<h2>{html.escape(one.title)}</h2>"]
    parts.append(f"<p>{html.escape(one.shows)}</p>")
    if one.how:
        parts.append(f'<p class="how">{html.escape(one.how)}</p>')
    if one.text:
        parts.append(f"<pre>{html.escape(one.text)}</pre>")
    if one.figure is not None:
        parts.append(_picture(one.figure, one.title))
    if one.table is not None:
        if one.has_table:
            parts.append(_numbers(one.table))
        made = "; ".join(
            f"{name}: {value}" for name, value in one.table.about.items() if name != "axes"
        )
        parts.append(f'<p class="made">{html.escape(made)}</p>')
    return "\n".join([*parts, "</section>"])


def _picture(figure: Any, title: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    code = base64.b64encode(buffer.getvalue()).decode()
    alt = html.escape(f"Picture: {title}", quote=True)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{code}"></figure>'


def _numbers(table: Any) -> str:
    header, rows = table.cells()
    return f'<div class="wide">{html_table(header, rows)}</div>'
