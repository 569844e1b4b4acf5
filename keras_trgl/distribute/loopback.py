"""Keeps TensorFlow's servers to this machine, from the first moment on.

They listen on every interface, whatever address they are given, and speak a protocol without
authentication. Nothing can be done about a server between its first packet and a filter: gRPC
keeps a call that came meanwhile and runs it after `start()`, though its connection was shut.

So the port is taken beforehand, by a socket of this module, the gate. The server joins it
(`SO_REUSEPORT`), and a program of the group (Linux, `SO_ATTACH_REUSEPORT_CBPF`) decides who gets a
packet: what is sent to 127.0.0.0/8 or ::1 goes to the server, all else to the gate, which drops it.
As a second lock the server's own socket gets a filter (`SO_ATTACH_FILTER`). Neither needs rights.
"""

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator

SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF = 26, 51
NETWORK_HEADER = -0x100000 & 0xFFFFFFFF
LOAD_BYTE, LOAD_WORD, SHIFT_RIGHT, AND, EQUAL, GIVE = 0x30, 0x20, 0x74, 0x54, 0x15, 0x06
ALL, NOTHING = 0xFFFFFFFF, 0
"""What a filter gives: how many bytes of a packet pass."""
SERVER, GATE = 1, 0
"""What a group's program gives: who gets a packet, by the order in which they began to listen."""

SHARING = "TF_GRPC_REUSE_PORT"
"""TensorFlow reads it when it makes a server. Without it the server finds the port taken."""

TO_LOOPBACK = [
    # (operation, further steps to skip if true, if false, operand)
    (LOAD_BYTE, 0, 0, NETWORK_HEADER),
    (SHIFT_RIGHT, 0, 0, 4),
    (EQUAL, 0, 3, 4),  # IPv4: destination at byte 16.
    (LOAD_WORD, 0, 0, NETWORK_HEADER + 16),
    (AND, 0, 0, 0xFF000000),
    (EQUAL, 8, 9, 0x7F000000),
    (LOAD_WORD, 0, 0, NETWORK_HEADER + 24),  # IPv6: destination at bytes 24 to 39.
    (EQUAL, 0, 7, 0),
    (LOAD_WORD, 0, 0, NETWORK_HEADER + 28),
    (EQUAL, 0, 5, 0),
    (LOAD_WORD, 0, 0, NETWORK_HEADER + 32),
    (EQUAL, 0, 3, 0),
    (LOAD_WORD, 0, 0, NETWORK_HEADER + 36),
    (EQUAL, 0, 1, 1),
]
"""Ends with two answers, for packets to this machine and for all others."""

