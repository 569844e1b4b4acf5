"""What tells how far work has come: a bar, and lines beside Keras's own."""

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras
from absl import logging

from keras_trgl.checks import check_choice

QUIET_SECONDS = 2.0
"""With `verbose="auto"` what is done by then shows nothing."""


class Progress:
    """A bar of Keras's that begins once work has taken a while.

    Args:
        total: int ≥ 1, steps of the work.
        verbose: 0, 1, 2 or `"auto"`, as in Keras; with 2 the end alone is shown.
        unit: str. What a step is. Defaults to `"step"`.
        clock: function that gives seconds. Defaults to `time.perf_counter`.

    Attributes:
        total: int ≥ 1. May be set until the first step is counted.
    """

    def __init__(
        self,
        total: int,
        verbose: Any,
        unit: str = "step",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_choice("verbose", verbose, (0, 1, 2, "auto"))
        self.total, self._verbose = total, verbose
        self._clock, self._began = clock, clock()
        self._done = 0
        # Made now, as it takes times from its making on.
        shown = 1 if verbose == "auto" else verbose
        self._bar = keras.utils.Progbar(total, verbose=shown, unit_name=unit)

    def __call__(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self._done += steps
        slow = self._clock() - self._began > QUIET_SECONDS
        if self._verbose == 0 or (self._verbose == "auto" and not slow):
            return
        self._bar.target = self.total
        self._bar.update(self._done, finalize=self._done >= self.total)

    def of(self, items: Iterable[Any]) -> Iterable[Any]:
        """Give items, each counted when the next is asked for."""
        for item in items:
            yield item
            self()


def tell(text: str) -> None:
    """Show a line where Keras shows its bars: on the screen, or in the log.

    Args:
        text: str. Signs that the screen does not know are shown as `?`.
    """
    if keras.config.is_interactive_logging_enabled():
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(f"{text.encode(encoding, 'replace').decode(encoding)}\n")
    else:
        logging.info(text)
