"""All state that training needs to go on bit for bit, as one file.

A `.npz` of arrays by group and position, and one JSON text of plain numbers. It is written aside
and renamed, so it is whole or absent; nothing in it is code. Reading checks all of it before
anything is assigned: sums, types, and what the text must hold.
"""

import dataclasses
import glob
import io
import json
import os
import pathlib
import random
import zipfile
from typing import Any

import numpy as np

from keras_trgl.keeping.saving import UNREADABLE, DamagedFile, written_aside

NUMBERS = "numbers"
FORMAT = 2
PARTS: dict[str, type] = {
    "run": dict,
    "random": dict,
    "history": dict,
    "epochs": list,
    "callbacks": list,
    "fingerprint": dict,
    "types": dict,
}
"""What the text of a backup must hold."""


@dataclasses.dataclass
class SavedState:
    """What a file holds.

    Attributes:
        arrays: dict of group to its arrays, in order.
        numbers: dict of plain numbers, lists and texts.
        files: dict of name to bytes.
    """

    arrays: dict[str, list[Any]]
    numbers: dict[str, Any]
    files: dict[str, bytes]


def write_state(
    path: Any, groups: dict[str, list[Any]], numbers: dict[str, Any], files: dict[str, bytes]
) -> None:
    """Write variables, numbers and files to one file.

    Args:
        path: str or path, ending in `.npz`.
        groups: dict of group to variables or arrays.
        numbers: dict that JSON can hold; it must have `PARTS`, but for `types`.
        files: dict of name to bytes.
    """
    packed: dict[str, Any] = {}
    types: dict[str, list[str]] = {}
    for group, variables in groups.items():
        types[group] = []
        for place, variable in enumerate(variables):
            array = _array(variable)
            # As bytes where NumPy alone does not know the type, such as bfloat16.
            packed[f"{group}/{place}"] = _plain(array)
            types[group].append(str(array.dtype))
    for name, content in files.items():
        packed[f"file/{name}"] = np.frombuffer(content, np.uint8)
    text = json.dumps({"format": FORMAT, "types": types, **numbers}, default=float)
    packed[NUMBERS] = np.frombuffer(text.encode(), np.uint8)
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez(file, **packed)


def damaged(path: Any, why: Any) -> DamagedFile:
    """Give the error of a file that is no whole backup."""
    return DamagedFile(
        f"{path} is damaged, or no backup. Received: {why}. Delete it to start anew."
    )


def read_state(path: Any) -> SavedState:
    """Read what `write_state` wrote.

    Raises:
        DamagedFile: the file is damaged, lacks a part, or is of another format.
    """
    try:
        state = _read(path)
        check_random(state.numbers["random"])
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    return state


def _read(path: Any) -> SavedState:
    arrays: dict[str, dict[int, Any]] = {}
    files: dict[str, bytes] = {}
    content = _members(path)
    numbers = json.loads(content.pop(NUMBERS).tobytes().decode())
    if not isinstance(numbers, dict) or numbers.get("format") != FORMAT:
        found = numbers.get("format") if isinstance(numbers, dict) else type(numbers).__name__
        raise ValueError(f"format {found!r}, where this version reads {FORMAT}")
    for part, kind in PARTS.items():
        if not isinstance(numbers.get(part), kind):
            raise ValueError(f"no {part!r} of type {kind.__name__}")
    for name, array in content.items():
        group, rest = name.split("/", 1)
        if group == "file":
            files[rest] = array.tobytes()
        else:
            arrays.setdefault(group, {})[int(rest)] = array
    ordered: dict[str, list[Any]] = {}
    for group, types in numbers["types"].items():
        held = arrays.pop(group, {})
        if sorted(held) != list(range(len(types))):
            raise ValueError(f"{len(held)} arrays of {len(types)} for its {group}")
        ordered[group] = [_typed(held[place], types[place]) for place in sorted(held)]
    if arrays:
        raise ValueError(f"arrays of no type: {sorted(arrays)}")
    return SavedState(ordered, numbers, files)


