"""One decorator registers a class for saving and records its public name."""

from typing import TypeVar

import keras

T = TypeVar("T")

PACKAGE = "keras_trgl"

PUBLIC: dict[str, object] = {}
"""Every object marked `@public`, by `module.name`; a test holds it against the docs."""


def public(target: T) -> T:
    """Mark a class or function as public; register a class for saving.

    Args:
        target: class or function. A class with `get_config` is registered as
            `keras_trgl>ClassName`, so that a `.keras` file finds it by that name alone.

    Returns:
        The same object.
    """
    name = getattr(target, "__name__", "")
    PUBLIC[f"{getattr(target, '__module__', '')}.{name}"] = target
    if isinstance(target, type) and hasattr(target, "get_config"):
        keras.saving.register_keras_serializable(package=PACKAGE)(target)
    return target
