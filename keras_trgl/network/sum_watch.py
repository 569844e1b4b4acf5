"""Sums seen while layers are called: found in a trace, and given an energy in training."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.layers.kernels import add_with_energy
from keras_trgl.layers.stage import residual_units
from keras_trgl.layers.sum_funnel import watched
from keras_trgl.network.calls import Flat, Value
from keras_trgl.network.traced_sums import TracedSums, graph_here, hides_sums, is_candidate
from keras_trgl.types import Tensor

Key = tuple[int, int]
"""A sum: position of the call, and how many sums were made in that call before it."""


@dataclasses.dataclass(frozen=True)
class SumPlace:
    """Where a residual is added.

    Attributes:
        key: the sum.
        terms: what makes up the residual: one term of the sum, 0 or 1; of a chain x + f + g, the
            terms of several sums, each with its sum.
        forgotten: whether what follows keeps neither the sum nor, so, the means to find the
            residual again.
        is_difference: whether it is x - r(x).
    """

    key: Key
    terms: tuple[tuple[Key, int], ...]
    forgotten: bool = False
    is_difference: bool = False

    def moved(self, by: int) -> "SumPlace":
        """Give the same place in a list of calls that begins earlier or later."""
        terms = tuple(((call + by, count), place) for (call, count), place in self.terms)
        return dataclasses.replace(self, key=(self.key[0] + by, self.key[1]), terms=terms)


class SumWatch:
    """Knows the sums of a run by call and order.

    Args:
        flat: what runs.
        places: the sums whose energies are to be found, with what takes each: a function of the
            residual and of its mean square, or `None` where that is not known yet.

    Attributes:
        made: dict of the graph's operations that are sums to their keys; empty where calls run
            at once.
    """

    def __init__(
        self, flat: Flat, places: Sequence[tuple[SumPlace, Callable[[Tensor, Any], None]]] = ()
    ) -> None:
        self._flat = flat
        self._places = {place.key: (place, take) for place, take in places}
        self._wanted = {term for place, _ in places for term in place.terms}
        self._terms: dict[tuple[Key, int], Tensor] = {}
        self._key: Key = (0, 0)
        self._graph = graph_here()
        self._start = self._length()
        self.made: dict[Any, Key] = {}
        self.taken: set[Key] = set()
        self.ranges: dict[int, tuple[int, int]] = {}

    @contextlib.contextmanager
    def around(self, index: int) -> Iterator[None]:
        """Watch the sums of one call; units tell their energies themselves.

        Args:
            index: int. Position of the call.
        """
        self._key = (index, 0)
        operation = self._flat.calls[index].operation
        start = self._length()
        with watched(None if residual_units(operation) else self._on_sum):
            yield
        if not type(operation).__module__.startswith("keras."):
            self.ranges[index] = (start, self._length())

    def _length(self) -> int:
        return 0 if self._graph is None else len(self._graph.get_operations())

    def judged(self, given: Sequence[Tensor]) -> TracedSums:
        """Give the rule's verdict on the sums seen in the graph.

        Args:
            given: list of tensors, the data.
        """
        return TracedSums(self._graph, self._start, given, self.made)

    def _on_sum(self, kind: str, make: Callable[[], Tensor], one: Any, other: Any) -> Tensor:
        # What a traced function inside a layer adds is another graph's.
        if not is_candidate(one, other) or graph_here() is not self._graph:
            return make()
        key = self._key
        self._key = (key[0], key[1] + 1)
        for place, term in enumerate((one, other)):
            if (key, place) in self._wanted:
                self._terms[key, place] = term
        with watched(None):
            made = self._with_energy(key, make, one, other) if key in self._places else make()
        if self._graph is not None:
            op = made.op
            self.made[op.inputs[0].op if op.type == "IdentityN" else op] = key
        return made

    def _with_energy(self, key: Key, make: Callable[[], Tensor], one: Any, other: Any) -> Tensor:
        place, take = self._places[key]
        self.taken.add(key)
        if len(place.terms) > 1:
            terms = [self._terms[term] for term in place.terms]
            take(tf.add_n(terms), None)
            return make()
        residual, shortcut = (other, one) if place.terms[0][1] else (one, other)
        if place.forgotten or place.is_difference:
            # Nobody else keeps the sum, so the gradient could not find the residual again.
            take(residual, None)
            return make()
        merged, mean_square = add_with_energy(shortcut, residual)
        take(residual, mean_square)
        return merged


@dataclasses.dataclass(frozen=True)
class FoundSums:
    """What a trace shows of a model's sums.

    Attributes:
        places: residual sums, in order.
        ambiguous: sums of two ways of one kind.
        seen: all sums of two tensors of one rank.
        unseen: names of users' layers that add inside `tf.function`, `cond` or a loop.
    """

    places: list[SumPlace]
    ambiguous: list[Key]
    seen: list[Key]
    unseen: list[str]


def find_sums(flat: Flat, main: Value) -> "FoundSums":
    """Trace a model once in training mode, and find its residual sums.

    Args:
        flat: the model's calls.
        main: the output that counts.

    Returns:
        `FoundSums`.
    """
    found: list[FoundSums] = []

    def trace(*tensors: Any) -> Any:
        tensors = tuple(map(tf.identity, tensors))
        watch = SumWatch(flat)
        values = flat.run(tensors, True, watch.around)
        sums, key = watch.judged(tensors), watch.made
        places = [
            SumPlace(
                key[one.op],
                tuple((key[op], place) for op, place in one.terms),
                one.forgotten,
                one.op.type == "Sub",
            )
            for one in sums.found
        ]
        ambiguous = [key[op] for op in sums.ambiguous]
        hidden = [
            flat.calls[index].name
            for index, (start, stop) in watch.ranges.items()
            if hides_sums(graph_here(), start, stop)
        ]
        found.append(FoundSums(places, ambiguous, list(key.values()), hidden))
        return values[main]

    specs = [
        tf.TensorSpec(value.shape, "string" if value.dtype == "string" else value.dtype)
        for value in flat.inputs
    ]
    tf.function(trace, autograph=False).get_concrete_function(*specs)
    return found[-1]
