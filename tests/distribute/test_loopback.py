"""Who can reach a server of TensorFlow, from its first moment on: this machine alone.

Strangers knock from the machine's own address on its network, and from a network namespace of the
test's own, where it may make one (Linux, root). Nothing else is knocked on.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from keras_trgl.distribute import loopback, worker
from keras_trgl.distribute.loopback import is_loopback, keep_to_loopback, loopback_only, open_to_all

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="The filters are Linux's."
)
STRANGER = pathlib.Path(__file__).with_name("stranger.py")
knock = runpy.run_path(str(STRANGER))["knock"]
ENVIRONMENT = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def own_address(family=socket.AF_INET):
    """Give this machine's address on its network, or `None`. Nothing is sent."""
    far = "10.255.255.255" if family == socket.AF_INET else "fd00:ffff::1"
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as one:
        one.connect((far, 1))
        host = one.getsockname()[0]
        return None if is_loopback(host) else host
    return None


# Strangers.


@dataclasses.dataclass
class Place:
    """Where a stranger stands: a command before its own, and the address that it knocks at."""

    before: list
    host: str


def run(*words):
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture(scope="module")
def namespace():
    """A network namespace joined to this one by a cable; its name, and our ends' addresses."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("Only root can make a network namespace, with iproute2.")
    name, cable = f"trgl{os.getpid()}", f"tr{os.getpid()}"
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError:
        pytest.skip("Network namespaces are not allowed here.")
    inside = ["ip", "-n", name]
    try:
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "there", "netns", name)
        run("ip", "address", "add", "198.18.77.1/30", "dev", cable)
        run("ip", "address", "add", "fd00:7267::1/64", "dev", cable, "nodad")
        run(*inside, "address", "add", "198.18.77.2/30", "dev", "there")
        run(*inside, "address", "add", "fd00:7267::2/64", "dev", "there", "nodad")
        run("ip", "link", "set", cable, "up")
        run(*inside, "link", "set", "there", "up")
        yield name
    finally:
        run("ip", "netns", "delete", name)


def stand(where, request):
    """Give a place, or skip."""
    if where.startswith("namespace"):
        name = request.getfixturevalue("namespace")
        host = "198.18.77.1" if where.endswith("v4") else "fd00:7267::1"
        return Place(["ip", "netns", "exec", name], host)
    host = own_address(socket.AF_INET if where.endswith("v4") else socket.AF_INET6)
    if host is None:
        pytest.skip("This machine has no such address but the loopback's.")
    return Place([], host)


@contextlib.contextmanager
def knocking(place, port):
    """Let a stranger knock meanwhile; what it saw is in the dict afterwards."""
    command = [*place.before, sys.executable, str(STRANGER), place.host, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        try:
            assert one.stdout.readline() == b"ready\n"
            seen = {}
            yield seen
            seen |= json.loads(one.communicate(timeout=20)[0])
        finally:
            one.kill()


# Servers.

SERVER = """
import sys, time
import tensorflow as tf
from keras_trgl.distribute.loopback import keep_to_loopback, loopback_only

def make(port):
    cluster = tf.train.ClusterSpec({"worker": [f"127.0.0.1:{port}"]})
    return tf.distribute.Server(
        cluster, job_name="worker", task_index=0, protocol="grpc", start=False)

def say(word):
    print(word, flush=True)

"""
"""A process that makes servers. What follows it is a test's own."""

ROUNDS = """
for line in iter(sys.stdin.readline, ""):
    is_shut, port = map(int, line.split())
    if is_shut:
        with loopback_only(port):
            server = make(port)
    else:
        server = make(port)
        time.sleep(0.02)
        keep_to_loopback(port)
    server.start()
    say("open")
"""

FROZEN = """
with loopback_only(int(sys.argv[1])) as port:
    server = make(port)
    say("made")
    time.sleep(60)
"""

COORDINATOR = """
import sys
import keras_trgl as trgl
worker, port = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
try:
    trgl.distribute.connect([worker], f"127.0.0.1:{port}", timeout=float(sys.stdin.readline()))
except ConnectionError as error:
    print(error, flush=True)
else:
    print("connected", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def process(*command):
    """Run a process until the block ends; `ask(process, line)` gives its next line."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
        errors="replace",
    ) as one:
        try:
            yield one
        finally:
            one.kill()


def python(code, *arguments):
    return process(sys.executable, "-c", code, *map(str, arguments))


def ask(one, line=None, until=""):
    """Give the next line that begins so."""
    if line is not None:
        one.stdin.write(f"{line}\n")
        one.stdin.flush()
    for said in one.stdout:
        if said.startswith(until):
            return said.strip()
    raise AssertionError(f"The process ended: {one.stderr.read()[-2000:]}")


def reaches(host, port):
    return knock(host, port, patience=1.0) == (True, True)


PLACES = ["own v4", "own v6", "namespace v4", "namespace v6"]


@pytest.fixture(scope="module")
def maker():
    with python(SERVER + ROUNDS) as one:
        yield one


