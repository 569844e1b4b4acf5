"""Markdown tables, and their places between marks of a page."""

import re
import sys


def rows(header, body):
    """Give a Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_tables(path, tables):
    """Write tables between their marks, `<!-- table: NAME -->` and `<!-- end -->`, in a page."""
    page = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        mark = rf"(<!-- table: {name} -->\n)(?:(?!<!--).)*(<!-- end -->)"
        page, found = re.subn(mark, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page, flags=re.DOTALL)
        if found != 1:
            sys.exit(f"{path} must have one place for the table {name}. Received: {found}.")
    path.write_text(page, encoding="utf-8")
