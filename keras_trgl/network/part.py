"""`Part`: a stretch of the user's model as one block, over the user's own layers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_trgl.layers.chain import flat_shapes
from keras_trgl.layers.masks import hands_on
from keras_trgl.layers.residual_unit import ResidualUnit
from keras_trgl.layers.stage import residual_units
from keras_trgl.network.calls import Call, Flat, Value
from keras_trgl.network.sum_watch import Key, SumPlace, SumWatch
from keras_trgl.network.traced_sums import graph_here
from keras_trgl.types import Shape, Tensor


class SumUnit(ResidualUnit):
    """The energy of a residual that a part adds; called by nobody, told by the part."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    @property
    def is_recording(self) -> bool:
        """Whether the energy is asked for."""
        return self._recording

    def take(self, residual: Tensor, mean_square: Tensor | None) -> None:
        """Keep a residual, and its mean square where it is known."""
        self._keep(residual, mean_square)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return dict(super().get_config())


@dataclasses.dataclass(frozen=True)
class NamedSum:
    """A residual sum and what users call it.

    Attributes:
        name: str.
        place: where it is made.
    """

    name: str
    place: SumPlace


@dataclasses.dataclass(frozen=True)
class Distance:
    """A unit without a sum, whose residual is T(x) - x.

    Attributes:
        name: str.
        start: x.
        end: T(x), of the same shape.
        last: int. Position of the call that gives T(x).
    """

    name: str
    start: Value
    end: Value
    last: int


@dataclasses.dataclass(frozen=True)
class Stretch:
    """What a part is made of.

    Attributes:
        flat: its calls, with the tensors that come in and those that go on, the main one first.
        sums: list of `NamedSum`, in order.
        distances: list of `Distance`, in order.
        by_rule: set of keys of sums that the rule finds here, those left out by name too.
    """

    flat: Flat
    sums: Sequence[NamedSum] = ()
    distances: Sequence[Distance] = ()
    by_rule: frozenset[Key] = frozenset()

    @property
    def given(self) -> Any:
        """What comes in: a `Value`, or a structure of them."""
        return self.flat.structure

    def taken(self, inputs: Any) -> list[Tensor]:
        """Give the tensors that the calls use, of those that come in."""
        pairs = zip(keras.tree.flatten(self.given), keras.tree.flatten(inputs), strict=True)
        values = dict(pairs)
        return [values[one] for one in self.flat.inputs]

    def left(self, values: Mapping[Value, Tensor]) -> Any:
        """Give what goes on: a tensor, or a tuple of them."""
        outputs = self.flat.outputs
        return tuple(values[one] for one in outputs) if len(outputs) > 1 else values[outputs[0]]


