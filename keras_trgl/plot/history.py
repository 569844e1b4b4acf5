"""What was logged of every stage while training, a panel for every quantity."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_trgl.checks import check_list
from keras_trgl.plot.style import color_of, dressed, finished, panels
from keras_trgl.registration import public

ENTRY = re.compile(r"(val_)?stage_(\d+)_(.+)")
UNITS = {
    "loss": "loss, nats",
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
            number per epoch.
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
    for panel, quantity in zip(axes, known, strict=True):
        for prefix, style in (("", "-"), ("val_", "--")):
            for depth, name in groups.get(prefix + quantity, {}).items():
                values = logs[name]
                last = max(len(one) for one in logs.values())
                epochs = range(last - len(values) + 1, last + 1)
                label = f"stage {depth}{', validation' if prefix else ''}"
                marker = "." if len(values) < 2 else None
                color = color_of(depth - 1)
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
    if not isinstance(logs, Mapping):
        raise TypeError(
            "`history` must be what `fit` gave, or its dict `history.history`. Received: "
            f"{history!r}."
        )
    return logs


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
    if not groups:
        raise ValueError(
            "A history by stage has entries `stage_k_…`. Received: "
            f"{', '.join(list(logs)[:6]) or 'none'}. `GreedyModel.fit` gives one."
        )
    return {name: dict(sorted(entries.items())) for name, entries in groups.items()}
