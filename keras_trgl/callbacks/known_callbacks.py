"""The callbacks of this package that training itself knows of."""

from typing import Any

from keras_trgl.callbacks.backup_and_restore import BackupAndRestore
from keras_trgl.callbacks.depth_progbar import DepthProgbar
from keras_trgl.callbacks.gated_callbacks import GatedCallbacks
from keras_trgl.callbacks.multiplier_update import MultiplierUpdate
from keras_trgl.training.given_callbacks import GivenCallbacks


def known(callbacks: Any) -> GivenCallbacks:
    """Give a user's callbacks with those of the package beside them.

    Args:
        callbacks: as `fit` takes them.
    """
    kinds = {
        "backup": BackupAndRestore,
        "multiplier": MultiplierUpdate,
        "gate": GatedCallbacks,
        "progbar": DepthProgbar,
    }
    return GivenCallbacks(callbacks, kinds)
