"""Tells the model where its run stands; `fit` puts it before all other callbacks."""

from typing import Any

import keras


class RunEvents(keras.callbacks.Callback):
    """Begins and ends epochs of the model's `training_run`.

    Args:
        backup: `BackupAndRestore` to go on from before the first epoch, or `None`.
    """

    def __init__(self, backup: Any = None) -> None:
        super().__init__()
        self._backup = backup

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go to the epoch, at first to the place that a backup tells."""
        backup, self._backup = self._backup, None
        step = 0 if backup is None else backup.restore()
        self.model.training_run.begin_epoch(epoch, step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add stage, lap and epoch to the logs, and stop after the regime's last epoch."""
        self.model.training_run.end_epoch(epoch, logs)
        if self.model.training_run.is_over:
            self.model.stop_training = True
