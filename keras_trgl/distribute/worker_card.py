"""What a worker tells about itself, without a protocol of its own.

The worker keeps a small text behind a file descriptor of a fixed number; the coordinator lets
TensorFlow read that file on the worker. Linux only: elsewhere there is no card.
"""

import json
import os
import sys
from typing import Any

import tensorflow as tf

DESCRIPTOR = 300
PATH = f"/proc/self/fd/{DESCRIPTOR}"


def show_card() -> None:
    """Keep this process's card where a coordinator can read it."""
    if not sys.platform.startswith("linux"):
        return
    card = os.memfd_create("keras_trgl")
    os.write(card, json.dumps({"tensorflow": tf.__version__}).encode())
    os.dup2(card, DESCRIPTOR)
    os.close(card)


def read_card(device: str) -> dict[str, Any]:
    """Read the card of the worker that a device belongs to; empty where it has none."""
    with tf.device(device):
        try:
            text = tf.io.read_file(PATH).numpy()
        except tf.errors.OpError:
            return {}
    return dict(json.loads(text))
