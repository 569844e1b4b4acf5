"""Versions that are whole or absent: written into a hidden folder, then renamed.

TensorFlow Serving looks for children of the base folder whose whole name is a number, and loads
the largest. A folder that is being written is named `.writing-VERSION-HOST-PROCESS-…`, which no
server takes for a version. A process that is killed leaves such a folder; the next export on the
same host removes it.
"""

import contextlib
import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_trgl.checks import check_integer, path_of

HIDDEN = ".writing-"
LARGEST = 2**63 - 1
"""Servers read versions as int64, and do not see a folder of a larger number."""


def versions(base: Path) -> dict[int, Path]:
    """Give the version folders as a server sees them, by number."""
    if not base.is_dir():
        return {}
    numbered = [one for one in base.iterdir() if re.fullmatch("[0-9]+", one.name) and one.is_dir()]
    return {int(one.name): one for one in numbered if int(one.name) <= LARGEST}


def base_folder(base_dir: Any) -> Path:
    """Make the base folder if need be, and raise unless it can be written to.

    Raises:
        NotADirectoryError: there is a file of that name.
        PermissionError: this process may not write there.
    """
    base = path_of("base_dir", base_dir).absolute()
    try:
        with readable_disk_errors(base):
            base.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(base)
            _hidden_folder(base, "probe").rmdir()
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"`base_dir` must be a folder. Received: {base_dir}, which is, or lies in, a file."
        ) from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise PermissionError(
            f"`base_dir` must be a folder that this process may write to. Received: {base}. Give "
            "another one, or change its rights."
        ) from error
    return base


def check_version(base: Path, version: int | None) -> int:
    """Give the version, or the next free one for `None`.

    Raises:
        FileExistsError: the version is there.
        ValueError: `version` is below 1 or no int64, or none is left for `None`.
    """
    there = versions(base)
    wanted = max(there, default=0) + 1 if version is None else version
    check_integer("version", wanted, 1)
    if wanted > LARGEST:
        raise ValueError(
            f"`version` must be at most {LARGEST}: servers read it as int64. Received: "
            f"version={version}, with {max(there, default=0)} as the largest in {base}. Pass a "
            "smaller one; with dates in it, such as 20250131, `None` goes on from the largest."
        )
    if version is None:
        return wanted
    if version in there or (base / str(version)).exists():
        raise FileExistsError(
            f"A published version is never written over. Received: version={version}, which is in "
            f"{base}. The next free one is {max(there, default=0) + 1}; `version=None` takes it."
        )
    return int(wanted)


@contextlib.contextmanager
def written_version(base: Path, version: int) -> Iterator[Path]:
    """Give a hidden folder to write to, and rename it to the version when all went well.

    If anything fails, the folder is removed and the base folder is as before.

    Raises:
        FileExistsError: the version appeared meanwhile.
        OSError: the disk is full, or another failure of writing.
    """
    target = base / str(version)
    with readable_disk_errors(base):
        aside = _hidden_folder(base, str(version))
    try:
        with readable_disk_errors(base):
            yield aside
            make_lasting(aside)
        try:
            os.rename(aside, target)
        except OSError as error:
            raise FileExistsError(
                f"Version {version} appeared in {base} while it was written, and is kept. "
                f"Received: {error}. Export again with `version=None`."
            ) from error
        _sync(base)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def readable_disk_errors(base: Path) -> Iterator[None]:
    """Turn a full disk, however it is told, into an `OSError` that says so."""
    try:
        yield
    except Exception as error:
        # TensorFlow tells of the disk by an error of its own, with the system's words in it.
        words = str(error)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in words or "Disk quota exceeded" in words:
            raise OSError(
                errno.ENOSPC,
                "The disk is full: nothing was published, and older versions are as they were. "
                f"Received: {words.strip()[:200]} Free space in {base} and export again",
            ) from error
        raise


@contextlib.contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """Give a path in a hidden folder, and move what was written there to where `path` is.

    Other files written beside it go beside it, before it.

    Raises:
        OSError: the disk is full, or another failure of writing.
    """
    folder = base_folder(path.parent)
    with readable_disk_errors(folder):
        aside = _hidden_folder(folder, path.stem)
    try:
        with readable_disk_errors(folder):
            yield aside / path.name
            make_lasting(aside)
        for written in sorted(aside.iterdir(), key=lambda one: one.name == path.name):
            os.replace(written, folder / written.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def make_lasting(folder: Path) -> None:
    """Let every user read, and wait until all is on the disk."""
    for inner in [folder, *folder.rglob("*")]:
        inner.chmod(0o755 if inner.is_dir() else 0o644)
        _sync(inner)


@contextlib.contextmanager
def written_text(path: Path, text: str) -> Iterator[None]:
    """Write a text aside at the beginning, and put it in place at the end if all went well."""
    with readable_disk_errors(path.parent):
        aside = _hidden_folder(path.parent, path.name)
    try:
        with readable_disk_errors(path.parent):
            (aside / path.name).write_text(text, encoding="utf-8")
            make_lasting(aside)
        yield
        os.replace(aside / path.name, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def size_of(path: Path) -> int:
    """Give the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())


def _hidden_folder(base: Path, name: str) -> Path:
    prefix = f"{HIDDEN}{name}-{socket.gethostname()}-{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=base))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(base: Path) -> None:
    """Remove what processes of this host left that are no more."""
    mine = re.compile(rf"{re.escape(HIDDEN)}.*-{re.escape(socket.gethostname())}-(\d+)-[^-]*")
    for left in base.glob(f"{HIDDEN}*"):
        found = mine.fullmatch(left.name)
        if found and not _is_alive(int(found[1])):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
