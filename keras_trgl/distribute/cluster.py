"""Workers in other processes: how a coordinator connects to them, and starts some of its own."""

import contextlib
import queue
import re
import socket
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.checks import check_positive
from keras_trgl.distribute.loopback import is_loopback, loopback_only, open_to_all
from keras_trgl.distribute.lost_device import QUICK, silent, start
from keras_trgl.distribute.worker_card import read_card, sign_card
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
        TypeError: `workers` is no list of str.
        ValueError: an address that is none, given twice, or of this machine only where a worker
            is elsewhere; another address of the coordinator than before; a worker with another
            TensorFlow.
        ConnectionError: a worker that is not reachable, does not answer, or serves another
            coordinator.
        OSError: the coordinator's port is taken, or cannot be kept to this machine as 127.0.0.1
            asks for. Nobody else reaches it then either.

    Example:
        >>> import keras_trgl as trgl
        >>> trgl.distribute.connect(["127.0.0.1:7000", "127.0.0.1:7000"])
        Traceback (most recent call last):
        ...
        ValueError: `workers` must be different ones. Received twice: 127.0.0.1:7000.
    """
    check_positive("timeout", timeout, "In seconds.")
    addresses = _checked(workers)
    own = _own_address(addresses, coordinator_address)
    _check_reachable(addresses, timeout)
    place = _join(addresses, own, timeout)
    devices = [_lent(task) for task in range(len(addresses))]
    _addresses.clear()
    _addresses.update(zip(devices, addresses, strict=True))
    mute = silent(devices, timeout)
    if mute:
        named = ", ".join(addresses[devices.index(one)] for one in mute)
        raise ConnectionError(f"A worker must answer within {timeout} seconds. Received: {named}.")
    cards = {device: read_card(device) for device in devices}
    for address, device in zip(addresses, devices, strict=True):
        _check_card(cards[device], address, place)
    for device in devices:
        sign_card(device, cards[device], place)
    return devices


def _join(addresses: list[str], own: tuple[str, int], timeout: float) -> str:
    """Let TensorFlow connect, with its own server shut to others as it must be; give its address.

    Raises:
        ConnectionError: TensorFlow could not, or not in time.
        OSError: the server's port is taken, or cannot be shut.
    """
    if _waiting and _waiting[0].empty():
        raise ConnectionError(
            "A process must be started anew while TensorFlow waits for a worker that does not "
            "answer. Received: a call after one that had no answer."
        )
    host, port = own
    with loopback_only(port) if is_loopback(host) else open_to_all(port) as port:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        box = start(_connect, tf.train.ClusterSpec({JOB: addresses, COORDINATOR: [place]}))
        _taken[:] = [place]
        try:
            went_well, result = box.get(timeout=timeout)
        except queue.Empty as error:
            _waiting[:] = [box]
            raise ConnectionError(
                f"The workers must answer within {timeout} seconds. Received: no answer from one "
                f"of {', '.join(addresses)}. See that each is a worker of "
                "`keras_trgl.distribute.worker`, then start this process anew: TensorFlow waits "
                "for the answer still."
            ) from error
        if not went_well:
            raise ConnectionError(
                f"The workers must take the connection. Received from {', '.join(addresses)}: "
                f"{str(result).splitlines()[0].rstrip('.')}. See that each is a worker of "
                "`keras_trgl.distribute.worker`."
            ) from result
    return place


def _check_card(card: dict[str, Any], address: str, own: str) -> None:
    """Raise unless a worker has the same TensorFlow, and serves nobody else who is still there."""
    version = card.get("tensorflow", tf.__version__)
    if version != tf.__version__:
        raise ValueError(
            f"Workers must run the coordinator's TensorFlow, {tf.__version__}. Received: "
            f"{version} at {address}. Install the same version there."
        )
    other = card.get("coordinator", own)
    if other != own and _is_there(other):
        raise ConnectionError(
            f"A worker must serve one coordinator at a time. Received: {address}, which serves the "
            f"one at {other}. End that one, or start another worker: `python -m "
            "keras_trgl.distribute.worker --port=…`."
        )


def _is_there(address: str) -> bool:
    try:
        socket.create_connection(_split(address, "coordinator"), timeout=QUICK).close()
    except OSError:
        return False
    return True


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
    addresses = list(workers) if isinstance(workers, list | tuple) else []
    if not addresses:
        raise (ValueError if isinstance(workers, list | tuple | str) else TypeError)(
            "`workers` must be a list of addresses, as in `['10.0.0.2:7000']`. Received: "
            f"workers={workers!r}. `LocalWorkers(2).addresses` is one."
        )
    for address in addresses:
        _split(address, "workers")
    twice = sorted({one for one in addresses if addresses.count(one) > 1})
    if twice:
        raise ValueError(f"`workers` must be different ones. Received twice: {', '.join(twice)}.")
    return addresses


def _split(address: Any, name: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    bare = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not bare or not is_port or re.search(r"[\s/,@]", host):
        raise (ValueError if isinstance(address, str) else TypeError)(
            f"`{name}` must be given as 'host:port', as in '10.0.0.2:7000'. Received: {address!r}. "
            "A worker says its own as it starts; this machine's is one with a free port."
        )
    if ":" in bare and bare == host:
        raise ValueError(
            f"`{name}` must have an address of IPv6 in brackets, as in '[::1]:7000'. Received: "
            f"{address!r}."
        )
    return bare, int(port)


_addresses: dict[str, str] = {}
"""Of the workers that are connected, by device."""


def worker_of(device: str) -> str | None:
    """Give the address of the worker that lends a device."""
    return _addresses.get(device)


_waiting: list["queue.Queue[Any]"] = []
"""Of the last call that had no answer in time. Nothing can wake TensorFlow from such a wait."""

_taken: list[str] = []
"""The coordinator's own address: TensorFlow cannot connect again from another one."""


def _own_address(workers: Sequence[str], given: str | None) -> tuple[str, int]:
    """Give host and port of this process's own server; port 0 is for a free one."""
    hosts = {one: _split(one, "workers")[0] for one in workers}
    if given is None:
        away = [one for one, host in hosts.items() if not is_loopback(host)]
        if away:
            raise ValueError(
                "`coordinator_address` must be given where workers run on other machines. "
                f"Received: workers={away}. Pass this machine's address with a port that they can "
                "reach."
            )
        return _split(_taken[0], "coordinator_address") if _taken else ("127.0.0.1", 0)
    own = _split(given, "coordinator_address")
    if given in workers:
        raise ValueError(
            "`coordinator_address` must be none of the workers'. Received: "
            f"{given!r} among both. Pass another port of this machine."
        )
    away = [one for one, host in hosts.items() if is_loopback(own[0]) and not _is_here(host)]
    if away:
        raise ValueError(
            "`coordinator_address` must be one that workers on other machines can reach. "
            f"Received: {given!r} with workers={away}. Pass this machine's own address."
        )
    if _taken and own != _split(_taken[0], "coordinator_address"):
        raise ValueError(
            "`coordinator_address` must be the same at every call: TensorFlow connects a "
            f"process again from its first address alone. Received: {given!r} after "
            f"{_taken[0]!r}. Pass that, or start another process."
        )
    return own


def _is_here(host: str) -> bool:
    """Tell whether a host is this machine: its addresses can be bound to."""
    if is_loopback(host):
        return True
    with contextlib.suppress(OSError):
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind) as one:
                one.bind(address)
                return True
    return False


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
