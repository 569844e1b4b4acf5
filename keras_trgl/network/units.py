"""Units of a model and the places where it can be cut.

A unit ends at a residual sum, with the activation or normalization after it; a layer that hides
sums is one unit. In a model without sums a layer with weights is one, with its normalization and
activation. A cut lies at the end of a unit, or after a layer named by the user. How many tensors
may cross it decides where a unit can end: behind a skip, or inside its reach too.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

from keras_trgl.checks import check_integer
from keras_trgl.network.call_kinds import follows, is_main
from keras_trgl.network.calls import Flat, Value
from keras_trgl.network.crossing import crossing

EVERY_UNIT = "every unit"
"""Cuts that make every unit a stage: no user's word, as it is no name of a layer in a list."""


@dataclasses.dataclass(frozen=True)
class Units:
    """Where a model's units end.

    Attributes:
        ends: positions of the calls after which a unit ends, in order.
        counts: residuals, or layers with weights, of each unit.
        counted: what `counts` counts.
    """

    ends: list[int]
    counts: list[int]
    counted: str


def find_units(flat: Flat, main: Value, residuals: Sequence[int]) -> list[Units]:
    """Give a model's units, where one tensor crosses their ends, and where ever more may.

    Args:
        flat: the model's calls.
        main: the output that heads read.
        residuals: number of residuals that end in each call.

    Returns:
        List of `Units`, of ends where few tensors cross first, each with more units than before.
    """
    counts, counted = list(residuals), "residuals"
    if not any(counts):
        counts, counted = [int(is_main(call)) for call in flat.calls], "layers with weights"
    crosses = crossing(flat, main)
    # A stage ends with numbers of its own that go on.
    numbers = [
        any("float" in value.dtype and value in live for value in call.outputs)
        for call, live in zip(flat.calls, crosses, strict=True)
    ]
    found: list[Units] = []
    for limit in range(1, max(map(len, crosses), default=1) + 1):
        places = [i for i, live in enumerate(crosses) if len(live) <= limit and numbers[i]]
        units = _units_at(places, flat, list(map(len, crosses)), counts, counted)
        if not found or len(units.ends) > len(found[-1].ends):
            found.append(units)
    return found


def _units_at(
    places: Sequence[int], flat: Flat, widths: Sequence[int], counts: Sequence[int], counted: str
) -> Units:
    """Give the units that end at some of these places."""
    possible: set[int] = set(places)
    ends: list[int] = []
    for position in (index for index, count in enumerate(counts) if count):
        place = next((index for index in places if index >= position), len(flat.calls) - 1)
        while (
            place + 1 in possible
            and widths[place + 1] <= widths[place]
            and follows(flat.calls[place + 1])
        ):
            place += 1
        if place in ends:
            continue
        if ends and not any(call.weights for call in flat.calls[ends[-1] + 1 : place + 1]):
            # The sum of a long skip, right after another unit: no stage of its own.
            ends.pop()
        ends.append(place)
    before = [sum(counts[: place + 1]) for place in ends[:-1]]
    sizes = [last - first for first, last in zip([0, *before], [*before, sum(counts)], strict=True)]
    return Units(ends, sizes if ends else [], counted)


def fewest(found: Sequence[Units]) -> Units:
    """Give the units where as few tensors cross as make more than one unit.

    Args:
        found: the model's units, as `find_units` gives them.
    """
    return next((one for one in found if len(one.ends) > 1), found[-1])


