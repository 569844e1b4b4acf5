"""Callbacks as `fit` takes them: one, several, a `CallbackList`, or none."""

import functools
from collections.abc import Callable
from typing import Any

import keras


def listed(callbacks: Any) -> list[Any]:
    """Give the callbacks as a list."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def only_one(callbacks: Any, kind: type) -> Any:
    """Give the callback of a kind, or `None`.

    Raises:
        ValueError: there are several.
    """
    found = [one for one in listed(callbacks) if isinstance(one, kind)]
    if len(found) > 1:
        raise ValueError(
            f"`callbacks` may hold one {kind.__name__}. Received: {len(found)} of them."
        )
    return found[0] if found else None


def has(callbacks: Any, kind: type) -> bool:
    """Tell whether there is a callback of a kind."""
    return any(isinstance(one, kind) for one in listed(callbacks))


def releases_backup(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Let `fit` give back the folder of the backup that it opened, however it ends."""

    @functools.wraps(fit)
    def released(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return fit(self, *args, **kwargs)
        finally:
            backup, self.open_backup = getattr(self, "open_backup", None), None
            if backup is not None:
                backup.close()

    return released
