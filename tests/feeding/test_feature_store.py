"""Room for features: limits, files without a name, and types."""

import errno
import os
import shutil
import tempfile

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_trgl.feeding.feature_store import open_store
from keras_trgl.regimes.feature_cache import FeatureCache

KINDS = ["memory", "disk"]
TYPES = ["float32", "float16", "float64", "bfloat16"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_as_they_were_written(kind, dtype):
    store = open_store(FeatureCache(kind), 5, (2, 3), dtype)
    wanted = np.arange(30).reshape(5, 2, 3).astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    store.write(0, wanted[:3])
    store.write(3, wanted[3:])
    assert store.rows.dtype == store.dtype == wanted.dtype
    assert store.shape == (5, 2, 3)
    assert store.nbytes == wanted.nbytes
    np.testing.assert_array_equal(store.rows, wanted)
    np.testing.assert_array_equal(store[np.array([4, 0])], wanted[[4, 0]])
    store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_store_holds_nothing(kind):
    store = open_store(FeatureCache(kind), 5, (2,), "float32")
    store.close()
    store.close()
    assert store.nbytes == 0
    with pytest.raises(ValueError, match=r"until their store is closed.*store that is open now"):
        store.write(0, np.zeros((5, 2), "float32"))


def files_without_a_name(folder):
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [target for target in targets if target.startswith(str(folder))]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Open files are listed by Linux.")
def test_a_file_has_no_name_and_its_room_is_reserved_until_it_is_closed(tmp_path):
    sizes = []
    reserve = os.posix_fallocate

    def record(descriptor, start, count):
        reserve(descriptor, start, count)
        status = os.fstat(descriptor)
        sizes.append((status.st_size, status.st_blocks * 512 >= 2**20, status.st_nlink))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_fallocate", record)
        store = open_store(FeatureCache("disk", directory=tmp_path), 2**18, (1,), "float32")
    assert sizes == [(2**20, True, 0)]
    assert list(tmp_path.iterdir()) == []
    assert len(files_without_a_name(tmp_path)) == 1
    store.close()
    assert files_without_a_name(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_max_bytes_is_refused(kind):
    cache = FeatureCache(kind, max_bytes=40)
    open_store(cache, 5, (2,), "float32").close()
    with pytest.raises(ValueError, match=r"max_bytes=40.*44 bytes.*MiB.*larger limit.*cache=None"):
        open_store(cache, 11, (1,), "float32")
    with pytest.raises(ValueError, match=r"40 bytes.*beside 1 bytes"):
        open_store(cache, 5, (2,), "float32", held=1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch, number):
    def refuse(descriptor, start, count):
        files.append(descriptor)
        raise OSError(number, os.strerror(number))

    files = []
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match=r"folder with room.*40 bytes.*kind='memory'") as caught:
        open_store(FeatureCache("disk", directory=tmp_path), 5, (2,), "float32")
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(files[0])


@pytest.mark.parametrize("can_reserve", [False, None])
def test_free_space_is_compared_where_it_cannot_be_reserved(tmp_path, monkeypatch, can_reserve):
    def refuse(descriptor, start, count):
        raise OSError(errno.EOPNOTSUPP, "not here")

    if can_reserve is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    cache = FeatureCache("disk", directory=tmp_path)
    store = open_store(cache, 5, (2,), "float32")
    store.write(0, np.ones((5, 2), "float32"))
    store.close()
    usage = shutil.disk_usage(tmp_path)._replace(free=39)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="No space left on device"):
        open_store(cache, 5, (2,), "float32")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder with room.*nowhere"):
        open_store(FeatureCache("disk", directory=tmp_path / "nowhere"), 5, (2,), "float32")


def test_without_a_directory_the_temporary_folder_serves(tmp_path, monkeypatch):
    folders = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: folders.append(dir) or make(dir=dir))
    open_store(FeatureCache("disk"), 5, (2,), "float32").close()
    assert folders == [str(tmp_path)]


def test_rows_that_do_not_fit_are_refused():
    store = open_store(FeatureCache(), 5, (2,), "float32")
    for start, rows in (
        (4, np.zeros((2, 2), "float32")),
        (0, np.zeros((5, 1), "float32")),
        (0, np.zeros((5, 2), "float64")),
    ):
        with pytest.raises(ValueError, match="features of one shape and type"):
            store.write(start, rows)


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`kind` must be one of 'memory', 'disk'"):
        FeatureCache("tape")
    with pytest.raises(ValueError, match="`max_bytes` must be at least 1"):
        FeatureCache(max_bytes=0)
    with pytest.raises(ValueError, match="`copies` must be at least 1"):
        FeatureCache(copies=0)
    with pytest.raises(ValueError, match=r"`directory` is for features on disk.*kind='disk'"):
        FeatureCache(directory=tmp_path)


def test_a_cache_is_saved_and_loaded(tmp_path):
    cache = FeatureCache("disk", max_bytes=10, directory=tmp_path, copies=3)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cache))
    assert loaded == cache
    assert loaded != FeatureCache("disk", max_bytes=10, directory=tmp_path, copies=2)
    assert isinstance(cache.get_config()["directory"], str)
