"""Training that survives being killed at any moment."""

from pathlib import Path
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.keeping.resume import (
    SavedState,
    random_numbers,
    read_state,
    remove_leftovers,
    restore_random,
    restore_variables,
    write_state,
)
from keras_trgl.recording import shown, told
from keras_trgl.registration import public

NUMBERS = (bool, int, float, type(None))


@public
class BackupAndRestore(keras.callbacks.Callback):
    """Saves all that training needs to go on bit for bit, and goes on from it in `fit`.

    One file holds weights, optimizers, multipliers, stores of the buffered regime, the place in
    the regime (stage, lap, epoch, step), dropout seeds, Python's and NumPy's random state, the
    place in the data, the history, and the plain numbers of the other callbacks (patience of
    `EarlyStopping` and the like). It is written aside and renamed: whole or absent. A feature
    cache is not saved but computed again, to the same numbers. `fit` calls it after all other
    callbacks.

    Exact for arrays, `BatchStream` and `PyDataset`, and for a `tf.data.Dataset` whose iterator
    can be checkpointed (no Python function or unseeded random operation in it) and that is made
    with the seeds it had; for other data
    `fit` warns at the start, and goes on from the epoch's first batches. Bits repeat on the same
    machine, with as many threads.

    Args:
        backup_dir: str or path. Folder of the file `backup.npz`; made if missing.
        save_freq: `"epoch"`, or int ≥ 1: save at the end of every epoch, or every so many
            batches. Defaults to `"epoch"`.
        delete_checkpoint: bool. Whether the file goes when training ends. Defaults to `True`.

    Attributes:
        restored_step: int or `None`. Batches of the whole run that the restored state had done.
        steps_done: int. Batches of the whole run that are done.

    Raises:
        ValueError: `save_freq` is neither; in `fit`, a damaged file, or one of another model.

    Example:
        >>> import keras_trgl as trgl
        >>> trgl.callbacks.BackupAndRestore("backup", save_freq=100).path.name
        'backup.npz'
    """

    def __init__(
        self, backup_dir: Any, save_freq: Any = "epoch", delete_checkpoint: bool = True
    ) -> None:
        super().__init__()
        if save_freq != "epoch":
            if isinstance(save_freq, str):
                raise ValueError(
                    f"`save_freq` must be 'epoch' or an integer. Received: save_freq={save_freq!r}."
                )
            check_integer("save_freq", save_freq, 1)
        self.path = Path(backup_dir) / "backup.npz"
        self.save_freq = save_freq
        self.delete_checkpoint = bool(delete_checkpoint)
        self.restored_step: int | None = None
        self._state: SavedState | None = None
        self._is_restored = False
        self._saved_at = 0
        self._others: list[Any] = []

    def __repr__(self) -> str:
        return shown(self, backup_dir=str(self.path.parent), **told(self))

    def open(self, others: list[Any]) -> tuple[int, int] | None:
        """Read the file, if there is one.

        Args:
            others: list of the other callbacks of this `fit`.

        Returns:
            Tuple of two ints ≥ 0, the epoch and the step of it to go on from; `None` without a
            file.

        Raises:
            ValueError: the file is damaged.
        """
        self._others = others
        self._state, self._is_restored, self.restored_step = None, False, None
        self._saved_at = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        if not self.path.exists():
            return None
        self._state = read_state(self.path)
        run = self._state.numbers["run"]
        return run["epoch"], run["step"]

    @property
    def steps_done(self) -> int:
        """Batches of the whole run that are done; 0 outside `fit`."""
        run = getattr(self.model, "training_run", None)
        return 0 if run is None else int(run.steps_done)

    def restore(self) -> int:
        """Restore all but the history, and give the step of the epoch to go on from.

        Returns:
            int ≥ 0. Batches of that epoch that are done.

        Raises:
            ValueError: the file is of another model, optimizer or regime.
        """
        if self._state is None:
            return 0
        numbers, run = self._state.numbers, self.model.training_run
        restore_variables(self.model.state_variables(), self._state, self.path)
        run.set_state(numbers["run"])
        run.feed.restore_files(self._state.files)
        restore_random(numbers["random"])
        self.restored_step = self._saved_at = run.steps_done
        self._is_restored = True
        step = int(numbers["run"]["step"])
        if step == 0:
            # Saved at the end of the epoch before, whose means these are.
            self.model.reset_metrics()
        return step

    def on_train_begin(self, logs: Any = None) -> None:
        """Restore at once, if all epochs were done: none will begin."""
        if self._state and self._state.numbers["run"]["epoch"] >= self.params["epochs"]:
            self.restore()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Put back what the other callbacks had, now that they have begun."""
        self._put_back()

    def _put_back(self) -> None:
        """Put the history and the other callbacks' numbers back, once."""
        if self._state is None or not self._is_restored:
            return
        numbers, self._state = self._state.numbers, None
        history = self.model.history
        history.history.update(numbers["history"])
        history.epoch[:0] = numbers["epochs"]
        for callback, (name, held) in zip(self._others, numbers["callbacks"], strict=False):
            if type(callback).__name__ == name:
                known = vars(callback)
                known.update({key: value for key, value in held.items() if key in known})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save, if it is time."""
        if self.save_freq == "epoch":
            return
        if self.steps_done // self.save_freq > self._saved_at // self.save_freq:
            self._save(self.model.training_run.get_state())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save, if it is time."""
        if self.save_freq == "epoch":
            place = {**self.model.training_run.get_state(), "epoch": epoch + 1, "step": 0}
            self._save(place, epoch, logs or {})

    def on_train_end(self, logs: Any = None) -> None:
        """Delete the file of a run that is over."""
        self._put_back()
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)

    def _save(self, place: dict[str, Any], epoch: int | None = None, logs: Any = None) -> None:
        self.model.drain()
        history = self.model.history
        # This epoch's row comes later: the history is the last of the callbacks.
        ended = [] if epoch is None or epoch in history.epoch else [epoch]
        rows = {name: list(values) for name, values in history.history.items()}
        for name, value in (logs or {}).items() if ended else ():
            rows.setdefault(name, []).append(value)
        numbers = {
            "run": place,
            "random": random_numbers(),
            "history": rows,
            "epochs": [*history.epoch, *ended],
            "callbacks": [
                (type(one).__name__, {k: v for k, v in vars(one).items() if _is_number(k, v)})
                for one in self._others
            ],
        }
        files = self.model.training_run.feed.files()
        write_state(self.path, self.model.state_variables(), numbers, files)
        self._saved_at = place["steps_done"]


def _is_number(name: str, value: Any) -> bool:
    """Tell whether an attribute of a callback is a number that it may count with."""
    return not name.startswith("_") and isinstance(value, NUMBERS)
