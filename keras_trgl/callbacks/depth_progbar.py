"""A progress bar that stays short however many stages there are."""

import math
import re
from collections.abc import Collection
from typing import Any

import keras

from keras_trgl.recording import shown
from keras_trgl.registration import public


@public
class DepthProgbar(keras.callbacks.ProgbarLogger):
    """Shows the last depth's results and the best depth so far; logs keep every stage.

    `fit` and `evaluate` use it when no other progress bar is given. `best_depth` is the depth
    with the best first metric (loss, without one) on the validation data where there are any,
    else on the training data so far. Where stages train in turn, `stage` is the one that trains,
    and `lap` the lap, if there are several.

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
        self._trained = self._depths_trained()
        super().on_epoch_begin(epoch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        """Note which depths were trained."""
        self._trained = self._depths_trained()
        super().on_test_begin(logs)

    def _depths_trained(self) -> set[int] | None:
        """Give the depths whose optimizer stepped, and those in training; `None` if none did."""
        run = getattr(self.model, "training_run", None)
        now = set() if run is None else {k + 1 for k in run.position.plan}
        optimizers = getattr(getattr(self.model, "optimizer", None), "optimizers", [])
        stepped = {k for k, one in enumerate(optimizers, start=1) if int(one.iterations) > 0}
        return stepped | now or None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show the short logs; called once per `steps_per_execution` batches."""
        super().on_train_batch_end(batch, self._with_place(logs))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Show the short logs; called once per `steps_per_execution` batches."""
        super().on_test_batch_end(batch, self.shorten(logs, self._trained))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show the short logs of the epoch."""
        super().on_epoch_end(epoch, self._with_place(logs))

    def on_test_end(self, logs: Any = None) -> None:
        """Show the short logs of the evaluation."""
        super().on_test_end(self.shorten(logs, self._trained))

    def _with_place(self, logs: dict[str, Any] | None) -> dict[str, Any]:
        """Give the short logs after the stage that trains."""
        short = self.shorten(logs, self._trained)
        return self._place | {k: v for k, v in short.items() if k not in ("stage", "lap")}
