"""What is done to a stage when its visit is over."""

from typing import Any

import keras

from keras_trgl.callbacks.in_turn import InTurnCallback


class PlaceInLogs(keras.callbacks.Callback):
    """Puts stage, lap and epoch into the logs once more, as Keras makes floats of all numbers."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add them as integers; it comes first, for all callbacks after it."""
        logs.update(self.model.training_run.position.logs)


class VisitEnd(keras.callbacks.Callback):
    """Settles a stage when its visit ends, before anything is trained on it.

    It comes after the user's callbacks, which may have ended the visit, and before a backup.

    Args:
        others: list of the callbacks before it.

    Attributes:
        rates: dict of the epoch's learning rates, by their names in the logs.
    """

    def __init__(self, others: list[Any]) -> None:
        super().__init__()
        self._kept = [one for one in others if isinstance(one, InTurnCallback)]
        self.rates: dict[str, float] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Settle averages, put back best weights, and let callbacks begin anew with the next."""
        run = self.model.training_run
        # An optimizer may have the name of another stage, by which Keras logs its rate.
        logs.update(self.rates)
        if not run.ends_visit(epoch):
            return
        run.settle()
        if run.is_over:
            # Keras ends its callbacks itself, after the last epoch.
            self.model.stop_training = True
            return
        for one in self._kept:
            one.end_visit()
