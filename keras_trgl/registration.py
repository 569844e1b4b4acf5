"""One decorator registers a class for saving and records its public name."""

import sys
import types
from typing import TypeVar

import keras

T = TypeVar("T")

PACKAGE = "keras_trgl"

PUBLIC: dict[str, object] = {}
"""Every object marked `@public`, by `module.name`; a test holds it against the docs."""


class _Package(types.ModuleType):
    """A package whose `dir` has what it exports, and not the files that it is made of."""

    def __dir__(self) -> list[str]:
        return [
            name
            for name, value in vars(self).items()
            if name.startswith("__") or _is_exported(name, value)
        ]


def _is_exported(name: str, value: object) -> bool:
    """Tell whether users take a name from a package; inner packages export nothing."""
    if name.startswith("_"):
        return False
    if not isinstance(value, types.ModuleType):
        return True
    return hasattr(value, "__path__") and any(
        not isinstance(inner, types.ModuleType) and _is_exported(key, inner)
        for key, inner in vars(value).items()
    )


def public(target: T) -> T:
    """Mark a class or function as public; register a class for saving.

    Args:
        target: class or function. A class with `get_config` is registered as
            `keras_trgl>ClassName`, so that a `.keras` file finds it by that name alone.

    Returns:
        The same object.
    """
    name = getattr(target, "__name__", "")
    module = getattr(target, "__module__", "")
    PUBLIC[f"{module}.{name}"] = target
    package = sys.modules.get(module.rpartition(".")[0])
    if package is not None:
        # A package's `__init__` holds exports alone, so it gets its `dir` from here.
        package.__class__ = _Package
    if isinstance(target, type) and hasattr(target, "get_config"):
        keras.saving.register_keras_serializable(package=PACKAGE)(target)
    return target