@pytest.mark.parametrize("where", PLACES)
def test_no_stranger_gets_through_while_servers_start(where, request, maker):
    place, seen = stand(where, request), []
    for is_shut in [*[1] * 6, 0]:
        port = free_port()
        with knocking(place, port) as one:
            assert ask(maker, f"{is_shut} {port}") == "open"
            assert reaches("127.0.0.1", port)
            time.sleep(0.05)
        seen.append(one)
    *shut, late = seen
    assert sum(one["knocked"] for one in shut) > 30, shut
    assert sum(one["connected"] for one in shut) == 0
    assert late["answered"] > 0, "The same stranger gets through where a filter comes later."


@pytest.mark.parametrize("where", ["own v4", pytest.param("namespace v6", marks=pytest.mark.slow)])
def test_no_stranger_reaches_a_worker_from_its_start_on(where, request):
    place, port = stand(where, request), free_port()
    with (
        knocking(place, port) as seen,
        process(sys.executable, "-m", "keras_trgl.distribute.worker", f"--port={port}") as one,
    ):
        assert ask(one, until="listening on").startswith(f"listening on 127.0.0.1:{port},")
        assert reaches("127.0.0.1", port)
        assert reaches("::1", port) or own_address(socket.AF_INET6) is None
        time.sleep(0.2)
    assert seen["knocked"] > 10, seen
    assert seen["connected"] == 0


@pytest.mark.parametrize(
    ("answers", "timeout", "said"),
    [
        pytest.param(True, 30.0, "connected", marks=pytest.mark.slow),
        (False, 1.0, "The workers must answer within 1.0 seconds"),
    ],
    ids=["connected", "failed"],
)
def test_no_stranger_reaches_a_coordinator_whether_it_connects_or_not(
    answers, timeout, said, request, maker
):
    place, port, at = stand("own v4", request), free_port(), free_port()
    with contextlib.ExitStack() as stack:
        if answers:
            assert ask(maker, f"1 {at}") == "open"
        else:
            stack.enter_context(socket.create_server(("127.0.0.1", at)))
        coordinator = stack.enter_context(python(COORDINATOR, f"127.0.0.1:{at}", port))
        ask(coordinator, until="ready")
        with knocking(place, port) as seen:
            assert ask(coordinator, f"\n{timeout}").startswith(said)
            assert reaches("127.0.0.1", port), "TensorFlow listens."
            time.sleep(0.5)
    assert seen["knocked"] > 10, seen
    assert seen["connected"] == 0


def test_a_server_that_gets_no_further_than_listening_is_shut_and_frees_its_port(request):
    place, port = stand("own v4", request), free_port()
    with python(SERVER + FROZEN, port) as one:
        ask(one, until="made")
        one.send_signal(signal.SIGSTOP)
        with knocking(place, port) as seen:
            time.sleep(0.3)
            one.kill()
            one.wait()
            time.sleep(0.1)
    assert seen["knocked"] > 10, seen
    assert seen["connected"] == 0
    with open_to_all(port):
        pass


@pytest.mark.slow
def test_a_machine_without_ipv6_is_kept_to_itself_too():
    if shutil.which("ip") is None or shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("Only root can make a network namespace, with iproute2.")
    code = f"""
import pathlib, subprocess
off = pathlib.Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
off.write_text("1") if off.exists() else None
for words in ("link set lo up", "address add 198.18.78.1/32 dev lo"):
    subprocess.run(["ip", *words.split()], check=True)
sys.path.insert(0, {str(STRANGER.parent)!r})
from stranger import knock
with loopback_only(0) as port:
    server = make(port)
    early = knock("198.18.78.1", port, 0.3)
server.start()
say([knock("127.0.0.1", port, 1.0), early, knock("198.18.78.1", port, 0.3)])
"""
    with process("unshare", "-n", sys.executable, "-c", SERVER + code) as one:
        said = ask(one, until="[")
    assert said == str([(True, True), (False, False), (False, False)])


# What cannot be shut is not opened.


@pytest.fixture
def servers(monkeypatch):
    """What is done to servers, which listen but are none of TensorFlow's; and no gate so far."""
    done = []

    class Server:
        def __init__(self, cluster, start, **_):
            assert start is False
            port = int(cluster.task_address("worker", 0).rpartition(":")[2])
            with loopback._bound(0) as like_the_gate:
                self.socket = socket.socket(like_the_gate.family)
                host = like_the_gate.getsockname()[0]
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self.socket.bind((Server.host or host, port))
            self.socket.listen()
            done.append(self)

        def start(self):
            done.append("started")

    Server.host = None
    monkeypatch.setattr(tf.distribute, "Server", Server)
    monkeypatch.setattr(loopback, "_gates", {})
    yield done
    for one in [*loopback._gates.values(), *(one.socket for one in done if one != "started")]:
        one.close()


UNKNOWN_OPTION = 9999


