"""Keeps TensorFlow's servers to this machine.

They listen on every interface, whatever address they are given, and speak a protocol without
authentication. A packet filter on the listening socket (Linux, `SO_ATTACH_FILTER`) lets nothing
through but what is sent to 127.0.0.0/8 or ::1; it needs no rights.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator

SO_ATTACH_FILTER = 26
NETWORK_HEADER = -0x100000 & 0xFFFFFFFF
LOAD_BYTE, LOAD_WORD, SHIFT_RIGHT, AND, EQUAL, GIVE = 0x30, 0x20, 0x74, 0x54, 0x15, 0x06
ALL, NOTHING = 0xFFFFFFFF, 0

PROGRAM = [
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
    (GIVE, 0, 0, ALL),
    (GIVE, 0, 0, NOTHING),
]


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine alone."""
    return host in ("localhost", "::1") or host.startswith("127.")


def keep_to_loopback(port: int) -> None:
    """Let the server that listens on a port of this process hear from this machine alone.

    Args:
        port: int.

    Raises:
        OSError: the system has no such filter, or nothing listens there.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(
            "Only on Linux can TensorFlow's server be kept to this machine. Received: "
            f"{sys.platform}. Guard the port by a firewall, and pass the machine's own address."
        )
    steps = b"".join(struct.pack("HBBI", *step) for step in PROGRAM)
    buffer = ctypes.create_string_buffer(steps)
    program = struct.pack("HP", len(PROGRAM), ctypes.addressof(buffer))
    found = False
    for one in _sockets():
        if _listens_on(one, port):
            one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
            found = True
    if not found:
        raise OSError(f"Nothing in this process listens on port {port}.")


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
