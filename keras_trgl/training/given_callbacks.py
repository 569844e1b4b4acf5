"""Callbacks as `fit` takes them: one, several, a `CallbackList`, or none."""

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


class GivenCallbacks:
    """The user's callbacks of one call, with those of the package that training knows of.

    Args:
        given: as `fit` takes them.
        kinds: the package's callbacks by what they do: `"backup"`, `"multiplier"`, `"gate"`,
            `"progbar"`. They stand above training, which therefore gets the classes.

    Attributes:
        given: as `fit` takes them.
        backup: the `BackupAndRestore` among them, or `None`.
        multiplier: the `MultiplierUpdate` among them, or `None`.

    Raises:
        ValueError: there are several of a kind that stands alone.
        TypeError: one is no callback.
    """

    def __init__(self, given: Any, kinds: dict[str, Any]) -> None:
        for one in listed(given):
            if not isinstance(one, keras.callbacks.Callback):
                what = f"the class {one.__name__}" if isinstance(one, type) else repr(one)
                raise TypeError(
                    "`callbacks` must be Keras callbacks, one or a list. Received: "
                    f"{what}. Give objects: `keras.callbacks.TerminateOnNaN()`."
                )
        self.given = given
        self.backup = only_one(given, kinds["backup"])
        self.multiplier = only_one(given, kinds["multiplier"])
        self._kinds = kinds

    def with_progbar(self, verbose: Any) -> list[Any]:
        """Give the callbacks with the package's progress bar, where one is to be shown."""
        given = listed(self.given)
        if has(given, keras.callbacks.ProgbarLogger) or not verbose:
            return given
        return [*given, self._kinds["progbar"]()]

    def all_for(self, model: Any, verbose: Any, epochs: int, steps: int | None) -> Any:
        """Give what Keras's `fit` gets: one list that tells callbacks what this process does.

        Args:
            model: the model.
            verbose: as in `fit`.
            epochs: int. Epoch that training ends before.
            steps: int, batches of an epoch, or `None` if only the data's end tells.
        """
        given = self.given
        if not isinstance(given, keras.callbacks.CallbackList):
            given = self.with_progbar(verbose)
        return self._kinds["gate"](
            model,
            given,
            self.backup,
            verbose=verbose,
            epochs=min(epochs, keras.config.max_epochs() or epochs),
            steps=steps,
        )
