"""Packages that only some exports need."""

import importlib
from typing import Any


def needed(module: str, extra: str, what: str) -> Any:
    """Import a module, or say which extra brings it.

    Args:
        module: str. The module's name.
        extra: str. The extra of this package that brings it.
        what: str. What needs it, as the beginning of a sentence.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs the package of `{module}`. Received: {error}. Install it with "
            f"`pip install keras-trgl[{extra}]`."
        ) from error
