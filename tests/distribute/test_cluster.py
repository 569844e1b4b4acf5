"""Connecting to workers: what is refused at the door, and who can reach a worker."""

import contextlib
import os
import socket
import sys
import time

import pytest

from keras_trgl.distribute import LocalWorkers, connect, worker_card
from keras_trgl.distribute.loopback import is_loopback, keep_to_loopback

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="The filter is Linux's.")


@contextlib.contextmanager
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    ("workers", "options", "said"),
    [
        ([], {}, r"must be a list of addresses.*Received: workers=\[\]"),
        ("10.0.0.2:7000", {}, "must be a list of addresses"),
        (["10.0.0.2"], {}, "`workers` must be given as 'host:port'.*Received: '10.0.0.2'"),
        (["10.0.0.2:0"], {}, "must be given as 'host:port'"),
        (["10.0.0.2:http"], {}, "must be given as 'host:port'"),
        (["a:1", "b:2", "a:1"], {}, "must be different ones. Received twice: a:1"),
        (["10.0.0.2:7000"], {}, "`coordinator_address` must be given where workers run on other"),
        (["127.0.0.1:1"], {"coordinator_address": "me"}, "`coordinator_address` must be given as"),
        (["127.0.0.1:1"], {"timeout": 0}, "`timeout` must be above 0"),
    ],
)
def test_addresses_that_cannot_be_are_refused(workers, options, said):
    with pytest.raises(ValueError, match=said):
        connect(workers, **options)


def test_a_worker_that_is_not_there_is_named_within_seconds():
    missing, began = f"127.0.0.1:{free_port()}", time.monotonic()
    with listening() as there, pytest.raises(ConnectionError, match=f"Received: {missing}"):
        connect([there, missing], timeout=1.0)
    assert time.monotonic() - began < 4.0


@pytest.fixture
def mute_cluster(monkeypatch):
    """Lets `connect` take this process's own CPU for that of a worker."""
    module = "keras_trgl.distribute.cluster"
    monkeypatch.setattr(f"{module}._connect", lambda cluster: None)
    monkeypatch.setattr(f"{module}._lent", lambda task: "/device:CPU:0")
    monkeypatch.setattr(f"{module}.keep_to_loopback", lambda port: None)
    return monkeypatch


def test_a_server_that_does_not_answer_is_told_apart(mute_cluster):
    mute_cluster.setattr("keras_trgl.distribute.cluster._connect", lambda _: time.sleep(60))
    with listening() as address, pytest.raises(ConnectionError, match=f"no answer.*{address}"):
        connect([address], timeout=0.5)


@linux
def test_a_worker_with_another_tensorflow_is_refused(mute_cluster):
    try:
        with listening() as address:
            worker_card.show_card()
            assert connect([address]) == ["/device:CPU:0"]
            with pytest.MonkeyPatch.context() as other:
                other.setattr("tensorflow.__version__", "1.2.3")
                worker_card.show_card()
            said = f"must run the coordinator's TensorFlow.*Received: 1.2.3 at {address}"
            with pytest.raises(ValueError, match=said):
                connect([address])
    finally:
        os.close(worker_card.DESCRIPTOR)


def own_address():
    """Give this machine's address on its network, or `None`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("10.255.255.255", 1))
        except OSError:
            return None
        return one.getsockname()[0]


def reaches(host, port):
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


@linux
def test_a_worker_hears_this_machine_alone():
    own = own_address()
    if own is None or is_loopback(own):
        pytest.skip("This machine has no address but the loopback's.")
    with LocalWorkers(1) as workers:
        port = int(workers.addresses[0].rpartition(":")[2])
        assert reaches("127.0.0.1", port)
        assert not reaches(own, port)
    assert workers.processes[0].returncode is not None, "Nothing is left behind."
    assert not reaches("127.0.0.1", port)


@linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_the_filter_lets_nothing_through_but_the_loopback(family):
    own = own_address()
    with socket.socket(family) as server:
        server.bind(("0.0.0.0" if family == socket.AF_INET else "::", 0))
        server.listen()
        port = server.getsockname()[1]
        if own is not None:
            assert reaches(own, port)
        keep_to_loopback(port)
        assert reaches("127.0.0.1", port)
        assert reaches("127.1.2.3", port)
        if family == socket.AF_INET6:
            assert reaches("::1", port)
        if own is not None and not is_loopback(own):
            assert not reaches(own, port)


@linux
def test_no_descriptor_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    with open(__file__), socket.create_server(("127.0.0.1", 0)) as server:
        keep_to_loopback(server.getsockname()[1])
    assert len(os.listdir("/proc/self/fd")) == before


@linux
def test_a_port_where_nothing_listens_is_an_error():
    with pytest.raises(OSError, match="Nothing in this process listens"):
        keep_to_loopback(free_port())


def test_a_worker_that_cannot_start_says_why(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such module\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(RuntimeError, match=r"must start within .*Received: no such module"):
        LocalWorkers(1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((0,), "`count` must be at least 1"), ((1, -1), "`threads` must be at least 0")],
)
def test_numbers_of_workers_out_of_range_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        LocalWorkers(*arguments)
