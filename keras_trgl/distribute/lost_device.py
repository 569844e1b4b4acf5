"""Watches calls that run on other processes' devices, and says which stage is lost.

A worker that was killed lets a call fail within a second. One that is frozen lets it wait for ever,
in TensorFlow's own code, where nothing can wake it. So such calls run in a thread of their own, and
the caller waits in Python: for as long as every device answers a small question.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.registration import public

QUICK = 2.0
"""Seconds that a device gets to answer after an error, where it answers in milliseconds."""
ATTEMPTS = 8
"""Questions to a device: an error of an earlier call may answer the first ones."""


@public
class LostDeviceError(RuntimeError):
    """A device that stages live on does not answer any more.

    Its variables are gone. Start the worker again, connect, make the model anew in the scope of a
    new strategy, and go on from a backup or a file.

    Args:
        message: str. What is lost, and the way out.
        devices: sequence of str, names of the lost devices. Defaults to `()`.

    Attributes:
        devices: tuple of the names of the lost devices.

    Example:
        >>> from keras_trgl.distribute import LostDeviceError
        >>> LostDeviceError("Stage 2 is lost.", ["/job:worker/task:1"]).devices
        ('/job:worker/task:1',)
    """

    def __init__(self, message: str, devices: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.devices = tuple(devices)


def start(function: Callable[..., Any], *args: Any, **names: Any) -> "queue.Queue[Any]":
    """Call a function in a thread that does not keep the interpreter from ending.

    Returns:
        Queue that gets `(True, result)`, or `(False, error)`.
    """
    box: queue.Queue[Any] = queue.Queue()
    policy = keras.config.dtype_policy()

    def run() -> None:
        _here.is_watched = True
        # Keras keeps it by thread.
        keras.config.set_dtype_policy(policy)
        try:
            box.put((True, function(*args, **names)))
        except BaseException as error:  # noqa: BLE001  (raised again by who waits)
            box.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    return box


_here = threading.local()


def ask(device: str) -> None:
    """Let a device compute something small.

    After an error TensorFlow reports it once more on the next call, whatever device that is for.

    Raises:
        tf.errors.OpError: the device cannot.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            with tf.device(device):
                tf.add(tf.constant(1.0), 1.0).numpy()
            return
        except tf.errors.OpError:
            if not left:
                raise
            time.sleep(0.1)


def silent(devices: Sequence[str], seconds: float) -> list[str]:
    """Give the devices that do not answer.

    One after the other: an error of one would be reported to the question to another.

    Args:
        devices: names of devices.
        seconds: float. Time that each gets.
    """
    lost = []
    for device in devices:
        try:
            answered = start(ask, device).get(timeout=seconds)[0]
        except queue.Empty:
            answered = False
        if not answered:
            lost.append(device)
    return lost


def refusing(devices: Sequence[str], address_of: Callable[[str], str | None]) -> list[str]:
    """Give the devices whose worker takes no connection any more, where its address is known.

    Args:
        devices: names of devices.
        address_of: function that gives the address of a device's worker, or `None`.
    """
    lost = []
    for device in devices:
        host, _, port = (address_of(device) or "").rpartition(":")
        if host:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=QUICK).close()
            except OSError:
                lost.append(device)
    return lost


class Watch:
    """Calls functions that run on devices of other processes.

    Args:
        devices: names of the devices.
        timeout: float, seconds after which a device that does not answer is lost.
        address_of: function that gives the address of a device's worker, or `None`.

    Attributes:
        lost: list of the devices that are lost; every later call fails at once.
    """

    def __init__(
        self, devices: Sequence[str], timeout: float, address_of: Callable[[str], str | None]
    ) -> None:
        self.devices = list(devices)
        self.timeout = timeout
        self.address_of = address_of
        self.lost: list[str] = []

    def call(self, function: Callable[..., Any], *args: Any, **names: Any) -> Any:
        """Call a function, and give its result with tensors brought to this process.

        An interrupt is raised once the function has ended, which the model's `stop_training` asks
        of `fit`.

        Raises:
            _Lost: a device does not answer; `lost` tells which.
        """
        if getattr(_here, "is_watched", False):
            return function(*args, **names)
        if self.lost:
            raise _Lost
        box = start(_fetched, function, *args, **names)
        try:
            went_well, result = self._wait(box)
        except KeyboardInterrupt:
            for one in args[:1]:
                one.stop_training = True
            self._wait(box)
            raise
        if went_well:
            return result
        if isinstance(result, tf.errors.OpError) and not isinstance(result, KNOWN_ERRORS):
            # A port that is closed tells more surely than TensorFlow who is gone.
            self.lost = refusing(self.devices, self.address_of) or silent(self.devices, QUICK)
            if self.lost:
                raise _Lost from result
        raise result

    def _wait(self, box: "queue.Queue[Any]") -> Any:
        # A part of the time, so that waiting and asking together keep to `timeout`.
        answer = min(max(self.timeout / 4, 1.0), 10.0)
        while True:
            try:
                return box.get(timeout=max(self.timeout - answer, 0.1))
            except queue.Empty:
                self.lost = silent(self.devices, answer)
                if self.lost:
                    raise _Lost from None


KNOWN_ERRORS = (tf.errors.OutOfRangeError, tf.errors.ResourceExhaustedError)
"""Errors of an operation that say nothing about its device."""


class _Lost(Exception):
    """A device does not answer."""


def _fetched(function: Callable[..., Any], *args: Any, **names: Any) -> Any:
    return tf.nest.map_structure(_local, function(*args, **names))


def _local(value: Any) -> Any:
    """Give a tensor of another process as one of this process."""
    if not tf.is_tensor(value) or not hasattr(value, "numpy"):
        return value
    with tf.device("CPU:0"):
        return tf.convert_to_tensor(value.numpy())