_gates: dict[int, socket.socket] = {}
"""By port. They stay as long as this process: a server may listen late, or anew."""


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@contextlib.contextmanager
def loopback_only(port: int) -> Iterator[int]:
    """Let a server that is made within hear from this machine alone, from its first packet on.

    Args:
        port: int. Where the server is to listen; 0 takes a free one.

    Yields:
        int. The port to give to the server.

    Raises:
        OSError: the port is taken; the system has no such filters; the server does not listen, or
            not beside the gate. Then it must not be started.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(
            "Only on Linux can TensorFlow's server be kept to this machine. Received: "
            f"{sys.platform}. Guard the port by a firewall, and pass the machine's own address."
        )
    gate = _gates.get(port) or _gate(port)
    port = int(gate.getsockname()[1])
    _gates[port] = gate
    before = os.environ.get(SHARING)
    os.environ[SHARING] = "1"
    try:
        yield port
    except BaseException:
        # It may listen all the same. If it does not, or not yet, the gate is there.
        with contextlib.suppress(OSError):
            keep_to_loopback(port)
        raise
    else:
        keep_to_loopback(port)
    finally:
        os.environ.pop(SHARING)
        if before is not None:
            os.environ[SHARING] = before


@contextlib.contextmanager
def open_to_all(port: int) -> Iterator[int]:
    """See that a port is free for a server that is made within, and hears from everywhere.

    Args:
        port: int. Where the server is to listen; 0 takes a free one.

    Yields:
        int. The same port.

    Raises:
        OSError: the port is taken.
    """
    if port in _gates:
        raise OSError(
            "A server hears its own machine alone, or the network, as long as its process lives. "
            f"Received: port {port}, which is kept to this machine. Pass another port."
        )
    # TensorFlow goes on with the server of an earlier call.
    if not port or not list(_listeners(port)):
        _bound(port).close()
    yield port


def keep_to_loopback(port: int) -> None:
    """Let the server that listens on a port of this process hear from this machine alone.

    Args:
        port: int.

    Raises:
        OSError: the filter is refused, nothing listens there, or a server that has not joined the
            gate of its port.
    """
    gate, found = _gates.get(port), False
    for one in _listeners(port):
        _attach(one, SO_ATTACH_FILTER, ALL, NOTHING)
        found = True
        if gate is not None and not _is_beside(one, gate):
            raise OSError(
                f"TensorFlow's server must listen as the gate does, at {gate.getsockname()}. "
                f"Received: {one.getsockname()}. It was open until now: end this process."
            )
    if not found:
        raise OSError(f"Nothing in this process listens on port {port}.")


def _gate(port: int) -> socket.socket:
    gate = _bound(port)
    try:
        # After the port is taken, or another process that shares ports could hold it too.
        gate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _attach(gate, SO_ATTACH_REUSEPORT_CBPF, SERVER, GATE)
        _attach(gate, SO_ATTACH_FILTER, NOTHING, NOTHING)
        gate.listen(1)
    except BaseException:
        gate.close()
        raise
    return gate


def _bound(port: int) -> socket.socket:
    """Give a socket that holds a port alone, as gRPC would: of both families where ::1 is."""
    family = socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        family = socket.AF_INET6
    holder = socket.socket(family)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        holder.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    except OSError as error:
        holder.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise OSError(
            f"A server's port must be free. Received: port {port}, {error.strerror}. Pass another "
            f"port, or end who holds it: `ss -ltnp 'sport = :{port}'` tells."
        ) from error
    return holder


def _attach(one: socket.socket, option: int, to_loopback: int, else_: int) -> None:
    """Attach a program to a socket: what it gives for packets to this machine, and for others."""
    program = [*TO_LOOPBACK, (GIVE, 0, 0, to_loopback), (GIVE, 0, 0, else_)]
    steps = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(steps)
    packed = struct.pack("HP", len(program), ctypes.addressof(buffer))
    try:
        one.setsockopt(socket.SOL_SOCKET, option, packed)
    except OSError as error:
        raise OSError(
            "TensorFlow's server must be kept to this machine by a packet filter. Received: "
            f"{error.strerror} from the system. Guard the port by a firewall, and pass the "
            "machine's own address."
        ) from error


def _is_beside(server: socket.socket, gate: socket.socket) -> bool:
    """Tell whether a server is in the gate's group: same family, same address, shared."""
    shared = server.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    same = server.family == gate.family and server.getsockname() == gate.getsockname()
    return bool(shared) and same


def _listeners(port: int) -> Iterator[socket.socket]:
    """Give a copy of each socket by which this process listens on a port, but for the gate."""
    gate = _gates.get(port)
    own = None if gate is None else os.fstat(gate.fileno()).st_ino
    for one in _sockets():
        if _listens_on(one, port) and os.fstat(one.fileno()).st_ino != own:
            yield one


def _sockets() -> Iterator[socket.socket]:
    """Give a copy of each of this process's sockets, closed afterwards."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            descriptor = os.dup(int(entry))
        except OSError:
            continue  # It was closed meanwhile.
        try:
            copy = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)  # It is no socket.
            continue
        with copy:
            yield copy


def _listens_on(one: socket.socket, port: int) -> bool:
    try:
        listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(listens) and int(one.getsockname()[1]) == port
    except (OSError, IndexError, TypeError, ValueError):
        return False  # Not of the internet.
