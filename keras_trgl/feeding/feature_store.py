"""Room for the features of frozen stages: rows in host memory or in a file without a name."""

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.regimes.feature_cache import FeatureCache

MIB = 2**20


def _size(count: int) -> str:
    """Give a number of bytes as messages show it."""
    return f"{count} bytes ({count / MIB:.1f} MiB)"


class FeatureStore:
    """Rows of features, `(num_rows, *shape)`, that live until `close`.

    A dataset that reads from the store holds the store, not its rows, so that `close` gives their
    memory back at once.

    Args:
        num_rows: int > 0.
        shape: sequence of int. Shape of a row.
        dtype: NumPy or TensorFlow type, or its name; `"bfloat16"` too.
        file: open file for the rows, which may be closed afterwards, or `None` for host memory.
            Defaults to `None`.
    """

    def __init__(
        self, num_rows: int, shape: Sequence[int], dtype: Any, file: BinaryIO | None = None
    ) -> None:
        self.shape = (int(num_rows), *map(int, shape))
        self.dtype = numpy_type(dtype)
        self._rows: Any = (
            np.empty(self.shape, self.dtype)
            if file is None
            else np.memmap(file, self.dtype, mode="r+", shape=self.shape)
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Any) -> Any:
        return self.rows[places]

    @property
    def rows(self) -> Any:
        """The array, `(num_rows, *shape)`; `numpy.memmap` where it lies in a file."""
        if self._rows is None:
            raise ValueError(
                "Features can be read until their store is closed. Received: a closed store. "
                "Make a dataset of the store that is open now."
            )
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take; 0 once closed."""
        return 0 if self._rows is None else int(self._rows.nbytes)

    def write(self, start: int, rows: Any) -> None:
        """Put rows in from a place on.

        Args:
            start: int ≥ 0. Place of the first of them.
            rows: array `(count, *shape)` of the store's type.

        Raises:
            ValueError: rows of another shape or type, or more than there is room for.
        """
        rows = np.asarray(rows)
        fits = rows.ndim and start + len(rows) <= len(self)
        if not fits or (rows.shape[1:], rows.dtype) != (self.shape[1:], self.dtype):
            raise ValueError(
                "All batches must have features of one shape and type, and no more rows than the "
                f"store, {self.shape} of {self.dtype}. Received: {rows.shape} of {rows.dtype} from "
                f"row {start} on. Use cache=None for batches that differ."
            )
        self.rows[start : start + len(rows)] = rows

    def close(self) -> None:
        """Drop the rows; a file goes with them. Calling it again does nothing."""
        self._rows = None


def numpy_type(dtype: Any) -> Any:
    """Give the NumPy type of a name or of a TensorFlow type; bfloat16 is no name to NumPy."""
    return np.dtype(tf.as_dtype(dtype).as_numpy_dtype)


def open_store(
    cache: FeatureCache, num_rows: int, shape: Sequence[int], dtype: Any, held: int = 0
) -> FeatureStore:
    """Make room for features; on disk all of it is reserved before anything is written.

    Args:
        cache: `FeatureCache`, where and how much.
        num_rows: int > 0.
        shape: sequence of int. Shape of a row.
        dtype: NumPy or TensorFlow type, or its name.
        held: int ≥ 0. Bytes held already that count toward `max_bytes`. Defaults to `0`.

    Returns:
        `FeatureStore`, to be closed by the caller.

    Raises:
        ValueError: more than `max_bytes`.
        OSError: the folder is not there, or has too little room.
    """
    check_integer("num_rows", num_rows, 1)
    count = int(np.prod([num_rows, *shape], dtype="int64")) * numpy_type(dtype).itemsize
    if cache.max_bytes is not None and held + count > cache.max_bytes:
        beside = f" beside {_size(held)} held already" if held else ""
        disk = ", kind='disk'" if cache.kind == "memory" else ""
        raise ValueError(
            f"Cached features must fit in max_bytes={cache.max_bytes}. Received: "
            f"{_size(count)} of features{beside}. Use a larger limit{disk} or cache=None."
        )
    if cache.kind == "memory":
        return FeatureStore(num_rows, shape, dtype)
    folder = cache.directory or tempfile.gettempdir()
    try:
        # Without a name from the start: nobody finds it later, and nothing has to tidy up. The
        # mapped rows alone hold it.
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file, max(count, 1), folder)
            return FeatureStore(num_rows, shape, dtype, file)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Cached features need a folder with room for them. Received: {_size(count)} for "
            f"{folder!r}: {error.strerror}. Use another `directory`, kind='memory' or "
            "cache=None.",
        ) from error


def _reserve(file: BinaryIO, count: int, folder: str) -> None:
    """Give the file its size on disk, or raise `OSError` where there is no room."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, count)
            return
        except OSError as error:
            # Some file systems cannot reserve.
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}:
                raise
    if shutil.disk_usage(folder).free < count:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.truncate(count)
