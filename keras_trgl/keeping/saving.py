"""Files that are whole or absent: written aside, then renamed; read only when complete."""

import contextlib
import errno
import os
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_trgl.registration import public

UNREADABLE = (
    *(OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, SyntaxError),
    *(RuntimeError, ArithmeticError, MemoryError, zipfile.BadZipFile, zlib.error),
    tokenize.TokenError,
)
"""What the readers of archives, arrays and texts raise on bytes that are none."""


class DamagedFile(OSError, ValueError):
    """A file that is cut short, damaged, or none of its kind.

    It is an `OSError`, on which Keras's own callbacks fall back to an older file, and a
    `ValueError`, as what the file holds is wrong.
    """


_SEED_FILE = "drawn_seed.txt"
SAVED_FILES = {"config.json", "metadata.json"}
"""What every model saved as a folder has."""
MOST_GROWTH, SLACK = 20, 2**20
"""Times a file's own bytes, and bytes beside, that it may unpack to. Weights hardly pack."""


@contextlib.contextmanager
def written_aside(path: Any) -> Iterator[str]:
    """Give a path beside `path` to write to; rename it to `path` when all went well.

    If anything fails, what was at `path` before stays as it was and the aside file is removed.

    Args:
        path: str or path. Where the finished file goes.
    """
    target = Path(os.fspath(path))
    # The ending stays: leftovers are looked for by it.
    aside = target.with_name(f".{target.stem}.{os.getpid()}.aside{''.join(target.suffixes[-2:])}")
    try:
        yield str(aside)
        with open(aside, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(aside, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()


def write_seed(folder: Any, seed: int) -> None:
    """Keep a seed in the folder of a saved model's assets."""
    (Path(os.fspath(folder)) / _SEED_FILE).write_text(f"{seed}\n", encoding="utf-8")


def read_seed(folder: Any) -> int | None:
    """Give the seed that `write_seed` kept in a folder of assets, or `None`."""
    file = None if folder is None else Path(os.fspath(folder)) / _SEED_FILE
    return int(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else None


@contextlib.contextmanager
def saved_aside(path: Any, overwrite: bool = True) -> Iterator[str]:
    """Give a path for Keras to save to; move what is there to where `path` is, when all went well.

    It lies in a hidden folder beside `path`, under the same name: so the format that Keras reads
    from the name is the same, and files that name each other (shards) still do where they end.
    What is written may be a file, several, or a folder. If anything fails, what was at `path`
    before stays as it was and the hidden folder is removed; errors speak of `path`.

    Args:
        path: str or path. Where the finished file goes.
        overwrite: bool. With `False` an existing file is an error. Defaults to `True`.

    Raises:
        TypeError: `path` is none.
        FileExistsError: there is a file and `overwrite` is `False`.
        FileNotFoundError: the folder to save in is not there.
        IsADirectoryError: there is a folder that no model was saved as.
        ValueError: a name of Keras's old format for whole models, which cannot hold stages.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            "A model is saved to a path that ends in `.keras` or `.weights.h5`, a str or a "
            f"`pathlib.Path`. Received: {path!r}."
        )
    target = Path(path)
    if target.name.endswith((".h5", ".hdf5")) and not target.name.endswith(".weights.h5"):
        raise ValueError(
            "A model is saved in a file that ends in `.keras`, weights alone in `.weights.h5`: the "
            f"old HDF5 format cannot be loaded again. Received: {target}."
        )
    if not overwrite and target.exists():
        raise FileExistsError(
            f"{target} is there already. Received: overwrite=False. Choose another name, or pass "
            "`overwrite=True`."
        )
    if target.is_dir() and not _is_saved_model(target):
        raise IsADirectoryError(
            errno.EISDIR,
            "A model is saved as a file, or over a folder that one was saved as. Received: a "
            "folder with other things in it. Choose another name",
            str(target),
        )
    # A link stays one, and the file that it names is written.
    place = Path(os.path.realpath(target)) if target.is_symlink() else target
    if not place.parent.exists():
        raise FileNotFoundError(
            errno.ENOENT, "The folder to save in must be there. Make it first", str(target)
        )
    folder = Path(tempfile.mkdtemp(prefix=f".{target.stem}.aside-", dir=place.parent))
    try:
        yield str(folder / target.name)
        _put_in_place(folder, target.name, place)
    except (OSError, ValueError) as error:
        _speak_of(error, folder, place.parent)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_saved_model(folder: Path) -> bool:
    """Tell whether a folder is what `save(zipped=False)` writes, and nothing more."""
    names = {one.name for one in folder.iterdir()}
    return names >= SAVED_FILES and not any(
        name not in SAVED_FILES and name != "assets" and not name.startswith("model.weights")
        for name in names
    )


def _put_in_place(folder: Path, name: str, target: Path) -> None:
    """Move everything out of the folder, what has this name last, to the target."""
    for written in folder.rglob("*"):
        if written.is_file():
            with open(written, "rb+") as file:
                os.fsync(file.fileno())
    for written in sorted(folder.iterdir(), key=lambda one: one.name == name):
        place = target if written.name == name else target.parent / written.name
        if place.is_dir():
            # A folder takes no other one's place: it makes room, and goes with the hidden one.
            os.replace(place, folder / f"{written.name}.old")
        os.replace(written, place)


def _speak_of(error: Exception, aside: Path, folder: Path) -> None:
    """Let an error name files where the user wants them."""
    hidden, shown = str(aside), str(folder)
    error.args = tuple(
        one.replace(hidden, shown) if isinstance(one, str) else one for one in error.args
    )
    if isinstance(error, OSError) and isinstance(error.filename, (str, os.PathLike)):
        error.filename = os.fspath(error.filename).replace(hidden, shown)


def check_keras_file(path: Any) -> None:
    """Raise unless `path` is a `.keras` file that is there and whole.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: the file is cut short or damaged.
        ValueError: it unpacks to far more than its own size.
    """
    target = Path(os.fspath(path))
    if not target.is_file():
        raise FileNotFoundError(f"`path` must be a saved `.keras` file. Received: {target}.")
    damaged: str | None = "no complete archive"
    if zipfile.is_zipfile(target):
        try:
            with zipfile.ZipFile(target) as archive:
                # Before anything is read: to unpack takes as long as its sizes say.
                _check_growth(archive, target)
                damaged = archive.testzip()
        except _Grows:
            raise
        except UNREADABLE as error:
            damaged = str(error)
    if damaged is not None:
        raise DamagedFile(
            f"{target} is cut short or damaged ({damaged}). Received: "
            f"{target.stat().st_size} bytes. Save the model again, or use an older copy; files "
            "that `GreedyModel.save` writes are whole or absent."
        )


class _Grows(ValueError):
    """An archive that unpacks to far more than its own size."""


def _check_growth(archive: zipfile.ZipFile, target: Path) -> None:
    unpacked = sum(entry.file_size for entry in archive.infolist())
    limit = MOST_GROWTH * target.stat().st_size + SLACK
    if unpacked > limit:
        raise _Grows(
            f"A `.keras` file must unpack to at most {limit} bytes, {MOST_GROWTH} times its own. "
            f"Received: {target}, of {unpacked} bytes unpacked. Keras writes archives without "
            "compression; do not load one that you do not trust."
        )


@public
def load_model(
    path: Any, custom_objects: dict[str, Any] | None = None, compile: bool = True
) -> Any:
    """Load a `.keras` file, after checking that it is whole.

    `keras.saving.load_model` loads the same files; this one says what is wrong with a damaged
    one. Safe mode is always on: a file cannot run code.

    Args:
        path: str or path of a `.keras` file.
        custom_objects: dict of name to class, for layers that are not registered. Defaults to
            `None`.
        compile: bool. Whether to compile as at saving, optimizer state included. Defaults to
            `True`.

    Returns:
        The model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short or damaged, or unpacks to far more than its own size.

    Example:
        >>> import keras, os, tempfile, keras_trgl as trgl
        >>> stages, heads = [[keras.layers.Dense(4)]], [keras.layers.Dense(2)]
        >>> model = trgl.GreedyModel(stages, heads, method="vangl", seed=0)
        >>> model.build((None, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(os.path.join(folder, "model.keras"))
        ...     trgl.load_model(os.path.join(folder, "model.keras")).num_stages
        1
    """
    check_keras_file(path)
    return keras.saving.load_model(
        path, custom_objects=custom_objects, compile=compile, safe_mode=True
    )


@contextlib.contextmanager
def weights_kept_on_failure(model: keras.Model, path: Any) -> Iterator[None]:
    """Put the weights back and say why, if loading `path` into `model` fails half-way."""
    before = [(variable, variable.numpy()) for variable in model.variables]
    try:
        yield
    except UNREADABLE as error:
        for variable, value in before:
            variable.assign(value)
        if isinstance(error, FileNotFoundError):
            raise
        if not isinstance(error, (ValueError, TypeError)):
            raise DamagedFile(
                f"The weights in {path} cannot be read; the model's are as they were. Received: "
                f"{type(error).__name__}: {error}. Save them again, or use an older file."
            ) from error
        raise ValueError(
            f"The weights in {path} do not fit this model ({len(before)} variables); its weights "
            f"are as they were. Received: {error} Build the model as the one that was saved: "
            "same blocks, stage sizes and heads."
        ) from error


def check_weights_fit(model: keras.Model, path: Any) -> None:
    """Raise unless a `.weights.h5` file holds arrays of just the shapes that `model` has."""
    if not str(path).endswith(".h5"):
        return
    import h5py  # Comes with Keras; only needed here.

    held: list[tuple[int, ...]] = []

    def visit(name: str, entry: Any) -> None:
        # What no stage of a user's model calls is beside the model's weights.
        beside = name.startswith("optimizer") or name.rpartition("/")[2].startswith("left_out_")
        if isinstance(entry, h5py.Dataset) and not beside:
            held.append(tuple(entry.shape))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    wanted = sorted(tuple(variable.shape) for variable in model.weights)
    if sorted(held) != wanted:
        raise ValueError(
            f"The file holds {len(held)} arrays, the model {len(wanted)}, or their shapes differ."
        )