def _members(path: Any) -> dict[str, Any]:
    """Give the arrays of an archive, each read to its sum, and none larger than the file."""
    held = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"a compressed part {info.filename!r}")
            held[info.filename.removesuffix(".npy")] = _parsed(archive.read(info))
    return held


def _parsed(content: bytes) -> Any:
    """Give the array of a `.npy` file in memory, without a copy.

    Raises:
        ValueError: it is none, holds objects, or has another size than it says.
    """
    stream = io.BytesIO(content)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(stream)]
    shape, is_fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    array = np.frombuffer(content, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if is_fortran else "C")


def checked(groups: dict[str, list[Any]], state: SavedState, path: Any) -> list[tuple[Any, Any]]:
    """Give each variable with the array that was saved of it.

    Args:
        groups: dict of group to variables, as at saving.
        state: what `read_state` gave.
        path: where it came from, for the message.

    Returns:
        List of (variable, array); nothing is assigned.

    Raises:
        ValueError: the arrays are those of another model, optimizer or regime.
    """
    todo = []
    for group, variables in groups.items():
        saved = state.arrays.get(group, [])
        if len(saved) != len(variables):
            raise ValueError(_differs(path, group, f"{len(saved)} arrays", len(variables)))
        for variable, value in zip(variables, saved, strict=True):
            wanted, kind = tuple(variable.shape), str(_array(variable).dtype)
            fits = len(wanted) == value.ndim and all(
                side in (None, size) for side, size in zip(wanted, value.shape, strict=True)
            )
            if not fits:
                raise ValueError(_differs(path, group, f"shape {value.shape}", wanted))
            if str(value.dtype) != kind:
                raise ValueError(_differs(path, group, f"type {value.dtype}", kind))
            todo.append((variable, value))
    return todo


def _differs(path: Any, group: str, came: Any, wanted: Any) -> str:
    return (
        f"The backup {path} must be of the same model, optimizer and regime. Received: {came} for "
        f"its {group}, where this run has {wanted}. Delete it to start anew, or build the run as "
        "it was."
    )


def _array(variable: Any) -> Any:
    return np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)


def _plain(array: Any) -> Any:
    if array.dtype.kind in "biufcSU" and array.dtype.isbuiltin == 1:
        return array
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _typed(array: Any, name: str) -> Any:
    """Give an array in the type that it was saved in.

    Raises:
        ValueError: it cannot have been of that type.
    """
    if str(array.dtype) == name:
        return array
    wanted = _dtype(name)
    if wanted.isbuiltin == 1 or array.dtype != np.dtype(f"u{wanted.itemsize}"):
        raise ValueError(f"an array of type {array.dtype} that says {name}")
    return array.view(wanted)


def _dtype(name: str) -> Any:
    """Give a type by name, also those that came with TensorFlow, such as bfloat16."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # Comes with TensorFlow.

        return np.dtype(getattr(ml_dtypes, name))


def random_numbers() -> dict[str, Any]:
    """Give the state of Python's and NumPy's generators."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    version, inner, following = random.getstate()
    return {
        "numpy": [kind, np.asarray(keys).tolist(), place, has_gauss, gauss],
        "python": [version, list(inner), following],
    }


def check_random(numbers: dict[str, Any]) -> None:
    """Raise unless `restore_random` can go on from these numbers."""
    _restore_random(numbers, np.random.RandomState(), random.Random())


def restore_random(numbers: dict[str, Any]) -> None:
    """Go on from `random_numbers`' result."""
    _restore_random(numbers, np.random, random)


def _restore_random(numbers: dict[str, Any], of_numpy: Any, of_python: Any) -> None:
    kind, keys, place, has_gauss, gauss = numbers["numpy"]
    version, inner, following = numbers["python"]
    of_numpy.set_state((kind, np.array(keys, np.uint32), place, has_gauss, gauss))
    of_python.setstate((version, tuple(inner), following))


def remove_leftovers(path: Any) -> None:
    """Remove the unfinished files that killed runs left beside `path`."""
    target = pathlib.Path(os.fspath(path))
    pattern = f".{glob.escape(target.stem)}.*.aside{glob.escape(target.suffix)}"
    for left in target.parent.glob(pattern):
        left.unlink(missing_ok=True)
