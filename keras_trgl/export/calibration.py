"""How thresholds of early exit are fitted, and on which rows."""

import dataclasses
from typing import Any

import numpy as np

from keras_trgl.checks import check_integer
from keras_trgl.recording import shown
from keras_trgl.registration import public


@public
@dataclasses.dataclass(frozen=True, repr=False)
class Calibration:
    """How `choose_exit` fits thresholds and temperatures, and times depths.

    Args:
        per_exit: bool. Whether each exit has a threshold of its own, or one serves all. Defaults
            to `True`.
        temperature: bool. Whether logits of each depth are divided by a number that is fitted
            (Guo et al. 2017), so that confidence is the share of rows that are right. Defaults
            to `False`.
        average: bool. Whether depth k predicts the mean of the probabilities of depths 1…k.
            Defaults to `False`.
        confidence: float, 0 to 1: how sure the bound of `risk` is. Defaults to `0.95`.
        fit_share: float, 0 to 1: share of the rows that thresholds of their own and temperatures
            are fitted on; the other rows judge them. One threshold for all without temperature
            and bound is judged on all rows. Defaults to `0.5`.
        batch_size: int ≥ 1: rows of a timed call. Defaults to `1`.
        repeats: int ≥ 1: timed calls of each depth. Defaults to `30`.
        seed: int ≥ 0, of the draw of rows to fit on. Defaults to `0`.

    Raises:
        ValueError: a share or confidence that is not between 0 and 1; other integers.

    Example:
        >>> from keras_trgl.export import Calibration
        >>> Calibration(temperature=True).fit_share
        0.5
    """

    per_exit: bool = True
    temperature: bool = False
    average: bool = False
    confidence: float = 0.95
    fit_share: float = 0.5
    batch_size: int = 1
    repeats: int = 30
    seed: int = 0

    def __repr__(self) -> str:
        return shown(self)

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size, 1)
        check_integer("repeats", self.repeats, 1)
        check_integer("seed", self.seed, 0)
        for name in ("confidence", "fit_share"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(
                    f"`{name}` must lie between 0 and 1. Received: {name}={getattr(self, name)}."
                )


def parts(count: int, calibration: Calibration, bounded: bool) -> tuple[Any, Any]:
    """Give places of the rows to fit on, and of those that judge.

    Args:
        count: int ≥ 1, of all rows.
        calibration: `Calibration`.
        bounded: bool. Whether a risk is to be bounded, which takes rows apart.

    Raises:
        ValueError: one of the parts would be empty.
    """
    if not (calibration.per_exit or calibration.temperature or bounded):
        return np.arange(count), np.arange(count)
    fit = round(calibration.fit_share * count)
    if not 0 < fit < count:
        raise ValueError(
            "Thresholds are fitted on some rows and judged on others. Received: "
            f"{count} rows with fit_share={calibration.fit_share}. Give more held-out rows."
        )
    order = np.random.default_rng(calibration.seed).permutation(count)
    return order[:fit], order[fit:]


def checked(calibration: Any) -> Calibration:
    """Give what was given, or the default of `None`.

    Raises:
        TypeError: it is something else.
    """
    if calibration is None:
        return Calibration()
    if not isinstance(calibration, Calibration):
        raise TypeError(
            f"`calibration` must be a `Calibration`. Received: {calibration!r}. "
            "`Calibration(temperature=True)` is one."
        )
    return calibration
