"""A run that is cut within an epoch, and goes on from its backup."""

import keras
import pytest

import keras_trgl as trgl


class Cut(keras.callbacks.Callback):
    """Ends a run by an error after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if self.model.training_run.steps_done == self.steps:
            raise RuntimeError("cut")


@pytest.fixture
def whole_and_resumed(tmp_path):
    """A function that gives a whole run, and the same run cut and resumed."""

    def runs(fresh, fit, steps):
        """Give model and logs of each.

        Args:
            fresh: function without arguments that makes the model.
            fit: function of a model and `callbacks` that trains it and gives its logs.
            steps: steps after which the run is cut.
        """

        def backup():
            return trgl.callbacks.BackupAndRestore(tmp_path, save_freq=1)

        whole, resumed = fresh(), fresh()
        logs = fit(whole)
        with pytest.raises(RuntimeError, match="cut"):
            fit(fresh(), callbacks=[Cut(steps), backup()])
        return (whole, logs), (resumed, fit(resumed, callbacks=[backup()]))

    return runs
