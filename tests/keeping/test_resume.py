"""A backup file is read whole or refused in one sentence, and nothing of it is guessed."""

import io
import os
import pathlib
import random
import resource
import subprocess
import sys
import zipfile

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_trgl.keeping.folder_lock import FolderLock
from keras_trgl.keeping.resume import (
    checked,
    random_numbers,
    read_state,
    write_state,
)
from keras_trgl.keeping.saving import DamagedFile, weights_kept_on_failure

PARTS = {
    "run": {"epoch": 1},
    "history": {"loss": [0.5]},
    "epochs": [0],
    "callbacks": [],
    "fingerprint": {},
}
ARRAYS = {
    "float32": np.arange(6, dtype="float32").reshape(2, 3),
    "bfloat16": np.arange(4).astype(ml_dtypes.bfloat16),
    "float8": np.arange(4).astype(ml_dtypes.float8_e4m3fn),
    "int64": np.array(3),
    "bool": np.array([True, False]),
}


def write(path, **more):
    numbers = {**PARTS, "random": random_numbers(), **more}
    write_state(path, {"model": list(ARRAYS.values())}, numbers, {"index": b"abc"})
    return path


def test_what_was_written_is_read_in_its_types(tmp_path):
    state = read_state(write(tmp_path / "backup.npz"))
    for wanted, array in zip(ARRAYS.values(), state.arrays["model"], strict=True):
        assert array.dtype == wanted.dtype
        assert array.shape == wanted.shape
        assert array.tobytes() == wanted.tobytes()
    assert state.files == {"index": b"abc"}
    assert state.numbers["history"] == {"loss": [0.5]}


def damage(content, rng):
    """Give bytes that are not those: cut, flipped, overwritten, doubled or mixed up."""
    place, size = rng.randrange(len(content)), rng.randrange(1, 40)
    part = content[place : place + size]
    return {
        "cut": lambda: content[:place],
        "flip": lambda: (
            content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        ),
        "zeros": lambda: content[:place] + bytes(len(part)) + content[place + len(part) :],
        "noise": lambda: content[:place] + rng.randbytes(len(part)) + content[place + len(part) :],
        "doubled": lambda: content[: place + size] + content[place:],
        "gone": lambda: content[:place] + content[place + size :],
        "tail": lambda: content[:place] + rng.randbytes(len(content) - place),
    }[rng.choice(["cut", "flip", "zeros", "noise", "doubled", "gone", "tail"])]()


def test_two_thousand_damaged_files_are_read_right_or_refused_in_a_sentence(tmp_path):
    path = write(tmp_path / "backup.npz")
    content, rng = path.read_bytes(), random.Random(0)
    whole = read_state(path)
    refused = 0
    for _ in range(2000):
        path.write_bytes(damage(content, rng))
        try:
            state = read_state(path)
        except DamagedFile as error:
            assert "is damaged, or no backup" in str(error)  # noqa: PT017
            assert isinstance(error, OSError)  # noqa: PT017
            assert isinstance(error, ValueError)  # noqa: PT017
            refused += 1
            continue
        # What no sum covers, such as dates, may differ; nothing that is read does.
        assert state.numbers == whole.numbers
        for one, other in zip(state.arrays["model"], whole.arrays["model"], strict=True):
            assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
    assert refused > 1500


def rewritten(path, change):
    """Write a whole archive whose parts were changed."""
    with np.load(path) as held:
        parts = dict(held)
    change(parts)
    np.savez(path, **parts)
    return path


def said(text):
    return lambda parts: parts.update(numbers=np.frombuffer(text.encode(), np.uint8))


