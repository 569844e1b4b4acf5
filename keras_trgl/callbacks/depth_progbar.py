"""A progress bar that stays short however many stages there are."""

import math
import re
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from keras_trgl.callbacks.monitors import trained_depths
from keras_trgl.recording import shown
from keras_trgl.registration import public

COUNTS = {
    *("stage", "lap", "stage_epoch", "best_depth", "iterations", "visits", "staleness"),
    *("true_positives", "true_negatives", "false_positives", "false_negatives"),
}
"""What the logs count by these names, where Keras has made floats of the numbers."""


@public
class DepthProgbar(keras.callbacks.ProgbarLogger):
    """Shows the last depth's results and the best depth so far; logs keep every stage.

    `fit` and `evaluate` use it when no other progress bar is given. `best_depth` is the depth
    with the best first metric (loss, without one) on the validation data where there are any,
    else on the training data so far. Where stages train in turn, `stage` is the one that trains,
    and `lap` the lap, if there are several. Whole numbers that count something are shown as such:
    integers in the logs, and the entries of `COUNTS`.

    Example:
        >>> from keras_trgl.callbacks import DepthProgbar
        >>> DepthProgbar.shorten({"loss": 0.5, "stage_1_loss": 0.75, "stage_2_loss": 0.5})
        {'loss': 0.5, 'best_depth': 2}
    """

    async_safe = True
    """It only prints, so Keras may call it beside the next step."""

    def __init__(self) -> None:
        super().__init__()
        self._place: dict[str, int] = {}
        self._trained: set[int] | None = None

    def __repr__(self) -> str:
        return shown(self)

    @staticmethod
    def shorten(
        logs: dict[str, Any] | None, trained: Collection[int] | None = None
    ) -> dict[str, Any]:
        """Give the logs without the stages' own entries, with the best depth.

        Args:
            logs: dict of names to numbers, as Keras hands them to callbacks.
            trained: list of ints ≥ 1, the depths that were trained, which alone are ranked; `None`
                is all of them. Defaults to `None`.

        Returns:
            dict.
        """
        logs = dict(logs or {})
        short = {key: value for key, value in logs.items() if "stage_" not in key}
        prefix = "val_" if any(key.startswith("val_stage_") for key in logs) else ""
        last = [key.removeprefix(prefix) for key in short if key.startswith(prefix)]
        # Logs do not say how many stages there are, and not every stage predicts.
        named = [re.fullmatch(rf"{prefix}stage_(\d+)_(.+)", key) for key in logs]
        entries = [(int(one[1]), one[2], one[0]) for one in named if one]
        staged = {entry for _, entry, _ in entries}
        metrics = [key for key in last if key != "loss" and key in staged]
        name = metrics[0] if metrics else "loss"
        depths = {depth: float(logs[key]) for depth, entry, key in entries if entry == name}
        # Depths that did not train have no number.
        known = [
            depth
            for depth, value in depths.items()
            if not math.isnan(value) and (trained is None or depth in trained)
        ]
        if len(known) > 1:
            pick = max if "accuracy" in name or "auc" in name.lower() else min
            short["best_depth"] = pick(known, key=lambda depth: depths[depth])
        return short

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note which stage trains: read here, as batches are shown beside the next step."""
        run = getattr(self.model, "training_run", None)
        self._place = {} if run is None else dict(run.position.logs)
        self._place.pop("stage_epoch", None)
        if run is not None and getattr(self.model.regime, "laps", 1) == 1:
            self._place.pop("lap", None)
        self._trained = trained_depths(self.model)
        super().on_epoch_begin(epoch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        """Note which depths were trained."""
        self._trained = trained_depths(self.model)
        super().on_test_begin(logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show the short logs; called once per `steps_per_execution` batches."""
        super().on_train_batch_end(batch, self._with_place(logs))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show the short logs; called once per `steps_per_execution` batches."""
        super().on_test_batch_end(batch, _shown(self.shorten(logs, self._trained)))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show the short logs of the epoch."""
        super().on_epoch_end(epoch, self._with_place(logs))

    def on_test_end(self, logs: Any = None) -> None:
        """Show the short logs of the evaluation."""
        super().on_test_end(_shown(self.shorten(logs, self._trained)))

    def _with_place(self, logs: dict[str, Any] | None) -> dict[str, Any]:
        """Give the short logs after the stage that trains."""
        short = self.shorten(logs, self._trained)
        rest = {k: v for k, v in short.items() if k not in ("stage", "lap")}
        return _shown(self._place | rest)


def _shown(logs: dict[str, Any]) -> dict[str, Any]:
    """Give the logs with counts that Keras's bar shows without decimals."""
    return {
        name: _Whole(value)
        if isinstance(value, (int, np.integer))
        or (name.removeprefix("val_") in COUNTS and float(value).is_integer())
        else value
        for name, value in logs.items()
    }


class _Whole(float):
    """A number that Keras's bar, which divides and formats all as floats, shows as an integer."""

    def __truediv__(self, other: Any) -> Any:
        return _Whole(super().__truediv__(other))

    def __format__(self, form: str) -> str:
        return f"{int(self):d}" if self.is_integer() else super().__format__(form)
