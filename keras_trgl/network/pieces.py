"""A part of a model as a row of smaller ones, a unit each: what remat makes anew one by one."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.layers.stage import residual_units
from keras_trgl.network.calls import Flat, Value
from keras_trgl.network.crossing import crossing
from keras_trgl.network.part import NamedSum, Part, Stretch
from keras_trgl.network.sum_watch import find_sums
from keras_trgl.network.units import fewest, find_units


def pieces_of(blocks: Sequence[Any]) -> list[Any]:
    """Give blocks with parts of a model in pieces, so that a unit of a model is a block.

    Args:
        blocks: list of layers.
    """
    return [
        one for block in blocks for one in (_cut(block) if isinstance(block, Part) else [block])
    ]


def _cut(part: Part) -> list[Part]:
    """Give parts that call the same layers in a row, and tell the same energies in order."""
    flat, rows = part.stretch.flat, _rows(part.stretch.flat)
    ends = [end for end in _ends(part) if not _parts_what_belongs_together(part, end)]
    lookup = _first_float(flat, rows)
    # Token ids have no gradient, so their embeddings are what a second run can begin with.
    ends = sorted({*ends, *([] if lookup is None else [lookup]), len(flat.calls) - 1})
    if len(ends) == 1:
        return [part]
    made, start, first, structure = [], 0, flat.inputs, flat.structure
    for number, end in enumerate(ends, start=1):
        last = flat.outputs if number == len(ends) else rows[end]
        inside = Flat(first, last, flat.calls[start : end + 1], structure)
        made.append(Part(_between(part.stretch, inside, start, end), f"{part.name}_{number}"))
        start, first = end + 1, last
        structure = tuple(last) if len(last) > 1 else last[0]
    return made


def _rows(flat: Flat) -> list[list[Value]]:
    """Give what is needed after each call, inside or after the part, floats first."""
    rows = crossing(flat, flat.outputs[0])
    made = {value: index for index, call in enumerate(flat.calls) for value in call.outputs}
    for index, row in enumerate(rows):
        later = [one for one in flat.outputs if made.get(one, -1) <= index and one not in row]
        row += later
    return [sorted(row, key=lambda one: not _is_float(one)) for row in rows]


def _is_float(value: Value) -> bool:
    return bool(keras.backend.is_float_dtype(value.dtype))


def _ends(part: Part) -> list[int]:
    """Give the positions of calls after which a unit ends and few tensors pass."""
    flat = part.stretch.flat
    counts = [0] * len(flat.calls)
    for one in part.stretch.sums:
        counts[one.place.key[0]] += 1
    for index, call in enumerate(flat.calls):
        counts[index] += len(residual_units(call.operation)) if call.is_layer else 0
    return fewest(find_units(flat, flat.outputs[0], counts)).ends


def _first_float(flat: Flat, rows: Sequence[Sequence[Value]]) -> int | None:
    """Give where the first numbers with a gradient are all that passes of them, if none come in."""
    if any(map(_is_float, flat.inputs)):
        return None
    return next((index for index, row in enumerate(rows) if sum(map(_is_float, row)) == 1), None)


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
    by_rule = frozenset((call - start, n) for call, n in stretch.by_rule if call in inside)
    if start and len(flat.inputs) > 1:
        # It may get both terms of a sum, and not see the way between them.
        by_rule = frozenset(place.key for place in find_sums(flat, flat.outputs[0]).places)
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
        by_rule,
    )
