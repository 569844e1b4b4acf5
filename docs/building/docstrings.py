"""Docstrings as the house writes them, for the parser of the site: `Example` and `Reference`."""

import re

import griffe

HEADING = re.compile(r"^Example:$", re.MULTILINE)
LITERAL = re.compile(r"::$", re.MULTILINE)


class HouseDocstrings(griffe.Extension):
    """Makes an `Example` a section of runnable code, and `::` a plain colon before code."""

    def on_object(self, *, obj, **kwargs):
        """Rewrite one docstring before it is parsed."""
        del kwargs
        if obj.docstring is not None:
            text = HEADING.sub("Examples:", obj.docstring.value)
            obj.docstring.value = LITERAL.sub(":", text)
