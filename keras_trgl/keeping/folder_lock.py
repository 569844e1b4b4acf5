"""One owner per folder: a second process that would write there is told so."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

NAME = ".lock"


class FolderLock:
    """Holds a folder for one process, until it is freed or the process is gone.

    The system drops the lock of a process that dies, so nothing is left to clear by hand. Where
    there is no `fcntl` (Windows) nothing is locked.

    Args:
        folder: path of a folder that is there.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._held: int | None = None

    def take(self) -> None:
        """Take the folder.

        Raises:
            BlockingIOError: another run holds it.
        """
        if sys.platform == "win32" or self._held is not None:
            return
        import fcntl

        while self._held is None:
            held = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(held, 32).decode(errors="replace").strip() or "?"
                os.close(held)
                raise BlockingIOError(
                    f"{self._path.parent} must belong to one run. Received: a folder that process "
                    f"{owner} is writing to. Give every run a folder of its own, or wait until "
                    "that one ends."
                ) from error
            if _is_at(held, self._path):
                os.ftruncate(held, 0)
                os.write(held, str(os.getpid()).encode())
                self._held = held
            else:  # The owner before has removed the file meanwhile.
                os.close(held)

    def free(self) -> None:
        """Give the folder back. Calling it again does nothing."""
        held, self._held = self._held, None
        if held is not None:
            self._path.unlink(missing_ok=True)
            os.close(held)

    def __del__(self) -> Any:
        with contextlib.suppress(OSError):
            self.free()


def _is_at(held: int, path: Path) -> bool:
    """Tell whether an open file is the one that stands at a path."""
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False
