"""Workers in other processes: how a coordinator connects to them, and starts some of its own."""

import socket
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.checks import check_positive
from keras_trgl.distribute.loopback import is_loopback, keep_to_loopback
from keras_trgl.distribute.lost_device import silent, start
from keras_trgl.distribute.worker_card import read_card
from keras_trgl.registration import public

JOB, COORDINATOR = "worker", "chief"


@public
def connect(
    workers: Sequence[str], coordinator_address: str | None = None, timeout: float = 10.0
) -> list[str]:
    """Connect this process, the coordinator, to workers, and give the devices they lend.

    Call it before any tensor is made, and again, with all workers, after one was started anew:
    tensors and variables of before are lost then. A worker is started by
    `python -m keras_trgl.distribute.worker --port=7000`. The protocol has neither authentication
    nor encryption: use it on one machine or a private network.

    Args:
        workers: list of `"host:port"`.
        coordinator_address: `"host:port"` at which workers reach this process. `None` takes a
            free port of 127.0.0.1, for workers on this machine; the same one at every call.
            Defaults to `None`.
        timeout: float > 0. Seconds that a worker gets to answer. Defaults to `10.0`.

    Returns:
        List of full device names, one per worker: its first GPU, or its CPU.

    Raises:
        ValueError: an address that is none, given twice, or of this machine only where a worker
            is elsewhere; a worker with another TensorFlow.
        ConnectionError: a worker that is not reachable, or does not answer.

    Example:
        >>> import keras_trgl as trgl
        >>> trgl.distribute.connect(["127.0.0.1:7000", "127.0.0.1:7000"])
        Traceback (most recent call last):
        ...
        ValueError: `workers` must be different ones. Received twice: 127.0.0.1:7000.
    """
    check_positive("timeout", timeout, "In seconds.")
    addresses = _checked(workers)
    own = coordinator_address or _free_address(addresses)
    _split(own, "coordinator_address")
    _check_reachable(addresses, timeout)
    cluster = tf.train.ClusterSpec({JOB: addresses, COORDINATOR: [own]})
    box = start(_connect, cluster)
    try:
        went_well, result = box.get(timeout=timeout)
    except Exception as error:
        raise ConnectionError(
            f"The workers must answer within {timeout} seconds. Received: no answer from one of "
            f"{', '.join(addresses)}. See that each is a worker of `keras_trgl.distribute.worker`."
        ) from error
    if not went_well:
        raise ConnectionError(
            f"No connection to the workers {', '.join(addresses)}. Received: {result}"
        ) from result
    if is_loopback(own.rpartition(":")[0]):
        keep_to_loopback(int(own.rpartition(":")[2]))
    devices = [_lent(task) for task in range(len(addresses))]
    _addresses.clear()
    _addresses.update(zip(devices, addresses, strict=True))
    mute = silent(devices, timeout)
    if mute:
        named = ", ".join(addresses[devices.index(one)] for one in mute)
        raise ConnectionError(f"A worker must answer within {timeout} seconds. Received: {named}.")
    for address, device in zip(addresses, devices, strict=True):
        version = read_card(device).get("tensorflow", tf.__version__)
        if version != tf.__version__:
            raise ValueError(
                f"Workers must run the coordinator's TensorFlow, {tf.__version__}. Received: "
                f"{version} at {address}. Install the same version there."
            )
    return devices


def _connect(cluster: Any) -> None:
    tf.config.experimental_connect_to_cluster(
        cluster, job_name=COORDINATOR, task_index=0, protocol="grpc"
    )
    tf.config.list_logical_devices()


def _lent(task: int) -> str:
    """Give the device that a worker lends: its first GPU, or its CPU."""
    names = [one.name for one in tf.config.list_logical_devices()]
    place = f"/job:{JOB}/replica:0/task:{task}/device:"
    gpu = f"{place}GPU:0"
    return gpu if gpu in names else f"{place}CPU:0"


def _checked(workers: Sequence[str]) -> list[str]:
    addresses = [] if isinstance(workers, str) else list(workers)
    if not addresses:
        raise ValueError(
            "`workers` must be a list of addresses, as in `['10.0.0.2:7000']`. Received: "
            f"workers={workers!r}."
        )
    for address in addresses:
        _split(address, "workers")
    twice = sorted({one for one in addresses if addresses.count(one) > 1})
    if twice:
        raise ValueError(f"`workers` must be different ones. Received twice: {', '.join(twice)}.")
    return addresses


def _split(address: Any, name: str) -> tuple[str, int]:
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            f"`{name}` must be given as 'host:port', as in '10.0.0.2:7000'. Received: {address!r}."
        )
    return host.strip("[]"), int(port)


_addresses: dict[str, str] = {}
"""Of the workers that are connected, by device."""


def worker_of(device: str) -> str | None:
    """Give the address of the worker that lends a device."""
    return _addresses.get(device)


_chosen: list[str] = []
"""The coordinator's own address: TensorFlow cannot connect again from another one."""


def _free_address(workers: Sequence[str]) -> str:
    away = [one for one in workers if not is_loopback(_split(one, "workers")[0])]
    if away:
        raise ValueError(
            "`coordinator_address` must be given where workers run on other machines. Received: "
            f"workers={away}. Pass this machine's address with a port that they can reach."
        )
    if not _chosen:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            _chosen.append(f"127.0.0.1:{free.getsockname()[1]}")
    return _chosen[0]


def _check_reachable(addresses: Sequence[str], timeout: float) -> None:
    """Raise unless something listens at each address; wait for workers that just started.

    Raises:
        ConnectionError: one cannot be reached.
    """
    end = time.monotonic() + timeout
    for address in addresses:
        while True:
            try:
                left = max(end - time.monotonic(), 0.2)
                socket.create_connection(_split(address, "workers"), timeout=left).close()
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise ConnectionError(
                        f"A worker must be reachable within {timeout} seconds. Received: "
                        f"{address}, {error}. Start it there: `python -m "
                        "keras_trgl.distribute.worker --port=…`."
                    ) from error
                time.sleep(0.1)
