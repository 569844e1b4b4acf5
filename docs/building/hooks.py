"""What the site needs beside its theme: folders in the navigation, formulas without a script."""

import pathlib
import re

from latex2mathml.converter import convert

FOLDERS = ("gallery", "methods", "api", "benchmarks")
"""Whose pages stand in the navigation by name; a new page needs no line in mkdocs.yml."""

FORMULA = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_config(config):
    """Put every page of a folder into the navigation, `index.md` first."""
    root = pathlib.Path(config["docs_dir"])
    for entry in config["nav"]:
        for title, value in entry.items():
            if value in FOLDERS:
                pages = sorted(
                    (root / value).glob("*.md"), key=lambda one: (one.stem != "index", one)
                )
                # Of the API all names stand first, in a page beside the folder.
                first = [root / f"{value}.md"] if (root / f"{value}.md").exists() else []
                entry[title] = [page.relative_to(root).as_posix() for page in first + pages]
    return config


INCLUDE = re.compile(r"^<!-- include: (\S+) -->$", re.MULTILINE)
PICTURE = re.compile(r"\]\((?:\.\./)+docs/")


def included(config, found):
    """Give a text of the repository as a section of a page: a level deeper, links from there."""
    root = pathlib.Path(config["docs_dir"]).parent
    text = (root / found[1]).read_text(encoding="utf-8")
    text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
    return PICTURE.sub("](../", text)


def on_page_markdown(markdown, config, **kwargs):
    """Fill in texts of the repository, and turn formulas into MathML, which needs no script."""
    del kwargs
    markdown = INCLUDE.sub(lambda found: included(config, found), markdown)

    def formula(found):
        lines = (convert(line, display="block") for line in found[1].splitlines() if line.strip())
        return "\n\n".join(f'<div class="formula">{line}</div>' for line in lines)

    return FORMULA.sub(formula, markdown)
