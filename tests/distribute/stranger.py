"""Knocks on one port of this machine, again and again, and tells how often TensorFlow answered.

`python tests/distribute/stranger.py HOST PORT` says "ready", knocks until its standard input
closes, one minute or 100,000 knocks at most, and prints how often it "knocked", was "connected",
and "answered". A server of gRPC answers a greeting before it takes any call.
"""

import json
import socket
import sys
import threading
import time

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SECONDS, KNOCKS, PATIENCE = 60.0, 100_000, 0.005


def knock(host, port, patience=PATIENCE):
    """Give whether there was a connection, and whether somebody answered the greeting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(patience)
        try:
            one.connect((host, port))
        except OSError:
            return False, False
        one.settimeout(max(patience, 0.2))
        try:
            one.sendall(GREETING)
            return True, bool(one.recv(1))
        except OSError:
            return True, False


def main(host, port):
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    end = time.monotonic() + SECONDS
    seen = {"knocked": 0, "connected": 0, "answered": 0}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not over.is_set() and time.monotonic() < end and seen["knocked"] < KNOCKS:
        connected, answered = knock(host, port)
        seen["knocked"] += 1
        seen["connected"] += connected
        seen["answered"] += answered
        time.sleep(0.0002)
    sys.stdout.write(json.dumps(seen) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