@pytest.mark.parametrize(
    ("module", "name", "value", "made", "said"),
    [
        (
            loopback,
            "SO_ATTACH_REUSEPORT_CBPF",
            UNKNOWN_OPTION,
            0,
            "by a packet filter. Received: P",
        ),
        (loopback, "SO_ATTACH_FILTER", UNKNOWN_OPTION, 0, "by a packet filter. Received: Protocol"),
        (sys, "platform", "darwin", 0, "Only on Linux .* Received: darwin. Guard the port by a"),
        (loopback, "_listeners", lambda port: iter(()), 1, "Nothing in this process listens on"),
        (
            loopback,
            "_is_beside",
            lambda *_: False,
            1,
            "must listen as the gate does.*end this proc",
        ),
    ],
    ids=["no group", "no filter", "no Linux", "elsewhere", "beside no gate"],
)
def test_a_server_that_cannot_be_shut_is_not_started(
    module, name, value, made, said, servers, monkeypatch
):
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(module, name, value)
    with pytest.raises(OSError, match=said) as error:
        worker._listen("127.0.0.1", free_port())
    assert len(str(error.value)) < 400
    assert "started" not in servers
    assert len(servers) == made
    if not made:
        assert len(os.listdir("/proc/self/fd")) == before, "No descriptor is left."


def test_a_server_that_may_be_shut_is_started(servers):
    started = worker._listen("127.0.0.1", 0)
    assert servers == [started, "started"]
    assert loopback.SHARING not in os.environ


def test_the_users_own_setting_for_shared_ports_is_put_back(servers, monkeypatch):
    monkeypatch.setenv(loopback.SHARING, "0")
    worker._listen("127.0.0.1", 0)
    assert os.environ[loopback.SHARING] == "0"


def test_a_worker_that_cannot_be_shut_ends_with_a_sentence(servers, monkeypatch):
    monkeypatch.setattr(loopback, "SO_ATTACH_REUSEPORT_CBPF", UNKNOWN_OPTION)
    monkeypatch.setattr(worker, "show_card", lambda: None)
    with pytest.raises(
        SystemExit, match=r"No worker was started. TensorFlow's server must be kept"
    ):
        worker._started("127.0.0.1", 0)
    assert servers == []


@pytest.mark.parametrize("door", [loopback_only, open_to_all])
@pytest.mark.parametrize("shares", [False, True], ids=["alone", "sharing"])
def test_a_port_that_another_holds_is_told(door, shares, servers):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        said = f"must be free. Received: port {port}, Address already in use. Pass another port"
        # A thread of this process that listens is taken for TensorFlow's own.
        with pytest.raises(OSError, match=said), door(port):
            pass


def test_a_second_server_on_a_shut_port_is_refused(servers):
    worker._listen("127.0.0.1", port := free_port())
    # As a file: it needs no TensorFlow.
    code = f"""
import runpy
with runpy.run_path({loopback.__file__!r})["loopback_only"]({port}):
    pass
"""
    with python(code) as second:
        _, said = second.communicate(timeout=120)
    assert f"OSError: A server's port must be free. Received: port {port}" in said


def test_a_port_is_kept_to_this_machine_or_open_but_not_both(servers):
    worker._listen("127.0.0.1", port := free_port())
    with pytest.raises(OSError, match=f"port {port}, which is kept to this machine"):
        worker._listen("10.0.0.2", port)


def test_a_call_that_fails_leaves_the_gate_and_a_later_one_finds_it(servers):
    with pytest.raises(KeyError), loopback_only(port := free_port()):
        raise KeyError
    assert list(loopback._gates) == [port]
    worker._listen("127.0.0.1", port)
    assert list(loopback._gates) == [port]


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        *[(host, True) for host in ("localhost", "LocalHost", "127.0.0.1", "127.1.2.3", "::1")],
        *[(host, False) for host in ("127.evil.example", "10.0.0.2", "::", "0.0.0.0", "fd00::1")],
        ("::ffff:127.0.0.1", True),
        ("", False),
    ],
)
def test_which_hosts_are_this_machine_alone(host, wanted):
    assert is_loopback(host) is wanted


# The second lock.


def connects(host, port):
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_the_filter_lets_nothing_through_but_the_loopback(family):
    own = own_address()
    with socket.socket(family) as server:
        server.bind(("0.0.0.0" if family == socket.AF_INET else "::", 0))
        server.listen()
        port = server.getsockname()[1]
        if own is not None:
            assert connects(own, port)
        keep_to_loopback(port)
        assert connects("127.0.0.1", port)
        assert connects("127.1.2.3", port)
        if family == socket.AF_INET6:
            assert connects("::1", port)
        if own is not None:
            assert not connects(own, port)


def test_no_descriptor_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    with open(__file__), socket.create_server(("127.0.0.1", 0)) as server:
        keep_to_loopback(server.getsockname()[1])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_port_where_nothing_listens_is_an_error():
    with pytest.raises(OSError, match="Nothing in this process listens"):
        keep_to_loopback(free_port())
