"""Tells the model where its run stands; `fit` puts one before all other callbacks, one after."""

from typing import Any

import keras

from keras_trgl.callbacks.in_turn import InTurnCallback
from keras_trgl.callbacks.monitors import infer_modes, stage_rates


class RunEvents(keras.callbacks.Callback):
    """Begins and ends epochs of the model's `training_run`.

    Args:
        backup: `BackupAndRestore` to go on from before the first epoch, or `None`.
        others: list of the user's callbacks.

    Attributes:
        rates: dict of the last epoch's learning rates, by their names in the logs.
    """

    def __init__(self, backup: Any = None, others: Any = ()) -> None:
        super().__init__()
        self._backup = backup
        self._others = list(others)
        self.rates: dict[str, float] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Say what is best of the stages' numbers that are watched."""
        infer_modes(self._others, self.model.training_run.stage_steps)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go to the epoch, at first to the place that a backup tells."""
        backup, self._backup = self._backup, None
        step = 0 if backup is None else backup.restore()
        self.model.training_run.begin_epoch(epoch, step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add stage, lap, epoch and rates to the logs, and stop after the regime's last epoch."""
        # Some metrics are made by the first step.
        infer_modes(self._others, self.model.training_run.stage_steps)
        run, optimizers = self.model.training_run, self.model.optimizer.optimizers
        self.rates = stage_rates(self._others, optimizers, max(run.position.plan))
        logs.update(self.rates)
        run.end_epoch(epoch, logs)
        if run.is_over:
            self.model.stop_training = True


class VisitEnd(keras.callbacks.Callback):
    """Settles a stage when its visit ends, before anything is trained on it.

    It comes after the user's callbacks, which may have ended the visit, and before a backup.

    Args:
        events: the `RunEvents` of this call.
        others: list of the callbacks in between.
    """

    def __init__(self, events: RunEvents, others: Any) -> None:
        super().__init__()
        self._events = events
        self._kept = [one for one in others if isinstance(one, InTurnCallback)]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Settle averages, put back best weights, and let callbacks begin anew with the next."""
        run = self.model.training_run
        # An optimizer may have the name of another stage, by which Keras logs its rate.
        logs.update(self._events.rates)
        if not run.ends_visit(epoch):
            return
        run.settle()
        if run.is_over:
            # Keras ends its callbacks itself, after the last epoch.
            self.model.stop_training = True
            return
        for one in self._kept:
            one.end_visit()
