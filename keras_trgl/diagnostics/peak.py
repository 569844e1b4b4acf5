"""Peak bytes of what runs, by TensorFlow's own count."""

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.devices import current_device
from keras_trgl.registration import public


@public
def measure_peak(function: Callable[[], Any], warm_up: int = 1) -> int:
    """Give the most bytes that TensorFlow held at once while a function ran.

    All that is held counts, weights and slots of optimizers among it, on the device of the
    `tf.device` in force. The function runs `warm_up` times before, as a first call traces and
    makes variables. For figures that repeat measure in a fresh process: what ran before leaves
    its marks on the allocator.

    Args:
        function: function without arguments, such as `lambda: model.fit(x, y)`. It runs
            `warm_up + 1` times.
        warm_up: int ≥ 0, number of runs that are not measured. Defaults to `1`.

    Returns:
        int, bytes.

    Raises:
        TypeError: `function` cannot be called.
        RuntimeError: on a CPU whose bytes TensorFlow does not count. It does when the
            environment has `TF_CPU_ALLOCATOR_USE_BFC=true` before TensorFlow starts.

    Example:
        >>> import keras, keras_trgl as trgl
        >>> def add():
        ...     return keras.ops.ones((256, 1024)) + 1.0
        >>> try:
        ...     peak = trgl.measure_peak(add)
        ... except RuntimeError:
        ...     peak = 2 * 2**20  # Python was started without the variable.
        >>> peak >= 2 * 2**20
        True
    """
    if not callable(function):
        raise TypeError(
            f"`function` must be callable. Received: {function!r}. Give `lambda: model.fit(x, y)`."
        )
    check_integer("warm_up", warm_up, 0)
    device = tf.DeviceSpec.from_string(current_device())
    place = f"{device.device_type}:{device.device_index}"
    _check_counted(place)
    for _ in range(warm_up):
        function()
    tf.config.experimental.reset_memory_stats(place)
    function()
    return int(tf.config.experimental.get_memory_info(place)["peak"])


def _check_counted(place: str) -> None:
    """Raise if the allocator of a device does not count.

    Raises:
        RuntimeError: it does not.
    """
    # Held while the allocator is asked: one that counts has at least these bytes.
    held = tf.ones([256]) + 1.0
    try:
        counted = tf.config.experimental.get_memory_info(place)["current"] > 0
    except ValueError:
        counted = False
    del held
    if not counted:
        name = "TF_CPU_ALLOCATOR_USE_BFC"
        raise RuntimeError(
            "Bytes of a CPU are counted where the allocator is told to before TensorFlow starts. "
            f"Received: {place} with {name}={os.environ.get(name)!r}. Start Python as "
            f"`{name}=true python script.py`, or set `os.environ[{name!r}]` above all imports."
        )
