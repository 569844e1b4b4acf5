"""What shows how far counting and measuring have come."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_trgl.checks import check_choice

QUIET_SECONDS = 2.0
"""With `verbose="auto"` what is done by then shows nothing."""


class Progress:
    """A bar of Keras's that begins once work has taken a while.

    Args:
        total: int ≥ 1, steps of the work.
        verbose: 0, 1, 2 or `"auto"`, as in Keras; with 2 the end alone is shown.
        clock: function that gives seconds. Defaults to `time.perf_counter`.
    """

    def __init__(
        self, total: int, verbose: Any, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        check_choice("verbose", verbose, (0, 1, 2, "auto"))
        self._total, self._verbose = total, verbose
        self._clock, self._began = clock, clock()
        self._done = 0
        self._bar: Any = None

    def __call__(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self._done += steps
        slow = self._clock() - self._began > QUIET_SECONDS
        if self._verbose == 0 or (self._verbose == "auto" and not slow):
            return
        if self._bar is None:
            shown = 1 if self._verbose == "auto" else self._verbose
            self._bar = keras.utils.Progbar(self._total, verbose=shown, unit_name="kind")
        self._bar.update(self._done, finalize=self._done >= self._total)

    def of(self, items: Iterable[Any]) -> Iterable[Any]:
        """Give items, each counted when the next is asked for."""
        for item in items:
            yield item
            self()
