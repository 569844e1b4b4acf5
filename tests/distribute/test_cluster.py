"""Connecting to workers: what is refused at the door, and who can reach a worker."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf

from keras_trgl.distribute import LocalWorkers, cluster, connect, worker, worker_card

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
        (["grpc://10.0.0.2:7000"], {}, "must be given as 'host:port'.*A worker says its own as"),
        (["10.0.0.2:7000,10.0.0.3:7000"], {}, "must be given as 'host:port'"),
        ([" 10.0.0.2:7000"], {}, "must be given as 'host:port'"),
        (["10.0.0.2:\uff17"], {}, "must be given as 'host:port'"),
        (["10.0.0.2:70000"], {}, "must be given as 'host:port'"),
        (["CPU:0"], {}, "must be given as 'host:port'"),
        ([":7000"], {}, "must be given as 'host:port'"),
        (["::1:7000"], {}, r"IPv6 in brackets, as in '\[::1\]:7000'. Received: '::1:7000'"),
        (
            ["127.0.0.1:7000"],
            {"coordinator_address": "127.0.0.1:7000"},
            "none of the workers'. Received: '127.0.0.1:7000' among both. Pass another port",
        ),
        (
            ["127.0.0.1:7000", "203.0.113.7:7000"],
            {"coordinator_address": "[::1]:7001"},
            r"can reach. Received: '\[::1\]:7001' with workers=\['203.0.113.7.*own address",
        ),
    ],
)
def test_addresses_that_cannot_be_are_refused(workers, options, said):
    with pytest.raises(ValueError, match=said):
        connect(workers, **options)


@pytest.mark.parametrize(
    ("workers", "options", "said"),
    [
        (None, {}, "must be a list of addresses.*Received: workers=None"),
        (7000, {}, "must be a list of addresses"),
        (LocalWorkers, {}, r"must be a list of addresses.*`LocalWorkers\(2\).addresses` is one"),
        ({"10.0.0.2:7000"}, {}, "must be a list of addresses"),
        ([7000], {}, "must be given as 'host:port'.*Received: 7000"),
        ([("10.0.0.2", 7000)], {}, "must be given as 'host:port'"),
        (["127.0.0.1:1"], {"coordinator_address": 7001}, "`coordinator_address` must be given as"),
        (["127.0.0.1:1"], {"timeout": "1"}, "`timeout` must be a number above 0"),
    ],
)
def test_what_is_no_list_of_addresses_is_refused(workers, options, said):
    with pytest.raises(TypeError, match=said) as error:
        connect(workers, **options)
    assert str(error.value).count("\n") < 5


def test_a_worker_that_is_not_there_is_named_within_seconds():
    missing, began = f"127.0.0.1:{free_port()}", time.monotonic()
    with listening() as there, pytest.raises(ConnectionError, match=f"Received: {missing}"):
        connect([there, missing], timeout=1.0)
    assert time.monotonic() - began < 4.0


@pytest.fixture
def mute_cluster(monkeypatch):
    """Lets `connect` take this process's own CPU for that of a worker."""

    @contextlib.contextmanager
    def door(port):
        yield port or 7001

    monkeypatch.setattr(cluster, "_connect", lambda cluster: None)
    monkeypatch.setattr(cluster, "_lent", lambda task: "/device:CPU:0")
    monkeypatch.setattr(cluster, "loopback_only", door)
    monkeypatch.setattr(cluster, "_taken", [])
    monkeypatch.setattr(cluster, "_waiting", [])
    return monkeypatch


def test_a_server_that_does_not_answer_is_told_apart(mute_cluster):
    answer = threading.Event()
    mute_cluster.setattr(cluster, "_connect", lambda _: answer.wait(60))
    with listening() as address:
        with pytest.raises(ConnectionError, match=f"no answer.*{address}.*start this process anew"):
            connect([address], timeout=0.5)
        with pytest.raises(ConnectionError, match="must be started anew while TensorFlow waits"):
            connect([address])
        # One that was only slow is no reason to start anew.
        answer.set()
        cluster._waiting[0].put(cluster._waiting[0].get(timeout=5))
        assert connect([address]) == ["/device:CPU:0"]


def test_what_tensorflow_says_of_a_server_that_is_no_worker_is_passed_on(mute_cluster):
    def fail(_):
        raise tf.errors.UnavailableError(None, None, "no gRPC.\nA long story.")

    mute_cluster.setattr(cluster, "_connect", fail)
    with listening() as address:
        said = f"must take the connection. Received from {address}: no gRPC. See that each is"
        with pytest.raises(ConnectionError, match=said) as error:
            connect([address])
    assert "\n" not in str(error.value)


