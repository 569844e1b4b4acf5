"""The callbacks as Keras's loop calls them: what was done before a restart is not told again."""

from collections.abc import Iterator
from typing import Any

import keras

from keras_trgl.callbacks.in_turn import in_turn
from keras_trgl.callbacks.monitors import infer_modes, stage_rates
from keras_trgl.callbacks.visit_end import PlaceInLogs, VisitEnd
from keras_trgl.training.given_callbacks import has, listed


class _SilentBar(keras.callbacks.ProgbarLogger):  # type: ignore[misc]
    """Keeps Keras from adding a second progress bar."""

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        """Leave it to the bar there is."""

    set_params = on_train_begin = on_test_begin = on_predict_begin = on_epoch_begin = _nothing
    on_train_batch_end = on_test_batch_end = on_predict_batch_end = on_epoch_end = _nothing
    on_test_end = on_predict_end = _nothing


class _SameHistory(keras.callbacks.History):  # type: ignore[misc]
    """Shows what another `History` records, and records nothing itself."""

    def __init__(self, recorded: Any) -> None:
        super().__init__()
        self._recorded = recorded
        self.history = recorded.history

    def on_train_begin(self, logs: Any = None) -> None:
        """Leave it to the other."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show what the other has."""
        self.history, self.epoch = self._recorded.history, self._recorded.epoch
        self.model.history = self._recorded


class GatedCallbacks(keras.callbacks.CallbackList):
    """Tells the run where it stands, then the callbacks, of what is done in this process.

    A run that goes on within an epoch passes through the epoch's first batches, as Keras's loop
    counts them: callbacks hear of the others alone. They hear of the epoch's begin, in which they
    make what they need, such as a progress bar; it acts on the state that this process began
    with, and the backup is put over it, so that a rate that is halved there is not halved twice.

    Args:
        model: the model.
        callbacks: what `fit` was given, with a progress bar.
        backup: `BackupAndRestore`, which comes last as it keeps what the others count, or `None`.
        **params: what callbacks are told of the run: `epochs`, `steps`, `verbose`.
    """

    def __init__(self, model: Any, callbacks: Any, backup: Any, **params: Any) -> None:
        # A list of a user's own class stays one: it may do more than call its members.
        whole = isinstance(callbacks, keras.callbacks.CallbackList)
        whole = whole and type(callbacks) is not keras.callbacks.CallbackList
        inner = [callbacks] if whole else [one for one in listed(callbacks) if one is not backup]
        self._given = listed(callbacks)
        if model.training_run.timetable.total_epochs is not None:
            inner = in_turn(inner)
        # What adds to the logs comes before what reads them, wherever the user put it.
        inner.sort(key=lambda one: not getattr(one, "adds_to_logs", False))
        self._visit_end = VisitEnd(inner)
        inner = [PlaceInLogs(), *inner, self._visit_end]
        if not has(callbacks, keras.callbacks.History):
            inner.append(keras.callbacks.History())
        if backup is not None and not (whole and backup in listed(callbacks)):
            inner.append(backup)
        self._backup = backup
        self._passes = False
        self._told: Any = None
        super().__init__(inner, add_history=True, model=model, **params)

    def __iter__(self) -> Iterator[Any]:
        """Give what stands for this list in a list that a tool makes of it for Keras."""
        return iter([self, _SameHistory(self._history), _SilentBar()])

    def append(self, callback: Any) -> None:
        """Take one more callback, before the backup, which comes last.

        Args:
            callback: `keras.callbacks.Callback`.
        """
        callback.set_model(self.model)
        callback.set_params(self.params)
        at = self.callbacks.index(self._backup) if self._backup in self.callbacks else None
        self.callbacks.insert(len(self.callbacks) if at is None else at, callback)

    def set_model(self, model: Any) -> None:
        """Tell the callbacks their model, once."""
        if self._told is not model:
            self._told = model
            super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Check the backup before anything is changed, then let callbacks begin."""
        if self._backup is not None:
            self._backup.check()
        infer_modes(self._given, self.model.training_run.stage_steps)
        super().on_train_begin(logs)
        if self._backup is not None:
            self._backup.begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go to the epoch, at first to the place that a backup tells."""
        run, backup = self.model.training_run, self._backup
        step = 0 if backup is None else backup.step_of_epoch
        if step:
            backup.restore_place()
            run.stand_at(epoch, step)
            super().on_epoch_begin(epoch, logs)
            backup.restore()
        elif backup is not None:
            backup.restore()
            # What was saved are the means of the epoch before.
            self.model.reset_metrics()
        run.begin_epoch(epoch, step)
        if not step:
            super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Tell of a batch that is to be trained on."""
        self._passes = self.model.training_run.passes_by
        if not self._passes:
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell of a batch that was trained on."""
        if not self._passes:
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add stage, lap, epoch and rates to the logs, and stop after the regime's last epoch."""
        run, optimizers = self.model.training_run, self.model.optimizer.optimizers
        # Some metrics are made by the first step.
        infer_modes(self._given, run.stage_steps)
        self._visit_end.rates = stage_rates(self._given, optimizers, max(run.position.plan))
        logs.update(self._visit_end.rates)
        run.end_epoch(epoch, logs)
        if run.is_over:
            self.model.stop_training = True
        super().on_epoch_end(epoch, logs)
