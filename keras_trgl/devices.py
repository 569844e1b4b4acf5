"""Devices: their names, moving variables to one, and calls that run on several.

TensorFlow's variables stay where they were made. A Keras variable holds one of them in a private
attribute; `move_variables` puts another in its place, and is the only function that touches it.
Functions that were traced before hold the old ones: trace them anew.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def current_device() -> str:
    """Give the name of the device where new variables would be made now."""
    # TensorFlow has no public way to ask for the device in force but to make something there.
    return str(tf.zeros([]).device)


def device_name(device: str) -> str:
    """Give the full name of a device.

    Args:
        device: str. `"GPU:0"`, or a full name; without a job, a device of this process.

    Raises:
        ValueError: there is no such device.
    """
    here = tf.DeviceSpec.from_string(current_device())
    # Within one process TensorFlow lists its devices without the job.
    known = [
        here.make_merged_spec(tf.DeviceSpec.from_string(one.name)).to_string()
        for one in tf.config.list_logical_devices()
    ]
    with contextlib.suppress(ValueError):
        asked = tf.DeviceSpec.from_string(device if device.startswith("/") else f"/device:{device}")
        first = here.replace(device_type=asked.device_type or "CPU", device_index=0)
        name = first.make_merged_spec(asked).to_string()
        if name in known:
            return name
    raise ValueError(
        f"A device must be one of {', '.join(known)}. Received: {device!r}. The host is 'CPU:0'."
    )


def device_of(variable: Any) -> str:
    """Give the name of the device that a Keras variable lives on."""
    return str(variable._value.device)


def move_variables(variables: Sequence[Any], device: str) -> bool:
    """Move Keras variables to a device, and tell whether any was elsewhere.

    Args:
        variables: list of Keras variables.
        device: str. Full name of a device.
    """
    moved = False
    for variable in variables:
        held = variable._value
        if device_of(variable) == device:
            continue
        with tf.device(device):
            variable._value = tf.Variable(
                tf.identity(held),
                trainable=held.trainable,
                dtype=held.dtype,
                name=variable.name,
                aggregation=held.aggregation,
                synchronization=held.synchronization,
            )
        moved = True
    return moved


def on_devices(method: Any) -> Any:
    """Let a model's method run so that a lost device gives an error that says which stage is lost.

    Args:
        method: method of a model with a `placement`.
    """

    @functools.wraps(method)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.placement.call(method, self, *args, **kwargs)

    return watched
