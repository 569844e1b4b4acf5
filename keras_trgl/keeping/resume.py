"""All state that training needs to go on bit for bit, as one file.

A `.npz` of arrays by group and position, and one JSON text of plain numbers. It is written aside
and renamed, so it is whole or absent; nothing in it is code.
"""

import dataclasses
import glob
import json
import os
import pathlib
import random
import zipfile
from typing import Any

import numpy as np

from keras_trgl.keeping.saving import written_aside

NUMBERS = "numbers"
FORMAT = 1


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
        groups: dict of group to variables.
        numbers: dict that JSON can hold.
        files: dict of name to bytes.
    """
    packed: dict[str, Any] = {}
    for group, variables in groups.items():
        for place, variable in enumerate(variables):
            # As bytes where NumPy alone does not know the type, such as bfloat16.
            packed[f"{group}/{place}"] = _plain(_array(variable))
    for name, content in files.items():
        packed[f"file/{name}"] = np.frombuffer(content, np.uint8)
    text = json.dumps({"format": FORMAT, **numbers}, default=float)
    packed[NUMBERS] = np.frombuffer(text.encode(), np.uint8)
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez(file, **packed)


def read_state(path: Any) -> SavedState:
    """Read what `write_state` wrote.

    Raises:
        ValueError: the file is damaged, or of another format.
    """
    arrays: dict[str, dict[int, Any]] = {}
    files: dict[str, bytes] = {}
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        numbers = json.loads(content.pop(NUMBERS).tobytes().decode())
        for name, array in content.items():
            group, rest = name.split("/", 1)
            if group == "file":
                files[rest] = array.tobytes()
            else:
                arrays.setdefault(group, {})[int(rest)] = array
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged, or no backup. Received: {error}. Delete it to start anew."
        ) from error
    if numbers.get("format") != FORMAT:
        raise ValueError(
            f"{path} must be a backup of format {FORMAT}. Received: {numbers.get('format')!r}. "
            "Delete it to start anew."
        )
    ordered = {group: [held[k] for k in sorted(held)] for group, held in arrays.items()}
    return SavedState(ordered, numbers, files)


def restore_variables(groups: dict[str, list[Any]], state: SavedState, path: Any) -> None:
    """Assign the saved arrays, all or none.

    Args:
        groups: dict of group to variables, as at saving.
        state: what `read_state` gave.
        path: where it came from, for the message.

    Raises:
        ValueError: the arrays are those of another model, optimizer or regime.
    """
    todo = []
    for group, variables in groups.items():
        saved = state.arrays.get(group, [])
        if len(saved) != len(variables):
            raise ValueError(_differs(path, group, f"{len(saved)} arrays", len(variables)))
        for variable, array in zip(variables, saved, strict=True):
            value = _typed(array, variable)
            wanted = tuple(variable.shape)
            fits = len(wanted) == value.ndim and all(
                side in (None, size) for side, size in zip(wanted, value.shape, strict=True)
            )
            if not fits:
                raise ValueError(_differs(path, group, f"shape {value.shape}", wanted))
            todo.append((variable, value))
    for variable, value in todo:
        variable.assign(value)


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
    return np.ascontiguousarray(array).view(np.uint8 if array.dtype.itemsize == 1 else np.uint16)


def _typed(array: Any, variable: Any) -> Any:
    wanted = _array(variable).dtype
    return array if array.dtype == wanted else array.view(wanted)


def random_numbers() -> dict[str, Any]:
    """Give the state of Python's and NumPy's generators."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    version, inner, following = random.getstate()
    return {
        "numpy": [kind, np.asarray(keys).tolist(), place, has_gauss, gauss],
        "python": [version, list(inner), following],
    }


def restore_random(numbers: dict[str, Any]) -> None:
    """Go on from `random_numbers`' result."""
    kind, keys, place, has_gauss, gauss = numbers["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), place, has_gauss, gauss))
    version, inner, following = numbers["python"]
    random.setstate((version, tuple(inner), following))


def remove_leftovers(path: Any) -> None:
    """Remove the unfinished files that killed runs left beside `path`."""
    target = pathlib.Path(os.fspath(path))
    pattern = f".{glob.escape(target.stem)}.*.aside{glob.escape(target.suffix)}"
    for left in target.parent.glob(pattern):
        left.unlink(missing_ok=True)
