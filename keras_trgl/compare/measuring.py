"""Peak bytes, step time and extra nets of a method."""

import dataclasses
import math
import os
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.compare.settings import Settings
from keras_trgl.compare.trainings import Training, make_model, stream_of
from keras_trgl.diagnostics.peak import measure_peak
from keras_trgl.network.pieces import pieces_of

BATCHES, STEPS = 3, 20
"""Batches of the measured data; steps that are timed after as many that warm up."""

MEASURE_TIMEOUT = 3600
"""Seconds."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A method that is measured with what was chosen for it."""

    method: str
    numbers: dict[str, Any]
    part: str = "measure"


def use_threads(jobs: int) -> None:
    """Share the cores among processes; before TensorFlow's first operation."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


class StepTimes(keras.callbacks.Callback):
    """How long each batch took; reading the loss waits for the step."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._begin = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Begin."""
        self._begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the time."""
        float((logs or {}).get("loss", 0.0))
        self.seconds.append(time.perf_counter() - self._begin)


def measure(settings: Settings, what: Measurement, data: Any) -> dict[str, Any]:
    """Give the peak, predicted and measured, and the time of a step, in this fresh process.

    The data are a few batches, the same for all methods, so that the peak is the method's.

    Args:
        settings: `Settings`.
        what: `Measurement`.
        data: `ImageData`.
    """
    few = data.subset(min(BATCHES * settings.batch_size, len(data.y_train)))
    model = make_model(settings, Training(what.method, what.numbers, 0, "test", 1), few)
    stream = stream_of(settings, few, 0)
    model.build((None, *few.input_shape))
    *_, predicted = model.count_bytes(settings.batch_size)
    # A late gradient takes K - 1 steps to come down to the first stage, which waits until then.
    filled = math.ceil((settings.stages + 1) / stream.steps_per_epoch)
    peak = measure_peak(lambda: model.fit(stream, epochs=filled, verbose=0))
    times, epochs = StepTimes(), math.ceil(2 * STEPS / stream.steps_per_epoch)
    model.fit(stream, epochs=epochs, verbose=0, callbacks=[times])
    return {
        "peak_bytes": peak,
        "predicted_bytes": predicted,
        "step_seconds": interval(times.seconds[-STEPS:]),
    }


def interval(seconds: list[float]) -> dict[str, float]:
    """Give the median and its 95 % bootstrap interval."""
    rng, values = np.random.default_rng(0), np.asarray(seconds)
    draws = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def extra_nets(model: Any) -> dict[str, Any]:
    """Give parameters and bytes of what a method trains beside the network and its last head.

    Args:
        model: `GreedyModel`, built or to be built by its blocks.
    """
    network = {id(one) for stage in model.stages for one in stage.weights}
    network |= {id(one) for one in model.heads[-1].weights}
    own = [one for one in model.weights if id(one) not in network]
    trained = {id(one) for one in model.trainable_weights}
    return {
        "stage_sizes": [len(pieces_of(stage.blocks)) for stage in model.stages],
        "parameters": sum(math.prod(one.shape) for one in model.trainable_weights),
        "extra_parameters": sum(math.prod(one.shape) for one in own if id(one) in trained),
        "extra_bytes": sum(math.prod(one.shape) * np.dtype(str(one.dtype)).itemsize for one in own),
    }
