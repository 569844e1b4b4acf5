"""Where a run stands in its regime: which visit, which epoch of it, when it is over."""

import dataclasses
from typing import Any

from keras_trgl.regimes.regime import Regime, Visit


@dataclasses.dataclass(frozen=True)
class Position:
    """What one epoch of a run does.

    Attributes:
        plan: positions, from 0, of the stages that step.
        lap: int ≥ 1.
        epoch: int ≥ 1. Epoch of the visit.
        visits: bool. Whether the regime has visits: in a regime without them every epoch is
            alike, and the whole run is one visit.
    """

    plan: tuple[int, ...]
    lap: int
    epoch: int
    visits: bool

    @property
    def begins_visit(self) -> bool:
        """Whether it is the first epoch of its visit."""
        return self.epoch == 1

    @property
    def logs(self) -> dict[str, int]:
        """What the logs of the epoch say of it; nothing without visits."""
        if not self.visits:
            return {}
        return {"stage": max(self.plan) + 1, "lap": self.lap, "stage_epoch": self.epoch}


def check_plan(plan: Any, num_stages: int, regime: Any) -> None:
    """Raise unless a plan names stages that there are, by their positions from 0.

    Raises:
        ValueError: it does not.
    """
    is_right = isinstance(plan, (list, tuple)) and bool(plan)
    if not is_right or not all(k in range(num_stages) for k in plan):
        raise ValueError(
            f"`plan` must give positions of stages as a tuple, 0 to {num_stages - 1}, at least "
            f"one. Received: {plan!r} from {type(regime).__name__}. Stage 1 is position 0."
        )


class Timetable:
    """The visits of one run, with what stopping early left out.

    Args:
        regime: `Regime`.
        num_stages: int ≥ 1. Stages there are.

    Attributes:
        improved: bool. Whether the last epoch that ended is its visit's best so far, by the
            regime's `stop`.
    """

    def __init__(self, regime: Regime, num_stages: int) -> None:
        self._regime = regime
        self._num_stages = num_stages
        self._visits = regime.visits(num_stages)
        self._skipped = 0
        self._best: float | None = None
        self._wait = 0
        self.improved = False

    @property
    def total_epochs(self) -> int | None:
        """Epochs of all visits, or `None` without visits."""
        return sum(visit.epochs for visit in self._visits) if self._visits else None

    def check_epochs(self, epochs: int | None) -> int:
        """Give the epochs that the run may take.

        Args:
            epochs: int, as given to `fit`, or `None`.

        Raises:
            ValueError: more than the regime's total.
        """
        total = self.total_epochs
        if total is None:
            return 1 if epochs is None else epochs
        if epochs is not None and epochs > total:
            counts = " + ".join(str(visit.epochs) for visit in self._visits)
            raise ValueError(
                f"`epochs` must be at most the sum of the stages' epochs, {total} = {counts}. "
                f"Received: epochs={epochs}. Leave it out, or change the regime's `epochs`."
            )
        return total if epochs is None else epochs

    def position(self, epoch: int) -> Position:
        """Give what an epoch, counted from 0 over the whole run, does."""
        if not self._visits:
            plan = self._regime.plan(self._num_stages, epoch)
            check_plan(plan, self._num_stages, self._regime)
            return Position(plan, 1, epoch + 1, False)
        visit, left = self._locate(epoch)
        return Position(visit.plan, visit.lap, left + 1, True)

    def _locate(self, epoch: int) -> tuple[Visit, int]:
        """Give the visit of an epoch, and the visit's epochs before it; past the end the last."""
        left = epoch + self._skipped
        for visit in self._visits:
            if left < visit.epochs:
                break
            left -= visit.epochs
        return visit, left

    def end_epoch(self, epoch: int, logs: dict[str, Any]) -> bool:
        """Take the logs of an epoch that ended, and tell whether the run is over.

        Raises:
            ValueError: the logs lack what the regime's `stop` watches.
        """
        if not self._visits:
            return False
        rule, (visit, left) = self._regime.stop, self._locate(epoch)
        self.improved = False
        # A visit starts anew, also a later lap of the same stage.
        if left == 0:
            self._best, self._wait = None, 0
        last = left + 1 == visit.epochs
        key = "" if rule is None else rule.key(max(visit.plan) + 1)
        if rule is not None and (rule.restore_best or not last) and self._is_watched(key, logs):
            value = float(logs[key])
            if rule.improves(value, self._best):
                self._best, self._wait, self.improved = value, 0, True
            else:
                self._wait += 1
            if self._wait >= rule.patience:
                self.end_visit(epoch)
        return self.is_over(epoch)

    @property
    def has_best(self) -> bool:
        """Whether an epoch of the visit had a number that the regime's `stop` could rank."""
        return self._best is not None

    def end_visit(self, epoch: int) -> None:
        """Let this epoch be the last of its visit."""
        visit, left = self._locate(epoch)
        # Keras's epochs count on without a gap: later visits come earlier by what is left out.
        self._skipped += visit.epochs - left - 1

    def ends_visit(self, epoch: int) -> bool:
        """Tell whether an epoch is the last of its visit; never where there are no visits."""
        if not self._visits:
            return False
        visit, left = self._locate(epoch)
        return left + 1 == visit.epochs

    def is_over(self, epoch: int) -> bool:
        """Tell whether an epoch is the last of the last visit."""
        total = self.total_epochs
        return total is not None and epoch + self._skipped + 1 >= total

    def _is_watched(self, key: str, logs: dict[str, Any]) -> bool:
        """Tell whether the logs have `key`; an epoch without validation may lack it."""
        if key not in logs and (not key.startswith("val_") or any("val_" in one for one in logs)):
            raise ValueError(
                f"`StopStage` watches {self._regime.stop.monitor!r}, so the logs must have "
                f"{key!r}. Received: {', '.join(sorted(logs))}. Watch one of these names, without "
                "its stage."
            )
        return key in logs

    def get_state(self) -> dict[str, Any]:
        """Give what has to be kept to go on, as plain numbers."""
        return {"skipped": self._skipped, "best": self._best, "wait": self._wait}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state`'s result."""
        self._skipped, self._best, self._wait = state["skipped"], state["best"], state["wait"]
