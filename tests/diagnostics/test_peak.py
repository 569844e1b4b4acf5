"""Peaks are those of TensorFlow's allocator, where it counts."""

import os
import subprocess
import sys

import pytest

import keras_trgl as trgl

SCRIPT = """
import tensorflow as tf, keras_trgl as trgl
calls = []
def add():
    calls.append(1)
    return tf.ones([256, 1024]) + 1.0
print(trgl.measure_peak(add, warm_up=2), len(calls))
"""


def test_a_sum_takes_its_two_tensors_and_no_more_than_three():
    environment = {**os.environ, "TF_CPU_ALLOCATOR_USE_BFC": "true"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, text=True
    )
    peak, calls = map(int, done.stdout.split())
    assert calls == 3
    assert 2 * 2**20 <= peak <= 3.1 * 2**20


def test_a_cpu_that_counts_nothing_is_told_how_to():
    if os.environ.get("TF_CPU_ALLOCATOR_USE_BFC"):
        pytest.skip("It counts here.")
    with pytest.raises(RuntimeError, match="TF_CPU_ALLOCATOR_USE_BFC=true python"):
        trgl.measure_peak(lambda: None)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="`function` must be callable"):
        trgl.measure_peak(3)
    with pytest.raises(ValueError, match="`warm_up` must be at least 0"):
        trgl.measure_peak(print, warm_up=-1)
