"""A part of a model as a row of smaller ones, a unit each: what remat makes anew one by one."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.layers.stage import residual_units
from keras_trgl.network.calls import Flat
from keras_trgl.network.part import NamedSum, Part, Stretch
from keras_trgl.network.units import crossing, find_units


def pieces_of(blocks: Sequence[Any]) -> list[Any]:
    """Give blocks with parts of a model in pieces, so that a unit of a model is a block.

    Args:
        blocks: list of layers.
    """
    return [one for block in blocks for one in (_cut(block) if _is_part(block) else [block])]


def _is_part(block: Any) -> bool:
    return isinstance(block, Part) and len(block.stretch.flat.inputs) == 1


def _cut(part: Part) -> list[Part]:
    """Give parts that call the same layers in a row, and tell the same energies in order."""
    flat = part.stretch.flat
    main = flat.outputs[0]
    rows = crossing(flat, main)
    ends = [end for end in _ends(part) if not _parts_what_belongs_together(part, end)]
    lookup = _first_float(flat)
    # Token ids have no gradient, so their embeddings are what a second run can begin with.
    ends = sorted({*ends, *([] if lookup is None else [lookup]), len(flat.calls) - 1})
    if len(ends) == 1:
        return [part]
    starts = [0, *(end + 1 for end in ends[:-1])]
    made = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True), start=1):
        first = flat.inputs if start == 0 else rows[start - 1]
        inside = Flat(list(first), list(rows[end]), flat.calls[start : end + 1])
        made.append(Part(_between(part.stretch, inside, start, end), f"{part.name}_{number}"))
    return made


def _ends(part: Part) -> list[int]:
    """Give the positions of calls after which a unit ends and one tensor passes."""
    flat = part.stretch.flat
    counts = [0] * len(flat.calls)
    for one in part.stretch.sums:
        counts[one.place.key[0]] += 1
    for index, call in enumerate(flat.calls):
        counts[index] += len(residual_units(call.operation)) if call.is_layer else 0
    return find_units(flat, flat.outputs[0], counts).ends


def _first_float(flat: Flat) -> int | None:
    """Give where the first numbers with a gradient pass alone, if none come in."""
    if any(keras.backend.is_float_dtype(one.dtype) for one in flat.inputs):
        return None
    for index, row in enumerate(crossing(flat, flat.outputs[0])):
        if len(row) == 1 and keras.backend.is_float_dtype(row[0].dtype):
            return index
    return None


def _parts_what_belongs_together(part: Part, end: int) -> bool:
    """Tell whether a residual is told by calls before and after a place."""
    spans = []
    for one in part.stretch.sums:
        at = [one.place.key[0], *(key[0] for key, _ in one.place.terms)]
        spans.append((min(at), max(at)))
    for distance in part.stretch.distances:
        made = [i for i, c in enumerate(part.calls) if distance.start in c.outputs]
        spans.append((made[0] + 1 if made else 0, distance.last))
    return any(first <= end < last for first, last in spans)


def _between(stretch: Stretch, flat: Flat, start: int, end: int) -> Stretch:
    """Give what a stretch of calls has of a longer one's residuals."""
    inside = range(start, end + 1)
    return Stretch(
        flat,
        [
            NamedSum(one.name, one.place.moved(-start))
            for one in stretch.sums
            if one.place.key[0] in inside
        ],
        [
            dataclasses.replace(one, last=one.last - start)
            for one in stretch.distances
            if one.last in inside
        ],
        frozenset((call - start, n) for call, n in stretch.by_rule if call in inside),
    )
