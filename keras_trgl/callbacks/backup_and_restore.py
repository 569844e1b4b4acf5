"""Training that survives being killed at any moment."""

import warnings
from typing import Any

import keras

from keras_trgl.checks import check_integer, made_folder, path_of
from keras_trgl.feeding.data_identity import data_identity, global_random, has_state, warn_of_draws
from keras_trgl.keeping.callback_state import CallbackCounters, stops_by, tell_left_over
from keras_trgl.keeping.fingerprint import differences, fingerprint
from keras_trgl.keeping.folder_lock import FolderLock
from keras_trgl.keeping.resume import (
    SavedState,
    checked,
    damaged,
    random_numbers,
    read_state,
    remove_leftovers,
    restore_random,
    write_state,
)
from keras_trgl.keeping.saving import UNREADABLE
from keras_trgl.progress import tell
from keras_trgl.recording import shown, told
from keras_trgl.registration import public


@public
class BackupAndRestore(keras.callbacks.Callback):
    """Saves all that training needs to go on bit for bit, and goes on from it in `fit`.

    One file holds weights, optimizers, multipliers, stores of the buffered regime, the place in
    the regime (stage, lap, epoch, step), dropout seeds, Python's and NumPy's random state, the
    place in the data, the history, and what the other callbacks count (patience and best weights
    of `EarlyStopping` and the like, never settings). It is written aside and renamed: whole or
    absent. A feature cache is not saved but computed again, to the same numbers. `fit` calls it
    after all other callbacks.

    Callbacks are paired by class and what they monitor. A class of your own tells its state by
    `get_state()`, a dict, and `set_state(dict)`; without these, plain attributes (numbers, texts,
    arrays, lists and dicts of them) that have changed since `on_train_begin` are kept. A run
    that goes on within an epoch calls `on_epoch_begin` before it restores, so that it acts once.

    Where `fit` shows a progress bar, a line tells once where the run goes on: the epoch, from 1,
    and the batches of it that are done, as in `resumed at epoch 3, step 0`.

    A backup of another run is refused: method, regime, seed, optimizer, loss, layers, number and
    order of the data must be the same; `epochs` may be more. A seed that was drawn is restored.
    A run that `StopStage` or an `EarlyStopping` of the same settings has ended trains no more.

    Exact for arrays, `BatchStream` and `PyDataset` (one with hooks of its own has them called
    again), and for a `tf.data.Dataset` of which an epoch is a pass, made with the seeds it had,
    without Python functions or unseeded random operations, its shuffles outside `interleave` and
    the like; for other data `fit` warns at the start. An endless pipeline goes on from its place
    with other orders of later passes, others from the epoch's first batches. Bits repeat on the
    same machine, with as many threads.

    Args:
        backup_dir: str or path. Folder of the file `backup.npz`; made if missing. One run at a
            time may use it.
        save_freq: `"epoch"`, or int ≥ 1: save at the end of every epoch, or every so many
            batches and at the end of the last epoch. Defaults to `"epoch"`.
        delete_checkpoint: bool. Whether the file goes when training ends. Defaults to `True`.

    Attributes:
        restored_step: int or `None`. Batches of the whole run that the restored state had done.
        steps_done: int. Batches of the whole run that are done.

    Raises:
        ValueError: `save_freq` is neither; in `fit`, a damaged file, or one of another run.
        OSError: in `fit`, another run uses the folder, or a backup cannot be written.

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
        self.path = path_of("backup_dir", backup_dir) / "backup.npz"
        self.save_freq = save_freq
        self.delete_checkpoint = bool(delete_checkpoint)
        self.restored_step: int | None = None
        self._lock: FolderLock | None = None
        self._forget([])

    def __repr__(self) -> str:
        return shown(self, backup_dir=str(self.path.parent), **told(self))

    def _forget(self, others: list[Any]) -> None:
        self._counters = CallbackCounters(others)
        self._state: SavedState | None = None
        self._fingerprint: dict[str, Any] = {}
        self._random: Any = None
        self._source: Any = None
        self._saved_at: int | None = None
        self._is_cut_short = False
        self.restored_step = None

    def open(self, model: Any, callbacks: list[Any]) -> tuple[int, int] | None:
        """Take the folder and read the file, if there is one; `close` gives the folder back.

        Args:
            model: `GreedyModel` that `fit` is called of; takes a drawn seed of the backup.
            callbacks: list of the callbacks of this `fit`.

        Returns:
            Tuple of two ints ≥ 0, the epoch and the step of it to go on from; `None` without a
            file.

        Raises:
            DamagedFile: the file is damaged.
            BlockingIOError: another run uses the folder.
            ValueError: the model was given another seed.
        """
        self._forget([one for one in callbacks if one is not self])
        made_folder("backup_dir", self.path.parent)
        self._lock = FolderLock(self.path.parent)
        self._lock.take()
        remove_leftovers(self.path)
        if not self.path.exists():
            return None
        state = read_state(self.path)
        self._check_place(state)
        self._state = state
        seed = state.numbers["run"]["seed"]
        if model.seed_is_given and seed != model.seed:
            raise ValueError(self._of_another_run([f"seed {seed} in the backup, {model.seed} now"]))
        model.seed = seed
        return state.numbers["run"]["epoch"], self.step_of_epoch

    def _check_place(self, state: SavedState) -> None:
        run, counts = state.numbers["run"], ("epoch", "step", "steps_done", "seed")
        wrong = [key for key in counts if type(run.get(key)) is not int or run[key] < 0]
        if wrong:
            raise damaged(self.path, f"no number ≥ 0 for {', '.join(wrong)}")

    def close(self) -> None:
        """Give the folder back; `fit` does so however it ends."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.free()

    @property
    def step_of_epoch(self) -> int:
        """Step of the epoch to go on from; 0 where an epoch begins, or nothing is restored."""
        return 0 if self._state is None else int(self._state.numbers["run"]["step"])

    @property
    def is_over(self) -> bool:
        """Whether a rule has ended the run that was saved, and would end this one too."""
        ended = {} if self._state is None else self._state.numbers.get("ended", {})
        stops = stops_by(self._counters.callbacks)
        return bool(ended) and (
            "done" in ended or any(stops.get(name) == one for name, one in ended.items())
        )

    def compare(self, model: Any, data: Any, class_weight: Any) -> None:
        """Take what tells this run, and refuse the backup of another.

        Args:
            model: `GreedyModel`, compiled, before its callbacks have begun.
            data: `TrainingData`.
            class_weight: dict or `None`, as given to `fit`.

        Raises:
            ValueError: method, regime, optimizer, data or others differ; or the backup stands
                within an execution.
        """
        self._source = data.source
        self._fingerprint = fingerprint(model, data_identity(data, class_weight))
        if self._state is not None:
            differ = differences(self._state.numbers["fingerprint"], self._fingerprint)
            if differ:
                raise ValueError(self._of_another_run(differ))
            step, per_call = self.step_of_epoch, model.steps_per_execution
            if step % per_call and step != data.steps_per_epoch:
                raise ValueError(
                    "The backup must stand at the end of an execution. Received: a backup after "
                    f"{step} steps of an epoch, with steps_per_execution={per_call}. Compile as "
                    "the run that was saved."
                )
        self._warn_of_data(data, model.regime.cache)
        self._random = global_random()

    def _warn_of_data(self, data: Any, cache: Any) -> None:
        """Warn of data from which a restored run cannot go on bit for bit."""
        loss = ""
        if data.kept_iterator is not None:
            loss = "later passes come in another order"
        elif not data.is_replayable:
            loss = "a restored run goes on from the first batches of the epoch"
        elif cache is not None and has_state(data.source):
            loss = "a cache is filled before `on_epoch_end` has been called as often"
        if loss:
            warnings.warn(
                f"The place in these data cannot be saved: {loss}, not bit for bit. Pass arrays, a "
                "`PyDataset`, or a `tf.data.Dataset` of known length, each epoch a pass over it, "
                "without Python functions.",
                stacklevel=4,
            )

    def _of_another_run(self, differ: list[str]) -> str:
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        return (
            f"The backup {self.path} must be of the same run. Received one of another: "
            f"{'; '.join(differ[:4])}{more}. Build the run as it was, or delete the file to start "
            "anew. More `epochs` are no other run."
        )

    @property
    def steps_done(self) -> int:
        """Batches of the whole run that are done; 0 outside `fit`."""
        run = getattr(self.model, "training_run", None)
        return 0 if run is None else int(run.steps_done)

    def check(self) -> None:
        """Check all that will be restored, before the first callback begins.

        Raises:
            DamagedFile: the file lacks what a run of this regime has.
            ValueError: the file is of another model, optimizer or regime.
        """
        warn_of_draws(self._source, self._random)
        if self._state is not None:
            checked(self.model.state_variables(), self._state, self.path)
            self._paired()
            self._check_run(self._state.numbers)

    def _check_run(self, numbers: dict[str, Any]) -> None:
        saved, own = numbers["run"], self.model.training_run.get_state()
        of_regime, timetable = saved.get("timetable"), own["timetable"]
        known = isinstance(of_regime, dict) and of_regime.keys() == timetable.keys()
        if not own.keys() <= saved.keys() or not known:
            raise damaged(self.path, "no place in the regime")
        if not isinstance(saved["rates"], list):
            raise damaged(self.path, "no learning rates")
        rows = numbers["history"].values()
        if not all(isinstance(one, list) for one in rows):
            raise damaged(self.path, "a history without rows")

    def _paired(self) -> tuple[list[Any], list[str]]:
        """Give the other callbacks with their states, and the names of states left over."""
        state = self._state
        if state is None:
            return [], []
        arrays = state.arrays.get("callbacks", [])
        try:
            return self._counters.paired(state.numbers["callbacks"], arrays, self.model.weights)
        except UNREADABLE as error:
            raise damaged(self.path, error) from error

    def begin(self) -> None:
        """Note what callbacks begin with; restore at once, if no epoch will begin."""
        self._counters.begin()
        if self._state is None:
            return
        if self.is_over or self._state.numbers["run"]["epoch"] >= self.params["epochs"]:
            self.restore()

    def restore_place(self) -> None:
        """Restore the place in the regime, which hooks may ask for."""
        if self._state is not None:
            self.model.training_run.set_state(self._state.numbers["run"])

    def restore(self) -> None:
        """Restore everything, once."""
        state = self._state
        if state is None:
            return
        numbers, run = state.numbers, self.model.training_run
        todo = checked(self.model.state_variables(), state, self.path)
        pairs, left = self._paired()
        run.feed.restore_files(state.files)
        if numbers["run"]["epoch"] < self.params["epochs"]:
            run.feed.replay(numbers["run"]["epoch"])
        self._counters.set_state(pairs)
        self.restore_place()
        for variable, value in todo:
            variable.assign(value)
        history = self.model.history
        history.history.clear()
        history.history.update({name: list(row) for name, row in numbers["history"].items()})
        history.epoch[:] = numbers["epochs"]
        restore_random(numbers["random"])
        self.restored_step = self._saved_at = run.steps_done
        self._tell(numbers["run"])
        self._state = None
        tell_left_over(left, self.path)

    def _tell(self, place: dict[str, Any]) -> None:
        """Say where the run goes on, if `fit` is to show anything."""
        if not self.params.get("verbose"):
            return
        if self.is_over or place["epoch"] >= self.params["epochs"]:
            tell(f"resumed after epoch {place['epoch']}, the last")
        else:
            tell(f"resumed at epoch {place['epoch'] + 1}, step {place['step']}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save, if it is time, or if a callback ends the run within an epoch."""
        run = self.model.training_run
        due = self.save_freq != "epoch" and (
            self.steps_done // self.save_freq > (self._saved_at or 0) // self.save_freq
        )
        # A file that stays lets a later `fit` go on at this batch; one that goes is of no more use.
        ends = self.model.stop_training and not self.delete_checkpoint
        self._is_cut_short = ends and run.is_within_epoch
        if due or self._is_cut_short:
            self._save(run.get_state())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save, if it is time, or if it is the last epoch."""
        ends = self.model.stop_training or epoch + 1 >= self.params["epochs"]
        if (self.save_freq == "epoch" or ends) and not self._is_cut_short:
            place = {**self.model.training_run.get_state(), "epoch": epoch + 1, "step": 0}
            self._save(place, epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Delete the file of a run that is over."""
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)

    def _save(self, place: dict[str, Any], ended_epoch: int | None = None) -> None:
        model, run = self.model, self.model.training_run
        model.drain()
        records, arrays = self._counters.get_state()
        ended: dict[str, Any] = {}
        if ended_epoch is not None and model.stop_training:
            ended = {} if run.is_over else stops_by(self._counters.callbacks, ended_epoch)
            if run.is_over or (self.delete_checkpoint and not ended):
                # Nothing but a kill leaves this file where it would go in a moment.
                ended = {"done": True}
        numbers = {
            "run": {**place, "seed": model.seed},
            "random": random_numbers(),
            "history": model.history.history,
            "epochs": model.history.epoch,
            "callbacks": records,
            "fingerprint": self._fingerprint,
            "ended": ended,
        }
        groups = {**model.state_variables(), "callbacks": arrays}
        try:
            write_state(self.path, groups, numbers, run.feed.files())
        except OSError as error:
            raise OSError(error.errno, self._not_written(error, place["steps_done"])) from error
        self._saved_at = place["steps_done"]

    def _not_written(self, error: OSError, step: int) -> str:
        last = "There is no older one"
        if self.path.exists():
            known = "" if self._saved_at is None else f", of step {self._saved_at}"
            last = f"The last good backup{known} stands"
        return (
            f"A backup must fit into {self.path.parent}. Received: {error.strerror or error} at "
            f"step {step}. {last}; training has ended. Make room and call `fit` again."
        )