def replaced(old, new):
    def change(parts):
        text = parts["numbers"].tobytes().decode()
        assert old in text
        said(text.replace(old, new))(parts)

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (said("{}"), "format None"),
        (said("[1]"), "format 'list'"),
        (said('{"format": 1}'), "format 1"),
        (said("no text"), "JSONDecodeError"),
        (said("[" * 100_000), "RecursionError"),
        (lambda parts: parts.pop("numbers"), "KeyError"),
        (lambda parts: parts.pop("model/0"), "4 arrays of 5"),
        (lambda parts: parts.update({"model/9": np.zeros(1)}), "6 arrays of 5"),
        (lambda parts: parts.update({"other/0": np.zeros(1)}), "of no type"),
        (lambda parts: parts.update({"model/0": np.zeros(6, "int32")}), "says float32"),
        (lambda parts: parts.update({"model/1": np.zeros(4, "float16")}), "says bfloat16"),
        (replaced('"history": {"loss"', '"gone": {"loss"'), "no 'history'"),
        (replaced('"MT19937"', '"PCG64"'), "MT19937"),
        (replaced('"epochs": [0]', '"epochs": 0'), "no 'epochs' of type list"),
        (replaced('"float8_e4m3fn"', '"float9"'), "AttributeError"),
    ],
)
def test_a_whole_file_of_wrong_content_is_refused(tmp_path, change, match):
    path = rewritten(write(tmp_path / "backup.npz"), change)
    with pytest.raises(DamagedFile, match=match):
        read_state(path)


@pytest.mark.parametrize("kind", ["objects", "compressed", "huge"])
def test_archives_that_take_more_than_they_hold_are_refused(tmp_path, kind):
    path = write(tmp_path / "backup.npz")
    content = io.BytesIO()
    array = np.array([{}]) if kind == "objects" else np.zeros(3)
    np.lib.format.write_array(content, array, allow_pickle=True)
    held = content.getvalue()
    if kind == "huge":
        held = held.replace(b"(3,)", b"(9999999999999,)").replace(b" " * 13, b"", 1)
    compression = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/0.npy", held)
    with pytest.raises(DamagedFile, match="is damaged, or no backup"):
        read_state(path)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (np.zeros((2, 2), "float32"), r"shape \(2, 3\) for its model, where this run has \(2, 2\)"),
        (np.zeros((2, 3), "float64"), "type float32 for its model, where this run has float64"),
        (np.zeros((2, 3), "int32"), "type float32 for its model, where this run has int32"),
    ],
)
def test_types_and_shapes_are_compared_before_anything_is_assigned(tmp_path, other, match):
    state = read_state(write(tmp_path / "backup.npz"))
    variables = [keras.Variable(other), *list(ARRAYS.values())[1:]]
    with pytest.raises(ValueError, match=match):
        checked({"model": variables}, state, "backup.npz")
    with pytest.raises(ValueError, match="5 arrays for its model, where this run has 1"):
        checked({"model": variables[:1]}, state, "backup.npz")


def test_a_folder_has_one_owner_who_gives_it_back(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.take()
    with pytest.raises(BlockingIOError, match=f"must belong to one run.*process {os.getpid()} is"):
        second.take()
    first.free()
    second.take()
    second.free()
    second.free()
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_told_and_a_dead_one_holds_nothing(tmp_path):
    code = (
        "import sys, pathlib; from keras_trgl.keeping.folder_lock import FolderLock\n"
        "lock = FolderLock(pathlib.Path(sys.argv[1])); lock.take()\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        lock = FolderLock(tmp_path)
        with pytest.raises(BlockingIOError, match=f"process {other.pid} is writing to"):
            lock.take()
        other.kill()
    lock.take()
    lock.free()


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path):
    path = write(tmp_path / "backup.npz")
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["backup.npz"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("cut"), DamagedFile),
        (KeyError("part"), DamagedFile),
        (RuntimeError("reader"), DamagedFile),
        (ValueError("shape"), ValueError),
        (FileNotFoundError("none"), FileNotFoundError),
    ],
)
def test_weights_that_cannot_be_read_are_an_os_error_as_keras_expects(error, kind):
    layer = keras.layers.Dense(1)
    layer.build((None, 2))
    before = [one.numpy() for one in layer.variables]

    def load():
        with weights_kept_on_failure(layer, pathlib.Path("w.weights.h5")):
            layer.variables[0].assign(np.ones((2, 1)))
            raise error

    with pytest.raises(kind):
        load()
    for one, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), value)
