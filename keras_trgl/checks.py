"""Argument checks: what must hold, what came, the way out."""

import importlib
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import keras
import numpy as np

NO_BLOCKS = (
    "Give the layers that an architecture makes; a functional model is cut by "
    "`GreedyModel.from_model(model, cuts, head)`."
)
"""The way out where something came in place of a list of blocks."""


def check_positive(name: str, value: Any, hint: str = "") -> None:
    """Raise unless `value` is a finite number above zero.

    Args:
        name: str. Name of the argument, as the user wrote it.
        value: the value that came.
        hint: str. The way out, a full sentence. Defaults to none.

    Raises:
        TypeError: `value` is no real number.
        ValueError: `value` is not above zero, or not finite.
    """
    # `True` is a number to Python, and never one that a user means here.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"`{name}` must be a number above 0. Received: {name}={value!r}. {hint}".rstrip()
        )
    if not 0 < float(value) < float("inf"):
        raise ValueError(
            f"`{name}` must be above 0 and finite. Received: {name}={value}. {hint}".rstrip()
        )


def check_tau(name: str, value: Any, hint: str = "") -> None:
    """Raise unless `value` is above zero and finite, and so is the energy's weight 1/(2τ).

    Args:
        name: str. Name of the argument, as the user wrote it.
        value: the value that came.
        hint: str. The way out, a full sentence. Defaults to none.

    Raises:
        TypeError: `value` is no real number.
        ValueError: `value` is not above zero, not finite, or its weight is infinite in `floatx`.
    """
    check_positive(name, value, hint)
    largest = float(np.finfo(keras.config.floatx()).max)
    if float(value) * largest < 0.5:
        raise ValueError(
            f"`{name}` must be so large that 1/(2τ) is finite in {keras.config.floatx()}. "
            f"Received: {name}={value}. {hint}".rstrip()
        )


def check_integer(name: str, value: Any, minimum: int, hint: str = "") -> None:
    """Raise unless `value` is an integer of at least `minimum`.

    Args:
        name: str. Name of the argument, as the user wrote it.
        value: the value that came.
        minimum: int. Least value allowed.
        hint: str. The way out, a full sentence. Defaults to none.

    Raises:
        TypeError: `value` is no integer.
        ValueError: `value` is below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an integer. Received: {name}={value!r}. {hint}".rstrip())
    if value < minimum:
        raise ValueError(
            f"`{name}` must be at least {minimum}. Received: {name}={value}. {hint}".rstrip()
        )


def check_list(name: str, value: Any, of: str, hint: str) -> None:
    """Raise unless `value` is a list, a tuple or another sequence, but a text.

    Args:
        name: str. Name of the argument, as the user wrote it.
        value: the value that came.
        of: str. What the list must hold.
        hint: str. The way out, a full sentence.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        what = value.__name__ if isinstance(value, type) else type(value).__name__
        shown = f"{name}={value!r}"[:80] if isinstance(value, (int, float, str)) else f"a {what}"
        raise TypeError(f"`{name}` must be a list of {of}. Received: {shown}. {hint}")


def path_of(name: str, value: Any) -> Path:
    """Give a path that a user named.

    Args:
        name: str. Name of the argument, as the user wrote it.
        value: the value that came.

    Returns:
        `pathlib.Path`.

    Raises:
        TypeError: `value` is no path.
    """
    try:
        return Path(os.fspath(value))
    except TypeError:
        raise TypeError(
            f"`{name}` must be a path. Received: {name}={value!r}. Pass a str or a `pathlib.Path`."
        ) from None


def made_folder(name: str, value: Any) -> Path:
    """Give a folder that a user named; it is made where there is none.

    Args:
        name: str. Name of the argument, as the user wrote it.
        value: the value that came.

    Returns:
        `pathlib.Path`.

    Raises:
        TypeError: `value` is no path.
        OSError: it is, or lies in, a file, or may not be made.
    """
    folder = path_of(name, value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"`{name}` must be a folder, or a place for one. Received: {error.strerror}. Give "
            "another",
            str(folder),
        ) from error
    return folder


def check_class_weight(value: Any) -> None:
    """Raise unless `value` is `None`, or a dict of class index to weight.

    Args:
        value: the value that came.

    Raises:
        TypeError: it is no dict, or its keys are no integers.
    """
    hint = "Write {0: 1.0, 1: 2.5}: a class that is left out weighs 1."
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(
            "`class_weight` must be a dict of class index to weight. Received: a "
            f"{type(value).__name__}. {hint}"
        )
    for index in value or ():
        check_integer("class_weight's key", index, 0, hint)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise unless `value` is one of `choices`.

    Args:
        name: str. Name of the argument, as the user wrote it.
        value: the value that came.
        choices: sequence of the values allowed.

    Raises:
        ValueError: `value` is none of them.
    """
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {allowed}. Received: {name}={value!r}.")


def check_stage_sizes(stage_sizes: Sequence[int], num_blocks: int) -> None:
    """Raise unless `stage_sizes` are counts of at least 1 that sum to `num_blocks`.

    Args:
        stage_sizes: sequence of int. Blocks per stage.
        num_blocks: int. Blocks there are.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size is below 1, or the sum is another.
    """
    check_list(
        "stage_sizes",
        stage_sizes,
        "ints, a number of blocks for every stage",
        "To split evenly use `splitting.by_depth(blocks, num_stages)`.",
    )
    for size in stage_sizes:
        check_integer("stage_sizes", size, 1, "Every stage needs a block.")
    if sum(stage_sizes) != num_blocks:
        raise ValueError(
            f"`stage_sizes` must sum to the number of blocks, {num_blocks}. "
            f"Received: stage_sizes={list(stage_sizes)}, which sum to {sum(stage_sizes)}. "
            f"To split evenly use `splitting.by_depth(blocks, num_stages={len(stage_sizes)})`."
        )


def chosen(name: str, value: Any, base: type, members: Mapping[str, type]) -> Any:
    """Give an object from itself or from its name, as Keras's `get` functions do.

    Raises:
        ValueError: a name that is none of `members`.
        TypeError: something else that is no `base`.
    """
    if isinstance(value, base):
        return value
    if isinstance(value, str):
        # Names as one would write the class, too: "PredSim" and "pred_sim" are one.
        folded = {key.replace("_", ""): key for key in members}
        value = folded.get(value.replace("_", "").lower(), value)
        if value not in members:
            known = ", ".join(repr(one) for one in members)
            raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}.")
        return members[value]()
    raise TypeError(
        f"`{name}` must be a {base.__name__} or one of {', '.join(map(repr, members))}. "
        f"Received: {name}={value!r}. Did you pass a class instead of an object?"
    )


def needed(module: str, extra: str, what: str) -> Any:
    """Import a module, or say which extra brings it.

    Args:
        module: str. The module's name.
        extra: str. The extra of this package that brings it.
        what: str. What needs it, as the beginning of a sentence.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs the package of `{module}`. Received: {error}. Install it with "
            f"`pip install keras-trgl[{extra}]`."
        ) from error
