"""Workers on this machine, as children of this process."""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from keras_trgl.checks import check_integer, check_positive
from keras_trgl.recording import shown
from keras_trgl.registration import public

LISTENS = "listening on "
MODULE = "keras_trgl.distribute.worker"


@public
class LocalWorkers:
    """Starts workers on 127.0.0.1, to try things out, and ends them with this process.

    Args:
        count: int ≥ 1. Workers.
        threads: int ≥ 0. Threads of one operation in each; 0 is one per core. Defaults to `0`.
        cores: list of sets of core numbers, one per worker, that it may use, or `None`. Defaults
            to `None`.
        timeout: float > 0. Seconds that a worker gets to start. Defaults to `60.0`.

    Attributes:
        addresses: list of `"127.0.0.1:port"`, for `connect`.
        processes: list of `subprocess.Popen`.

    Raises:
        TypeError, ValueError: a number that is none or out of range; `cores` that are not there,
            or not one set per worker.
        RuntimeError: a worker ended, or said nothing in time; its last words are in the message.

    Example:
        >>> import keras_trgl as trgl
        >>> with trgl.distribute.LocalWorkers(1) as workers:
        ...     len(workers.addresses)
        1
    """

    def __init__(
        self,
        count: int,
        threads: int = 0,
        cores: Sequence[Any] | None = None,
        timeout: float = 60.0,
    ) -> None:
        check_integer("count", count, 1)
        check_integer("threads", threads, 0)
        check_positive("timeout", timeout, "In seconds.")
        _check_cores(cores, count)
        self._threads = threads
        self._cores = cores
        self._timeout = timeout
        self.processes: list[Any] = []
        self.addresses: list[str] = []
        try:
            self.processes = [self._start(k, 0) for k in range(count)]
            self.addresses = [self._address(process) for process in self.processes]
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        alive = sum(process.poll() is None for process in self.processes)
        return shown(self, count=len(self.processes), alive=alive, addresses=self.addresses)

    def __enter__(self) -> "LocalWorkers":
        """Give the workers."""
        return self

    def __exit__(self, *error: Any) -> None:
        """End the workers."""
        self.close()

    def close(self) -> None:
        """End the workers."""
        for process in self.processes:
            _end(process)

    def restart(self, k: int) -> None:
        """Start worker k, counted from 0, anew at its address; `connect` again after it.

        Args:
            k: int. Position among `addresses`.
        """
        _end(self.processes[k])
        self.processes[k] = self._start(k, int(self.addresses[k].rpartition(":")[2]))
        # Until it says that it listens.
        self._address(self.processes[k])

    def _start(self, k: int, port: int) -> Any:
        command = [sys.executable, "-m", MODULE, f"--port={port}", "--until_stdin_closes"]
        command.append(f"--intra_op_threads={self._threads}")
        # A worker ends when its standard input does, so also when this process is killed.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        if self._cores is not None:
            os.sched_setaffinity(process.pid, self._cores[k])
        return process

    def _address(self, process: Any) -> str:
        """Wait for a worker's address; read on what it says afterwards, or its pipe would fill."""
        lines: queue.Queue[str | None] = queue.Queue()
        is_known = threading.Event()

        def read() -> None:
            with process.stdout:
                for line in process.stdout:
                    if not is_known.is_set():
                        lines.put(line.decode(errors="replace"))
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        end = time.monotonic() + self._timeout
        said: list[str] = []
        while True:
            try:
                line = lines.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                line = None
            if line is None:
                raise RuntimeError(
                    f"A worker must start within {self._timeout} seconds. Received: "
                    f"{''.join(said[-5:]) or 'nothing'}"
                )
            if line.startswith(LISTENS):
                is_known.set()
                return line.removeprefix(LISTENS).split(",")[0]
            said.append(line)


def _check_cores(cores: Any, count: int) -> None:
    if cores is None:
        return
    known = set(range(os.cpu_count() or 1))
    well = isinstance(cores, list | tuple) and len(cores) == count
    if not well or not all(isinstance(one, set) and one and one <= known for one in cores):
        raise ValueError(
            f"`cores` must be {count} sets of core numbers, one per worker, below {len(known)}. "
            f"Received: cores={cores!r}. `None` leaves it to the system."
        )


def _end(process: Any) -> None:
    process.kill()
    process.wait()
    process.stdin.close()
