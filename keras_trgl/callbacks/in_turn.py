"""Keras's callbacks where stages train in turn: each speaks of the stage in training.

Keras's own would take a run for one training: what `EarlyStopping` ends for one stage it would end
for all later ones, a plateau of one would cut the rates of all, and the best loss of an early stage
would be compared with those of later ones. So each is kept to one visit, and begins anew with the
next.
"""

import contextlib
import re
import weakref
from collections.abc import Iterator
from typing import Any

import keras

STOPS = keras.callbacks.EarlyStopping
SETS_RATES = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
KINDS = (STOPS, keras.callbacks.ModelCheckpoint, *SETS_RATES)

_THRESHOLDS: Any = weakref.WeakKeyDictionary()
"""What a `ModelCheckpoint` was told to beat; it keeps it only as its best value so far."""


def in_turn(callbacks: list[Any]) -> list[Any]:
    """Give the callbacks, with those of Keras that judge a stage kept to the one in training.

    Raises:
        ValueError: one of them cannot be.
    """
    for one in callbacks:
        if isinstance(one, keras.callbacks.CallbackList):
            judges = [type(held).__name__ for held in one.callbacks if isinstance(held, KINDS)]
            if judges:
                raise ValueError(
                    "Where stages train in turn, each of Keras's callbacks is kept to the stage in "
                    f"training. Received: {judges[0]} in a {type(one).__name__}, which calls it "
                    "itself. Pass a list of callbacks in its place."
                )
        swaps = isinstance(one, keras.callbacks.SwapEMAWeights) and one.swap_on_epoch
        if swaps:
            raise ValueError(
                "Where stages train in turn, a stage's averages are settled when its visit ends. "
                "Received: `SwapEMAWeights(swap_on_epoch=True)`, which exchanges them at that "
                "moment. Leave out `swap_on_epoch`: validation still runs on the averages."
            )
    return [InTurnCallback(one) if isinstance(one, KINDS) else one for one in callbacks]


class _OfOneStage:
    """A model, or its optimizers, with one attribute in place of its own."""

    def __init__(self, whole: Any, **instead: Any) -> None:
        vars(self).update(instead, _whole=whole)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._whole, name, value)


class InTurnCallback(keras.callbacks.Callback):
    """One of Keras's callbacks, kept to the stage in training.

    `EarlyStopping` ends the stage's visit, by the stage's own count of epochs; what sets rates
    sets the stage's; a monitor that names a stage is read in that stage's visits.

    Args:
        given: the user's callback, which counts and keeps as ever.
    """

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given
        self.async_safe = getattr(given, "async_safe", False)
        self._is_first = True
        if isinstance(given, keras.callbacks.ModelCheckpoint):
            _THRESHOLDS.setdefault(given, given.best)
        for name in dir(keras.callbacks.Callback):
            if name.startswith("on_") and name not in vars(InTurnCallback):
                setattr(self, name, getattr(given, name))

    def set_params(self, params: Any) -> None:
        """Tell the given callback too."""
        super().set_params(params)
        self.given.set_params(params)

    def set_model(self, model: Any) -> None:
        """Tell the given callback too."""
        super().set_model(model)
        self.given.set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin anew if a run begins with a visit."""
        run = self.model.training_run
        if self._is_first and run.position.begins_visit and run.step == 0:
            self._begin_anew()
        self._is_first = False
        with self._of_one_stage():
            self.given.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Let the callback judge the stage in training; a stop ends the stage's visit."""
        run, model = self.model.training_run, self.model
        named = re.match(r"(val_)?stage_(\d+)_", getattr(self.given, "monitor", None) or "")
        if named and int(named[2]) != max(run.position.plan) + 1:
            return
        logs = {} if logs is None else logs
        before, stopped = dict(logs), model.stop_training
        model.stop_training = False
        stops = isinstance(self.given, STOPS)
        with self._of_one_stage():
            self.given.on_epoch_end(run.position.epoch - 1 if stops else epoch, logs)
        asked, model.stop_training = model.stop_training, stopped
        if asked and stops:
            run.end_visit(epoch)
        elif asked:
            model.stop_training = True
        if isinstance(self.given, SETS_RATES):
            # Keras names rates by the optimizer's object, here of one stage: not in every epoch.
            logs.clear()
            logs.update(before)

    def end_visit(self) -> None:
        """End for the stage whose visit is over, as at the end of training, and begin anew."""
        if isinstance(self.given, STOPS):
            self.given.on_train_end()
        self._begin_anew()

    def _begin_anew(self) -> None:
        if isinstance(self.given, keras.callbacks.ModelCheckpoint):
            self.given.best = _THRESHOLDS[self.given]
        elif not isinstance(self.given, keras.callbacks.LearningRateScheduler):
            self.given.on_train_begin()

    @contextlib.contextmanager
    def _of_one_stage(self) -> Iterator[None]:
        """Let a callback that sets rates see the stage's optimizer alone."""
        if not isinstance(self.given, SETS_RATES):
            yield
            return
        model = self.model
        stage = model.optimizer.optimizers[max(model.training_run.position.plan)]
        optimizers = _OfOneStage(model.optimizer, optimizers=[stage])
        self.given.set_model(_OfOneStage(model, optimizer=optimizers))
        try:
            yield
        finally:
            self.given.set_model(model)