class Part(keras.layers.Layer):
    """A stretch of a model between two cuts, which calls the model's own layers.

    Within `with unit.recording():` of its residual units their energies speak of the latest call.
    A sum inside a layer is found again by its order among the sums of the layer's call, and where
    a graph is traced the rule judges it anew.

    Args:
        stretch: what it is made of.
        name: str.
    """

    def __init__(self, stretch: Stretch, name: str) -> None:
        out = stretch.flat.outputs[0].dtype
        # What it gives; what comes in is cast by the model's own layers, not here.
        super().__init__(name=name, autocast=False, dtype=out if "float" in out else None)
        self.stretch = stretch
        called = {id(call.operation): call.operation for call in self.calls if call.is_layer}
        self.layers = list(called.values())
        named = [*(one.name for one in stretch.sums), *(one.name for one in stretch.distances)]
        self._own_units = [SumUnit(name=name) for name in named]
        self.supports_masking = True
        self.built = True

    @property
    def calls(self) -> list[Call]:
        """Calls of layers and operations, in order."""
        return self.stretch.flat.calls

    @property
    def units(self) -> int | None:
        """Number of a classifier's outputs, where its last layer tells."""
        units = getattr(self.calls[-1].operation, "units", None)
        return units if isinstance(units, int) else None

    @property
    def declared_input(self) -> Value:
        """What comes in, the first of several."""
        first: Value = keras.tree.flatten(self.given)[0]
        return first

    @property
    def given(self) -> Any:
        """What comes in: a `Value`, or a structure of them."""
        return self.stretch.given

    @property
    def passes_several(self) -> bool:
        """Whether several tensors come in, or go on."""
        return len(self.stretch.flat.outputs) > 1 or len(keras.tree.flatten(self.given)) > 1

    @property
    def expected_input_shape(self) -> Shape:
        """Shape of what comes in, without the batch axis; of several, of the first."""
        return tuple(self.declared_input.shape[1:])

    @property
    def residual_units(self) -> list[ResidualUnit]:
        """Units whose energy counts, in order: one per sum, and the layers that are units."""
        at: list[tuple[int, int, ResidualUnit]] = []
        own = iter(self._own_units)
        for place, sum_ in enumerate(self.stretch.sums):
            at.append((sum_.place.key[0], place, next(own)))
        at += [(one.last, place, next(own)) for place, one in enumerate(self.stretch.distances)]
        seen: set[int] = set()
        for index, call in enumerate(self.calls):
            for place, unit in enumerate(residual_units(call.operation) if call.is_layer else ()):
                if id(unit) not in seen:
                    seen.add(id(unit))
                    at.append((index, place, unit))
        return [unit for *_, unit in sorted(at, key=lambda one: one[:2])]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Run the model's layers from this cut to the next.

        Args:
            inputs: tensor, what crosses the cut before, or a structure of them.
            training: bool. Whether layers run in training mode. Defaults to the caller's.

        Returns:
            Tensor, what crosses the cut after, or a tuple of them.
        """
        flat, given = self.stretch.flat, self.stretch.taken(inputs)
        if not any(unit.is_recording for unit in self._own_units):
            return self.stretch.left(flat.run(given, training))
        units = self._own_units[: len(self.stretch.sums)]
        watch = SumWatch(
            flat,
            [(one.place, unit.take) for one, unit in zip(self.stretch.sums, units, strict=True)],
        )
        # Distances are told at the end, from values that the run would forget.
        values = flat.run(given, training, watch.around, keep=bool(self.stretch.distances))
        self._check(watch, given)
        for one, unit in zip(self.stretch.distances, self._own_units[len(units) :], strict=True):
            unit.take(keras.ops.subtract(values[one.end], values[one.start]), None)
        return self.stretch.left(values)

    def _check(self, watch: SumWatch, given: Sequence[Tensor]) -> None:
        """Raise unless the sums of this run are those of the table.

        Raises:
            RuntimeError: others were found, or fewer.
        """
        wrong = {one.place.key for one in self.stretch.sums} - watch.taken
        if not wrong and graph_here() is not None:
            found = {watch.made[one.op] for one in watch.judged(given).found}
            wrong = found ^ self.stretch.by_rule
        if wrong:
            names = ", ".join(sorted({self.calls[key[0]].name for key in wrong}))
            raise RuntimeError(
                f"The sums of {self.name} must be those of `cut_table()` at every trace. Received: "
                f"others in {names}, which compute otherwise than when the model was cut. Leave "
                "them out by name: `residuals={name: None}`."
            )

    compute_mask = hands_on

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Give the shape of what crosses the cut after, or a tuple of them."""
        outputs = self.stretch.flat.outputs
        declared, shapes = keras.tree.flatten(self.given), flat_shapes(input_shape)
        if all(one[1:] == of.shape[1:] for one, of in zip(shapes, declared, strict=True)):
            found = [tuple(one.shape) for one in outputs]
        else:
            pairs = zip(shapes, declared, strict=True)
            given = [keras.KerasTensor(shape, of.dtype) for shape, of in pairs]
            spec = keras.Operation.compute_output_spec(
                self, keras.tree.pack_sequence_as(self.given, given)
            )
            found = [tuple(one.shape) for one in keras.tree.flatten(spec)]
        return tuple(found) if len(found) > 1 else found[0]

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        """Give what crosses as symbolic tensors; of several each has a type of its own."""
        if self.passes_several:
            return keras.Operation.compute_output_spec(self, inputs, **kwargs)
        return super().compute_output_spec(inputs, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Refuse: a part is made of a model, which is what a file holds.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"{self.name} is a part of a model that `GreedyModel.from_model` cut. Save the whole "
            "`GreedyModel`, `truncate(k)` or `to_keras()`."
        )
