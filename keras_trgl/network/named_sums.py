"""The residual sums of a model by the names that users know: of layers, and of sums in them."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_trgl.layers.stage import residual_units
from keras_trgl.network.calls import Call, Flat
from keras_trgl.network.part import NamedSum
from keras_trgl.network.sum_watch import FoundSums, Key, SumPlace


class NamedSums:
    """What was found in a trace, with what users say of it.

    A sum that stands in the model has the name of its layer or operation; one inside a layer that
    layer's name, with its number where there are several.

    Args:
        flat: the model's calls.
        found: what a trace shows.
        residuals: dict of a sum's name to the name of the layer that makes its residual, or to
            `None`.

    Attributes:
        sums: list of `NamedSum`, in order.
        counts: number of residuals that end in each call.
        ambiguous: dict of name to the names of what is added, of sums in the model itself.
        unseen: names of layers with sums that cannot be seen.

    Raises:
        ValueError: `residuals` names no sum, or something that it does not add.
    """

    def __init__(self, flat: Flat, found: FoundSums, residuals: Mapping[str, Any]) -> None:
        self._calls = flat.calls
        self._inputs = set(flat.inputs)
        self._by_rule = {place.key for place in found.places}
        self.unseen = list(found.unseen)
        named = self._named(found.places)
        visible = {
            call.name: index for index, call in enumerate(flat.calls) if is_sum(call) and call.name
        }
        self._check_known(residuals, {*named, *visible})
        for name, chosen in residuals.items():
            named.pop(name, None)
            if chosen is not None:
                named[name] = self._chosen(name, visible.get(name), chosen, found.seen)
        self.sums = sorted(
            (NamedSum(name, place) for name, place in named.items()), key=lambda one: one.place.key
        )
        self.ambiguous = {
            self._calls[index].name: self._of(self._calls[index])
            for index, _ in found.ambiguous
            if is_sum(self._calls[index])
            and len(self._calls[index].inputs) == 2
            and self._calls[index].name not in residuals
        }
        self.counts = self._counted()

    def between(self, start: int, stop: int) -> tuple[list[NamedSum], frozenset[Key]]:
        """Give the sums of a stretch of calls, counted from its first call, and the rule's."""
        sums = [
            NamedSum(one.name, one.place.moved(-start))
            for one in self.sums
            if start <= one.place.key[0] < stop
        ]
        keys = {(call - start, n) for call, n in self._by_rule if start <= call < stop}
        return sums, frozenset(keys)

    def _named(self, places: Sequence[SumPlace]) -> dict[str, SumPlace]:
        of_call = collections.Counter(place.key[0] for place in places)
        named: dict[str, SumPlace] = {}
        numbers: dict[int, int] = {}
        for place in places:
            index = place.key[0]
            numbers[index] = numbers.get(index, 0) + 1
            name = self._calls[index].name
            if of_call[index] > 1:
                name = f"{name}.{numbers[index]}"
            again, free = 1, name
            while free in named:  # One layer, called several times.
                again += 1
                free = f"{name}#{again}"
            named[free] = place
        return named

    def _check_known(self, residuals: Mapping[str, Any], known: set[str]) -> None:
        unknown = [name for name in residuals if name not in known]
        if unknown:
            few = sorted(known)[:12]
            raise ValueError(
                f"`residuals` must name sums of the model: {', '.join(few)}"
                f"{', …' if len(known) > 12 else ''}. Received: {', '.join(map(str, unknown))}."
            )

    def _chosen(self, name: str, index: int | None, chosen: Any, seen: Sequence[Key]) -> SumPlace:
        of = [] if index is None else self._of(self._calls[index])
        if index is None or len(of) != 2 or of.count(chosen) != 1 or (index, 0) not in seen:
            what = ", ".join(of) if of else "of its own, which `None` leaves out"
            raise ValueError(
                f"`residuals` must name one of the layers whose outputs {name} adds, two in "
                f"number: {what}. Received: residuals[{name!r}]={chosen!r}."
            )
        key = (index, 0)
        return SumPlace(
            key, ((key, of.index(chosen)),), is_difference=_is_difference(self._calls[index])
        )

    def _of(self, call: Call) -> list[str]:
        return ["the input" if one in self._inputs else one.name for one in call.inputs]

    def _counted(self) -> list[int]:
        counts = [0] * len(self._calls)
        for one in self.sums:
            counts[one.place.key[0]] += 1
        seen: set[int] = set()
        for index, call in enumerate(self._calls):
            for unit in residual_units(call.operation) if call.is_layer else ():
                counts[index] += id(unit) not in seen
                seen.add(id(unit))
        return counts


def is_sum(call: Call) -> bool:
    """Tell whether a call adds several tensors of one shape: a layer, `ops.add` or `+`."""
    shapes = {value.shape for value in call.inputs}
    return len(call.inputs) > 1 and len(shapes) == 1 and (_is_add(call) or _is_difference(call))


def _is_add(call: Call) -> bool:
    if call.is_layer:
        return type(call.operation) is keras.layers.Add
    # Operations of `keras.ops` have no public classes: `+` and `ops.add` are known by name.
    return type(call.operation).__name__ == "Add"


def _is_difference(call: Call) -> bool:
    if call.is_layer:
        return type(call.operation) is keras.layers.Subtract
    return type(call.operation).__name__ == "Subtract"