def test_a_process_has_one_address_as_coordinator(mute_cluster):
    with listening() as address:
        connect([address], "127.0.0.1:7005")
        assert connect([address]) == connect([address], "127.0.0.1:7005")
        said = "same at every call.* Received: '127.0.0.1:7006' after '127.0.0.1:7005'. Pass that"
        with pytest.raises(ValueError, match=said):
            connect([address], "127.0.0.1:7006")


def test_the_coordinators_port_must_be_free(monkeypatch):
    monkeypatch.setattr(cluster, "_taken", [])
    with listening() as address, socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"must be free. Received: port {port}"):
            connect([address], f"127.0.0.1:{port}")
    assert cluster._taken == [], "Another one may be tried."


@pytest.fixture
def card():
    worker_card.show_card()
    yield
    os.close(worker_card.DESCRIPTOR)


@linux
def test_a_worker_with_another_tensorflow_is_refused(mute_cluster, card):
    with listening() as address:
        assert connect([address]) == ["/device:CPU:0"]
        with pytest.MonkeyPatch.context() as other:
            other.setattr("tensorflow.__version__", "1.2.3")
            worker_card.show_card()
        said = f"must run the coordinator's TensorFlow.*Received: 1.2.3 at {address}"
        with pytest.raises(ValueError, match=said):
            connect([address])


@linux
def test_a_worker_serves_one_coordinator_until_that_is_gone(mute_cluster, card):
    with listening() as address:
        with listening() as first:
            assert connect([address], first) == connect([address], first)
            mute_cluster.setattr(cluster, "_taken", [])
            said = f"one coordinator at a time. Received: {address}, which .* at {first}. End that"
            for _ in range(2):
                with pytest.raises(ConnectionError, match=said):
                    connect([address], "127.0.0.1:7009")
        assert connect([address], "127.0.0.1:7009") == ["/device:CPU:0"]
        assert worker_card.read_card("/device:CPU:0")["coordinator"] == "127.0.0.1:7009"


@linux
def test_a_card_is_no_childs(card):
    assert not os.get_inheritable(worker_card.DESCRIPTOR)


@linux
@pytest.mark.long
@pytest.mark.multi_device
def test_a_second_coordinator_is_told_and_the_first_goes_on():
    code = """
import sys
import tensorflow as tf
import keras_trgl as trgl
try:
    device = trgl.distribute.connect(sys.argv[1:], timeout=60.0)[0]
except ConnectionError as error:
    sys.exit(f"told: {error}")
with tf.device(device):
    total = tf.Variable(0.0)
for line in iter(sys.stdin.readline, ""):
    print(total.assign_add(float(line)).numpy(), flush=True)
"""
    with LocalWorkers(1) as workers:
        command = [sys.executable, "-c", code, *workers.addresses]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, bufsize=1, **pipes) as first:
            try:
                for wanted in (1.0, 2.0):
                    first.stdin.write("1\n")
                    assert float(first.stdout.readline()) == wanted
                    second = subprocess.run(command, capture_output=True, text=True, timeout=300)
                    assert second.returncode == 1
                    assert f"one coordinator at a time. Received: {workers.addresses[0]}" in (
                        second.stderr
                    )
            finally:
                first.kill()
        third = subprocess.run(command, capture_output=True, text=True, timeout=300, input="5\n")
        assert third.stdout == "5.0\n"


@linux
def test_too_few_descriptors_are_told_before_anything_listens():
    command = f"ulimit -n 256; exec '{sys.executable}' -m keras_trgl.distribute.worker"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    said = (
        "No worker was started. A worker must be allowed more than 300 open files. Received: a "
        "limit of 256. Raise it before the start: `ulimit -n 1024`.\n"
    )
    assert done.stderr.endswith(said)
    assert done.stdout == ""


@linux
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.0.0.2"])
def test_a_workers_port_must_be_free(host, card):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        holder = {"fileno": other.detach()}
    code = f"import socket, time; socket.socket(fileno={holder['fileno']}); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=holder.values()) as other:
        os.close(holder["fileno"])
        try:
            with pytest.raises(SystemExit, match=f"No worker .* be free. Received: port {port}, A"):
                worker._started(host, port)
        finally:
            other.kill()


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


CORES = "must be {} sets of core numbers, one per worker, below .*Received: cores="


@linux
@pytest.mark.parametrize(
    ("count", "cores"),
    [(1, []), (1, [0]), (1, 0), (1, [set()]), (1, [{10**6}]), (2, [{0}]), (1, {0: {0}})],
)
def test_cores_that_are_not_there_are_refused(count, cores):
    with pytest.raises(ValueError, match=CORES.format(count)):
        LocalWorkers(count, cores=cores)


@pytest.mark.parametrize("count", ["2", 2.0, True, None, ["127.0.0.1:7000"]])
def test_a_number_of_workers_is_an_integer(count):
    with pytest.raises(TypeError, match=r"`count` must be an integer. Received: count="):
        LocalWorkers(count)