def cut_places(cuts: Any, found: Sequence[Units], flat: Flat) -> list[int]:
    """Give the positions of the K - 1 calls after which the model is cut.

    An int takes cuts where as few tensors cross as can be, unless the largest stage would then hold
    more than twice the residuals that it has where any number may: a U-Net, for one, would be a
    single stage but for its last layers.

    Args:
        cuts: K; or sizes of stages in units; or names of K - 1 layers; or `EVERY_UNIT`.
        found: the model's units, as `find_units` gives them.
        flat: its calls.

    Raises:
        TypeError: `cuts` is none of these.
        ValueError: there are fewer units, sizes have another sum, or there is no such layer.
    """
    if isinstance(cuts, (list, tuple)) and all(isinstance(one, str) for one in cuts):
        return _named_places(cuts, flat)
    if cuts == EVERY_UNIT:
        units = fewest(found)
        groups = [1] * max(len(units.ends), 1)
    elif isinstance(cuts, (list, tuple)):
        for size in cuts:
            check_integer("cuts", size, 1, "Every stage needs a unit.")
        possible = [max(len(one.ends), 1) for one in found]
        if sum(cuts) not in possible:
            more = " (as few as can be where one tensor crosses)" if len(possible) > 1 else ""
            raise ValueError(
                "`cuts` as sizes must sum to the number of units, "
                f"{' or '.join(map(str, possible))}{more}. Received: "
                f"cuts={list(cuts)}, which sum to {sum(cuts)}. An int K cuts evenly."
            )
        units, groups = found[possible.index(sum(cuts))], list(cuts)
    else:
        units, groups = _even(cuts, found)
    return [units.ends[sum(groups[: k + 1]) - 1] for k in range(len(groups) - 1)]


def _even(num_stages: Any, found: Sequence[Units]) -> tuple[Units, list[int]]:
    """Give units, and how many of them each of K stages gets."""
    way = "Give K, a list of sizes in units, or a list of K - 1 names of layers."
    check_integer("cuts", num_stages, 1, way)
    fitting = [one for one in found if num_stages <= max(len(one.ends), 1)]
    if not fitting:
        raise ValueError(
            f"`cuts` must be at most {max(len(found[-1].ends), 1)} for this model: a stage needs "
            f"one of its {sum(found[-1].counts)} {found[-1].counted}, and a cut lies between "
            f"layers, not inside one. Received: cuts={num_stages}."
        )
    split = [nearly_equal(one.counts, num_stages) for one in fitting]
    largest = [
        max(_sums(one.counts, groups), default=0)
        for one, groups in zip(fitting, split, strict=True)
    ]
    chosen = next(index for index, size in enumerate(largest) if size <= 2 * min(largest))
    return fitting[chosen], split[chosen]


def _sums(counts: Sequence[int], groups: Sequence[int]) -> list[int]:
    stops = list(itertools.accumulate(groups))
    return [sum(counts[start:stop]) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _named_places(names: Sequence[str], flat: Flat) -> list[int]:
    places: list[int] = []
    known = {call.name: index for index, call in enumerate(flat.calls)}
    for name in names:
        if name not in known:
            raise ValueError(
                f"`cuts` must name layers of the model. Received: {name!r}, which is none of its "
                f"{len(known)}. `model.summary()` and `cut_table()` show names."
            )
        place = known[name]
        if place <= max(places, default=-1) or place == len(flat.calls) - 1:
            raise ValueError(
                "`cuts` must name layers in the order in which they run, each before the end. "
                f"Received: cuts={list(names)}, {name!r} out of place. Give K - 1 names for K "
                "stages."
            )
        places.append(place)
    return places


def nearly_equal(sizes: Sequence[int], num_stages: int) -> list[int]:
    """Give how many neighbouring groups each stage gets, for the least sum of squared totals.

    With groups of one this is the equal-depth rule; of equal splits the one with larger first.
    """

    @functools.cache
    def best(start: int, stages: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        if stages == 1:
            total = sum(sizes[start:])
            return total**2, (-total,), (len(sizes) - start,)
        options = []
        for count in range(1, len(sizes) - start - stages + 2):
            total = sum(sizes[start : start + count])
            cost, totals, counts = best(start + count, stages - 1)
            options.append((total**2 + cost, (-total, *totals), (count, *counts)))
        return min(options)

    return list(best(0, num_stages)[2]) if sizes else [0]
