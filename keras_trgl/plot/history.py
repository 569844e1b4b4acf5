"""What was logged of every stage while training, a panel for every quantity."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_trgl.checks import check_list
from keras_trgl.plot.style import color_of, dressed, finished, panels
from keras_trgl.registration import public

ENTRY = re.compile(r"(val_)?stage_(\d+)_(.+)")
UNITS = {
    "loss": "loss",
    "objective": "objective",
    "energy": "energy E_k, squared feature units",
    "kinetic_energy": "energy E_k, squared feature units",
    "displacement": "displacement |T_k(x) − x|²/|x|²",
    "calibration_error": "expected calibration error, 0 to 1",
    "accuracy": "accuracy, 0 to 1",
    "multiplier": "multiplier λ_k",
    "tau": "τ_k",
}


@public
def history(
    history: Any,
    quantities: Sequence[str] | None = None,
    subject: str | None = None,
    path: Any = None,
) -> Any:
    """Draw what was logged of every stage, a panel per quantity and a line per stage.

    Args:
        history: `keras.callbacks.History` that `fit` gave, or its dict of name to a list with a
            number per epoch, which does not tell in which epochs validation ran.
        quantities: list of str, such as `"loss"` and `"energy"`: what to draw of `stage_k_…`.
            Validation's is dashed, in the same panel. `None` is all. Defaults to `None`.
        subject: str. Data set and model for the title, as in `"digits, ResNet-26"`. `None` is the
            name of the history's model. Defaults to `None`.
        path: str or path of the picture; its ending says the format. `None` writes none. Defaults
            to `None`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib, the extra `[plot]`, is missing.
        TypeError: it is no history.
        ValueError: no stage is in it, or not one of `quantities`.

    Example:
        >>> import keras_trgl as trgl
        >>> logs = {"stage_1_loss": [2.0, 1.0], "stage_2_loss": [1.0, 0.5]}
        >>> len(trgl.plot.history(logs, subject="toy").axes)
        1
    """
    logs = logged(history)
    groups = by_quantity(logs)
    known = list(dict.fromkeys(name.removeprefix("val_") for name in groups))
    if quantities is not None:
        check_list("quantities", quantities, "names", f"There are {', '.join(known)}.")
        unknown = [name for name in quantities if name not in known]
        if unknown or not quantities:
            raise ValueError(
                f"`quantities` must be among {', '.join(known)}. Received: {list(quantities)}."
            )
        known = list(quantities)
    figure, axes = panels(len(known))
    places = epochs_of(history)
    deepest = max(depth for entries in groups.values() for depth in entries)
    for panel, quantity in zip(axes, known, strict=True):
        for prefix, style in (("", "-"), ("val_", "--")):
            for depth, name in groups.get(prefix + quantity, {}).items():
                values, epochs = logs[name], places[name]
                label = f"stage {depth}{', validation' if prefix else ''}"
                marker = "." if len(values) < 2 else None
                color = color_of(depth - 1, deepest)
                panel.plot(epochs, values, style, marker=marker, color=color, label=label)
        dressed(panel, "epoch", UNITS.get(quantity, quantity.replace("_", " ")), whole=True)
    owner = getattr(getattr(history, "model", None), "name", None)
    return finished(figure, "history by stage", subject or owner, path)


def logged(history: Any) -> Mapping[str, Any]:
    """Give the dict of a history.

    Raises:
        TypeError: it is none.
    """
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping) or not all(map(_is_list, logs.values())):
        raise TypeError(
            "`history` must be what `fit` gave, or its dict `history.history`. Received: "
            f"{history!r}."
        )
    return logs


def _is_list(values: Any) -> bool:
    return isinstance(values, (list, tuple)) or getattr(values, "ndim", 0) == 1


def epochs_of(history: Any) -> dict[str, list[int]]:
    """Give the epochs, from 1, that each entry's numbers are of.

    Validation may run in some epochs alone: a `History` tells in which, and of a dict a frequency
    is taken if only one gives as many. What is shorter for another reason is of the last epochs.

    Args:
        history: `keras.callbacks.History` or its dict.

    Returns:
        Dict of name to a list of int.
    """
    logs = logged(history)
    count = max((len(values) for values in logs.values()), default=0)
    told = [epoch + 1 for epoch in getattr(history, "epoch", ())]
    epochs = told if len(told) == count else list(range(1, count + 1))
    frequency = getattr(history, "validation_freq", None)
    found = {}
    for name, values in logs.items():
        at = epochs
        if len(values) < count and name.startswith("val_"):
            at = _validated(epochs, len(values), frequency)
        found[name] = at[len(at) - len(values) :]
    return found


def _validated(epochs: list[int], count: int, frequency: Any) -> list[int]:
    """Give the epochs, `count` of them, in which validation ran, or all where nothing tells."""
    if frequency is None:
        choices = {tuple(e for e in epochs if e % n == 0) for n in range(1, max(epochs) + 1)}
        fitting = [one for one in choices if len(one) == count]
        return list(fitting[0]) if len(fitting) == 1 else epochs
    if isinstance(frequency, int):
        found = [epoch for epoch in epochs if epoch % frequency == 0]
    else:
        found = [epoch for epoch in epochs if epoch in frequency]
    return found if len(found) == count else epochs


def by_quantity(logs: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """Give the stages' entries: by quantity, with `val_` before that of validation, and depth.

    Raises:
        ValueError: there are none.
    """
    found = [(ENTRY.fullmatch(name), name) for name in logs]
    groups: dict[str, dict[int, str]] = {}
    for match, name in found:
        if match:
            groups.setdefault((match[1] or "") + match[3], {})[int(match[2])] = name
    if not groups or not any(
        len(logs[name]) for group in groups.values() for name in group.values()
    ):
        raise ValueError(
            "A history by stage has entries `stage_k_…`. Received: "
            f"{', '.join(list(logs)[:6]) or 'none'}. `GreedyModel.fit` gives one."
        )
    return {name: dict(sorted(entries.items())) for name, entries in groups.items()}
