"""Units of a model and the places where it can be cut.

A unit ends at a residual sum, with the activation or normalization after it; a layer that hides
sums is one unit. In a model without sums a layer with weights is one, with its normalization and
activation. A cut lies at the end of a unit, or after a layer named by the user.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.network.calls import Call, Flat, Value

_NORMALIZATIONS = ("BatchNormalization", "LayerNormalization", "GroupNormalization")
_NORMALIZATION_LAYERS = (
    *(getattr(keras.layers, name) for name in (*_NORMALIZATIONS, "UnitNormalization")),
    keras.layers.RMSNormalization,
)
_ACTIVATION_LAYERS = tuple(
    getattr(keras.layers, name) for name in ("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU")
)
_ACTIVATIONS = {"Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Tanh"}

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


def crossing(flat: Flat, main: Value) -> list[list[Value]]:
    """Give what later calls need after each call, the call's own outputs last.

    Args:
        flat: the model's calls.
        main: the output that heads read.
    """
    last = {value: index for index, call in enumerate(flat.calls) for value in call.inputs}
    last[main] = len(flat.calls)
    live = [value for value in flat.inputs if value in last]
    rows = []
    for index, call in enumerate(flat.calls):
        live = [value for value in (*live, *call.outputs) if last.get(value, -1) > index]
        rows.append(live)
    return rows


def find_units(flat: Flat, main: Value, residuals: Sequence[int]) -> Units:
    """Give a model's units.

    Args:
        flat: the model's calls.
        main: the output that heads read.
        residuals: number of residuals that end in each call.
    """
    counts, counted, passed = list(residuals), "residuals", follows
    if not any(counts):
        counts, counted = [int(is_main(call)) for call in flat.calls], "layers with weights"
    crosses = crossing(flat, main)
    places = [
        index
        for index, live in enumerate(crosses)
        if len(live) == 1 and live[0] in flat.calls[index].outputs
    ]
    single, ends = set(places), []
    for position in (index for index, count in enumerate(counts) if count):
        place = next((index for index in places if index >= position), len(flat.calls) - 1)
        while place + 1 in single and passed(flat.calls[place + 1]):
            place += 1
        if place not in ends:
            ends.append(place)
    before = [sum(counts[: place + 1]) for place in ends[:-1]]
    sizes = [last - first for first, last in zip([0, *before], [*before, sum(counts)], strict=True)]
    return Units(ends, sizes if ends else [], counted)


def cut_places(cuts: Any, units: Units, flat: Flat, main: Value) -> list[int]:
    """Give the positions of the K - 1 calls after which the model is cut.

    Args:
        cuts: K; or sizes of stages in units; or names of K - 1 layers; or `EVERY_UNIT`.
        units: the model's units.
        flat: its calls.
        main: the output that heads read.

    Raises:
        TypeError: `cuts` is none of these.
        ValueError: there are fewer units, sizes have another sum, there is no such layer, or
            several tensors cross a cut.
    """
    if isinstance(cuts, (list, tuple)) and all(isinstance(one, str) for one in cuts):
        return _named_places(cuts, flat, main)
    possible = max(len(units.ends), 1)
    cuts = [1] * possible if cuts == EVERY_UNIT else cuts
    if isinstance(cuts, (list, tuple)):
        for size in cuts:
            check_integer("cuts", size, 1, "Every stage needs a unit.")
        if sum(cuts) != possible:
            raise ValueError(
                f"`cuts` as sizes must sum to the number of units, {possible}. Received: "
                f"cuts={list(cuts)}, which sum to {sum(cuts)}. An int K cuts evenly."
            )
        groups = list(cuts)
    else:
        way = "Give K, a list of sizes in units, or a list of K - 1 names of layers."
        check_integer("cuts", cuts, 1, way)
        if cuts > possible:
            raise ValueError(
                f"`cuts` must be at most {possible} for this model: a stage needs one of its "
                f"{sum(units.counts)} {units.counted} and ends where a single tensor passes, not "
                f"inside a layer. Received: cuts={cuts}."
            )
        groups = nearly_equal(units.counts, cuts)
    return [units.ends[sum(groups[: k + 1]) - 1] for k in range(len(groups) - 1)]


def _named_places(names: Sequence[str], flat: Flat, main: Value) -> list[int]:
    places: list[int] = []
    crosses = crossing(flat, main)
    known = {call.name: index for index, call in enumerate(flat.calls)}
    for number, name in enumerate(names, start=1):
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
        live = crosses[place]
        if len(live) != 1:
            fine = [flat.calls[i].name for i, row in enumerate(crosses[:-1]) if len(row) == 1]
            near = sorted(fine, key=lambda one: abs(known[one] - place))[:2]
            raise ValueError(
                f"One tensor must cross a cut. Received: cut {number}, after {name!r}, where "
                f"{len(live)} cross: of {', '.join(one.name for one in live[:4])}. Cut after "
                f"{' or '.join(map(repr, near)) or 'no layer: none fits'}."
            )
        places.append(place)
    return places


def is_main(call: Call) -> bool:
    """Tell whether a call is of a layer with weights that makes a unit."""
    if not call.weights:
        return False
    return not isinstance(call.operation, (*_NORMALIZATION_LAYERS, *_ACTIVATION_LAYERS))


def follows(call: Call) -> bool:
    """Tell whether a call is an activation or a normalization, part of the unit before it."""
    return is_activation(call) or isinstance(call.operation, _NORMALIZATION_LAYERS)


def is_activation(call: Call) -> bool:
    """Tell whether a call is an activation, a layer or an operation."""
    if not call.is_layer:
        return type(call.operation).__name__ in _ACTIVATIONS
    return isinstance(call.operation, _ACTIVATION_LAYERS)


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
