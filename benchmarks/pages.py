"""Markdown tables and their figures, and their places between marks of a page."""

import re
import sys


def rows(header, body):
    """Give a Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(values):
    """Give the mean and the half-width of the 95 % Student-t interval, in %."""
    import numpy as np
    from scipy import stats

    values = 100 * np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(half)


def write_tables(path, tables):
    """Write tables between their marks, `<!-- table: NAME -->` and `<!-- end -->`, in a page."""
    page = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        mark = rf"(<!-- table: {name} -->\n)(?:(?!<!--).)*(<!-- end -->)"
        page, found = re.subn(mark, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page, flags=re.DOTALL)
        if found != 1:
            sys.exit(f"{path} must have one place for the table {name}. Received: {found}.")
    path.write_text(page, encoding="utf-8")
