"""Moves variables from one device to another.

TensorFlow's variables stay where they were made. A Keras variable holds one of them in a private
attribute; `move_variables` puts another in its place, and is the only function that touches it.
Functions that were traced before hold the old ones: trace them anew.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def current_device() -> str:
    """Give the name of the device where new variables would be made now."""
    return str(tf.zeros([]).device)


def device_name(device: str) -> str:
    """Give the full name of a device.

    Raises:
        ValueError: there is no such device.
    """
    known = [one.name for one in tf.config.list_logical_devices()]
    spec = tf.DeviceSpec.from_string(device if device.startswith("/") else f"/device:{device}")
    found = [
        name
        for name in known
        if (spec.device_type, spec.device_index or 0)
        == (
            tf.DeviceSpec.from_string(name).device_type,
            tf.DeviceSpec.from_string(name).device_index,
        )
    ]
    if not found:
        raise ValueError(
            f"A device must be one of {', '.join(known)}. Received: {device!r}. The host is "
            "'CPU:0'."
        )
    with tf.device(found[0]):
        return current_device()


def move_variables(variables: Sequence[Any], device: str) -> bool:
    """Move Keras variables to a device, and tell whether any was elsewhere.

    Args:
        variables: list of Keras variables.
        device: str. Full name of a device.
    """
    moved = False
    for variable in variables:
        held = variable._value
        if held.device == device:
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
