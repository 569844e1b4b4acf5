"""When a stage has trained enough."""

from typing import Any

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.recording import Recorded
from keras_trgl.registration import public


@public
class StopStage(Recorded):
    """Ends a stage's training when it stops improving; the next stage goes on.

    Args:
        patience: int ≥ 1. Epochs in a row without improvement after which the stage stops.
        monitor: str. What to watch, by its name for one stage: `"loss"`, `"val_loss"`,
            `"val_accuracy"`; for stage k that is `stage_k_loss`, `val_stage_k_loss` and so on.
            Defaults to `"loss"`.
        mode: `"min"`, `"max"` or `"auto"`: the largest is best where the name says accuracy or
            AUC. Defaults to `"auto"`.
        min_delta: float ≥ 0. Least change that counts as an improvement, in the unit of what is
            watched. Defaults to `0.0`.
        restore_best: bool. Whether the stage gets back the weights of its visit's best epoch when
            the visit ends, before anything is trained on it; else they stay those of the last
            epoch. The best weights are kept beside the model, in main memory. Defaults to
            `False`.

    Every visit of a stage starts anew.

    Raises:
        ValueError: `patience` is below 1, `min_delta` below 0, `mode` another word.

    Example:
        >>> from keras_trgl.regimes import Sequential, StopStage
        >>> Sequential(epochs=50, stop=StopStage(patience=3, monitor="val_loss")).stop.key(2)
        'val_stage_2_loss'
    """

    def __init__(
        self,
        patience: int,
        monitor: str = "loss",
        mode: str = "auto",
        min_delta: float = 0.0,
        restore_best: bool = False,
    ) -> None:
        check_integer("patience", patience, 1)
        check_choice("mode", mode, ("auto", "min", "max"))
        if not isinstance(monitor, str) or "stage_" in monitor:
            raise ValueError(
                "`monitor` must be a name without a stage, such as 'loss' or 'val_accuracy'. "
                f"Received: monitor={monitor!r}. The stage in training is watched."
            )
        if not min_delta >= 0:
            raise ValueError(f"`min_delta` must be at least 0. Received: min_delta={min_delta}.")
        if not isinstance(restore_best, bool):
            raise TypeError(
                f"`restore_best` must be True or False. Received: restore_best={restore_best!r}."
            )
        self.patience = int(patience)
        self.monitor = monitor
        self.mode = mode
        self.min_delta = float(min_delta)
        self.restore_best = restore_best

    def key(self, depth: int) -> str:
        """Give the log's name of what is watched while stage k trains.

        Args:
            depth: int, k = 1…K.

        Returns:
            str, such as `"val_stage_2_loss"`.
        """
        name = self.monitor.removeprefix("val_")
        return f"{'val_' if name != self.monitor else ''}stage_{depth}_{name}"

    def improves(self, value: float, best: float | None) -> bool:
        """Tell whether a value is better than the best one by more than `min_delta`.

        Args:
            value: float, in the unit of what is watched; NaN is never better.
            best: float, likewise, or `None` for a visit's first epoch.

        Returns:
            bool.
        """
        if value != value:
            return False
        largest = any(word in self.monitor.lower() for word in ("acc", "auc"))
        up = self.mode == "max" or (self.mode == "auto" and largest)
        if best is None:
            return True
        return value - best > self.min_delta if up else best - value > self.min_delta

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            "patience": self.patience,
            "monitor": self.monitor,
            "mode": self.mode,
            "min_delta": self.min_delta,
            "restore_best": self.restore_best,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "StopStage":
        """Make the rule from `get_config`'s result."""
        return cls(**config)
