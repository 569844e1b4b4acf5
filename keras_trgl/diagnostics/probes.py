"""Small nets that learn from frozen features: all at once, each stopped and judged by itself.

Probes share no weight, and Adam treats every number by itself, so training the sum of their losses
trains each as if it were alone; one model of them all is traced once.
"""

import contextlib
import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_trgl.types import Tensor

BATCH = (16, 64)
"""Rows of a step at least and at most; between them an eighth of what there is to learn from."""

RATE = 3e-3
PATIENCE = 10
STOPPING = 0.2
"""Share of the training rows that say when a probe is at its best."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """A net with what it learns.

    Attributes:
        net: built `keras.layers.Layer`, from features to logits.
        features: array, `(examples, …)`.
        targets: array: what it should give, `(examples, …)`.
        loss: `keras.losses.Loss` of logits.
    """

    net: Any
    features: Any
    targets: Any
    loss: Any


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Make and train probes in float32, and leave what others draw and compute in as it was.

    Keras seeds what is made without a seed from Python's generator.
    """
    policy, before = keras.config.dtype_policy(), random.getstate()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(before)


class Probing:
    """Which rows probes learn from, are stopped by, and are judged by.

    Args:
        train: places of the training rows.
        test: places of the held-out rows.
        seed: int ≥ 0. Seed of the order.
        epochs: int ≥ 1. Epochs at most.
    """

    def __init__(self, train: Any, test: Any, seed: int, epochs: int) -> None:
        mixed = np.random.default_rng(seed).permutation(train)
        stop = max(round(STOPPING * len(mixed)), 1)
        self.learn, self.stop, self.test = mixed[stop:], mixed[:stop], test
        if not len(self.learn):
            self.learn = self.stop
        self.seed, self.epochs = seed, epochs

    def outputs(self, probes: dict[str, Probe]) -> dict[str, Any]:
        """Train probes, and give what each at its best gives on held-out rows.

        Args:
            probes: dict of name to `Probe`.

        Returns:
            dict of name to a float64 array of logits, `(examples, …)`.
        """
        together = _Together({name: probe.net for name, probe in probes.items()})
        losses = {name: probe.loss for name, probe in probes.items()}
        together.compile(keras.optimizers.Adam(RATE), losses, jit_compile=False)
        best = _BestOfEach(together.nets)
        together.fit(
            *_rows(probes, self.learn),
            batch_size=int(np.clip(len(self.learn) // 8, *BATCH)),
            epochs=self.epochs,
            validation_data=_rows(probes, self.stop),
            validation_batch_size=256,
            # Rows are mixed already; Keras would draw from the global seed.
            shuffle=False,
            callbacks=[best],
            verbose=0,
        )
        found = together.predict(_rows(probes, self.test)[0], batch_size=256, verbose=0)
        return {name: np.asarray(values, np.float64) for name, values in found.items()}


def _rows(probes: dict[str, Probe], places: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {name: probe.features[places] for name, probe in probes.items()},
        {name: probe.targets[places] for name, probe in probes.items()},
    )


class _Together(keras.Model):
    """Nets side by side, from a dict of inputs to a dict of outputs.

    Args:
        nets: dict of name to built layer.
    """

    def __init__(self, nets: dict[str, Any]) -> None:
        super().__init__(name="probes")
        self.nets = nets
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """Give every net's output.

        Args:
            inputs: dict of name to tensor, `(batch, …)`.
            training: bool. Whether nets train. Defaults to the caller's.
        """
        return {name: net(inputs[name], training=training) for name, net in self.nets.items()}


class _BestOfEach(keras.callbacks.Callback):
    """Puts each net's best weights back, and ends when none improves any more.

    Args:
        nets: dict of name to layer.
    """

    def __init__(self, nets: dict[str, Any]) -> None:
        super().__init__()
        self._nets = nets
        self._best: dict[str, tuple[float, int, list[Any]]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep what is better than before."""
        for name, net in self._nets.items():
            # Keras names the loss of a single output without it.
            loss = float(logs.get(f"val_{name}_loss", logs["val_loss"]))
            if name not in self._best or loss < self._best[name][0]:
                self._best[name] = (loss, epoch, net.get_weights())
        if all(epoch - at >= PATIENCE for _, at, _ in self._best.values()):
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Put the best weights back."""
        for name, (_, _, weights) in self._best.items():
            self._nets[name].set_weights(weights)
