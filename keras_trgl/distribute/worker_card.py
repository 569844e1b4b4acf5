"""What a worker tells about itself, without a protocol of its own.

The worker keeps a small text behind a file descriptor of a fixed number; the coordinator lets
TensorFlow read that file on the worker, and writes there whom the worker serves. Linux only:
elsewhere there is no card.
"""

import contextlib
import json
import os
import sys
from typing import Any

import tensorflow as tf

DESCRIPTOR = 300
PATH = f"/proc/self/fd/{DESCRIPTOR}"


def show_card() -> None:
    """Keep this process's card where a coordinator can read it.

    Raises:
        OSError: this process may not open as many files.
    """
    if not sys.platform.startswith("linux"):
        return
    card = os.memfd_create("keras_trgl")
    os.write(card, json.dumps({"tensorflow": tf.__version__}).encode())
    try:
        os.dup2(card, DESCRIPTOR, inheritable=False)
    except OSError as error:
        raise OSError(
            f"A worker must be allowed more than {DESCRIPTOR} open files. Received: a limit of "
            f"{os.sysconf('SC_OPEN_MAX')}. Raise it before the start: `ulimit -n 1024`."
        ) from error
    finally:
        os.close(card)


def read_card(device: str) -> dict[str, Any]:
    """Read the card of the worker that a device belongs to; empty where it has none."""
    with tf.device(device):
        try:
            text = tf.io.read_file(PATH).numpy()
        except tf.errors.OpError:
            return {}
    return dict(json.loads(text))


def sign_card(device: str, card: dict[str, Any], coordinator: str) -> None:
    """Write on a worker's card whom it serves; nothing where it has no card.

    Args:
        device: str. One of the worker's devices.
        card: dict. What the card says so far.
        coordinator: str. Address of the coordinator, `"host:port"`.
    """
    if card:
        with tf.device(device), contextlib.suppress(tf.errors.OpError):
            tf.io.write_file(PATH, json.dumps(card | {"coordinator": coordinator}))
