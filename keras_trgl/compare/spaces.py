"""The methods that are compared, and the numbers of each that are chosen.

A number is chosen from a stated range by as many trials for every method. Trials are the rows of a
Latin square: each range is cut into as many parts as there are trials, each part's middle is tried
once, and an order drawn from a seed says with which of the others. Rates come in one order, so all
methods try the same ones.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_trgl import methods

RATE = "learning_rate"


@dataclasses.dataclass(frozen=True)
class Range:
    """A range of a number.

    Attributes:
        low: float, least value.
        high: float, largest value.
        kind: `"log"`: even steps of the logarithm. `"share"`: the same of 1 − value. `"integer"`:
            whole numbers.
    """

    low: float
    high: float
    kind: str = "log"

    def at(self, share: float) -> float:
        """Give the value at a share, 0 to 1, of the way from `low` to `high`."""
        if self.kind == "integer":
            return int(min(self.high, np.floor(self.low + share * (self.high - self.low + 1))))
        if self.kind == "share":
            return float(f"{1 - Range(1 - self.high, 1 - self.low).at(1 - share):.6g}")
        return float(f"{self.low * (self.high / self.low) ** share:.6g}")

    def __str__(self) -> str:
        return f"{self.low:g} … {self.high:g} ({self.kind})"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A method to compare.

    Attributes:
        kind: name of the class in `methods`.
        space: ranges of its own numbers, by argument.
        fixed: its other arguments.
        needs_images: whether it is told how images were normalized.
    """

    kind: str
    space: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs_images: bool = False


CANDIDATES: dict[str, Candidate] = {
    "end_to_end": Candidate("EndToEnd"),
    "vangl": Candidate("VanGL"),
    "trgl": Candidate("TRGL", {"tau": Range(0.01, 10.0)}),
    "pred_sim": Candidate("PredSim", {"beta": Range(0.1, 0.99, "share")}),
    "dgl": Candidate("DGL"),
    "info_pro": Candidate(
        "InfoPro", {"reconstruction_weight": Range(0.1, 10.0)}, needs_images=True
    ),
    "info_pro_contrast": Candidate(
        "InfoPro",
        {"reconstruction_weight": Range(0.1, 10.0)},
        {"variant": "contrast"},
        needs_images=True,
    ),
    "info_pro_l": Candidate("InfoProL", {"reconstruction_weight": Range(0.1, 10.0)}),
    "aug_local": Candidate("AugLocal", {"depth": Range(1, 3, "integer")}),
    "ddg": Candidate("DDG"),
    "features_replay": Candidate("FeaturesReplay"),
    "dni": Candidate("DNI", {"weight": Range(1.0, 1000.0)}),
}
"""Methods by the names that `--methods` takes; `trgl+NAME` is the energy on top of one."""

ON_TOP = "trgl+"


def available() -> list[str]:
    """Give the names of the methods that this package has."""
    return [name for name, one in CANDIDATES.items() if hasattr(methods, one.kind)]


def check_method(name: str) -> None:
    """Raise unless a name is that of a method that can be compared.

    Raises:
        ValueError: it is not.
    """
    under = name.removeprefix(ON_TOP)
    if under not in available():
        raise ValueError(
            f"`--methods` takes {', '.join(available())}, and `{ON_TOP}NAME` for the energy on "
            f"top of a local one. Received: {name!r}."
        )
    if name.startswith(ON_TOP) and under in ("trgl", "end_to_end"):
        raise ValueError(
            f"`{ON_TOP}NAME` adds the energy to a local method that has none. Received: {name!r}. "
            "Take `trgl`, or another NAME."
        )


def space_of(name: str) -> dict[str, Range]:
    """Give the ranges of a method's own numbers; those of `trgl+NAME` are of both."""
    own = dict(CANDIDATES[name.removeprefix(ON_TOP)].space)
    return {"tau": CANDIDATES["trgl"].space["tau"], **own} if name.startswith(ON_TOP) else own


def make_method(name: str, numbers: Mapping[str, Any], data: Any) -> Any:
    """Give the method.

    Args:
        name: str, checked.
        numbers: its own numbers, by argument.
        data: `ImageData`.
    """
    numbers = dict(numbers)
    if name.startswith(ON_TOP):
        tau = numbers.pop("tau")
        return methods.TRGL(tau, on=make_method(name.removeprefix(ON_TOP), numbers, data))
    one = CANDIDATES[name]
    images = {"mean": list(data.mean), "std": list(data.std)} if one.needs_images else {}
    make: Callable[..., Any] = getattr(methods, one.kind)
    return make(**one.fixed, **numbers, **images)


def trials(name: str, rates: Range, count: int, seed: int) -> list[dict[str, Any]]:
    """Give what is tried of a method: a rate and its own numbers each time.

    Args:
        name: str, checked.
        rates: range of the rate.
        count: int ≥ 1. Trials, as many for every method.
        seed: int ≥ 0. Seed of the orders of the method's own numbers.

    Returns:
        List of `count` dicts.
    """
    shares = (np.arange(count) + 0.5) / count
    found: list[dict[str, Any]] = [{RATE: rates.at(share)} for share in shares]
    for key, one in space_of(name).items():
        # By the argument alone: τ is tried with the same rates in `trgl` and in `trgl+NAME`.
        rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
        for row, share in zip(found, rng.permutation(shares), strict=True):
            row[key] = one.at(share)
    return found
