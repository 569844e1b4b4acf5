"""How long a call of each depth takes."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_trgl.export.signatures import Exits


def latencies(exits: Exits, batch: Any, repeats: int, done: Callable[[], None]) -> Any:
    """Give the median seconds of a call of each depth; calls of all depths take turns.

    Args:
        exits: the depths.
        batch: array, `(batch, …)`.
        repeats: int ≥ 1, calls of each depth.
        done: function that is called when a depth was traced, and after each turn of all.
    """
    calls = [tf.function(exits.single(depth), autograph=False) for depth in exits.depths]
    rows = tf.constant(batch)
    rows = rows if rows.dtype == tf.string else tf.cast(rows, exits.spec.dtype)
    seconds = np.empty((repeats, len(calls)))
    # The first call traces.
    for call in calls:
        call(rows)
        done()
    for turn in seconds:
        for k, call in enumerate(calls):
            begin = time.perf_counter()
            call(rows)["class_id"].numpy()
            turn[k] = time.perf_counter() - begin
        done()
    return np.median(seconds, 0)
