"""The weights of a stage's best epoch, kept until its visit ends."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_trgl.network.staged_network import StagePart


class BestWeights:
    """A copy of every stage's weights in main memory, of its head's and its method's layers'.

    They are variables, so that a backup holds them; the states of random layers are not among
    them, as those go on.

    Args:
        parts: list of K `StagePart`, built.
    """

    def __init__(self, parts: list[StagePart]) -> None:
        self._weights = [part.weights for part in parts]
        # In main memory, as the device is what stages in turn save; outside any trace.
        with tf.init_scope(), tf.device("CPU:0"):
            self._held = [
                [tf.Variable(np.asarray(one.numpy()), trainable=False) for one in weights]
                for weights in self._weights
            ]

    @property
    def variables(self) -> list[Any]:
        """All that is kept, stage by stage."""
        return [one for held in self._held for one in held]

    def keep(self, k: int) -> None:
        """Keep the weights of the stage at position k as they are."""
        for held, one in zip(self._held[k], self._weights[k], strict=True):
            held.assign(one.numpy())

    def put_back(self, k: int) -> None:
        """Give the stage at position k the weights that were kept."""
        for held, one in zip(self._held[k], self._weights[k], strict=True):
            one.assign(held.numpy())
