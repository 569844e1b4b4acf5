"""A Keras model as a flat list of its layers' calls, nested models written out.

The layers are the model's own. A list of calls runs on tensors by itself, so nothing is added to
the model, and it reads the calls of this one model, whatever else its layers are part of.
"""

import collections
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_trgl.layers.masks import mask_of, with_mask
from keras_trgl.network.rows import row_of_layers
from keras_trgl.types import Shape, Tensor


@dataclasses.dataclass(eq=False)
class Value:
    """A tensor of the model: what a call gives, or what comes in.

    Attributes:
        shape: its shape, batch axis included.
        dtype: str.
        name: str. The layer that gives it, or the input.
    """

    shape: Shape
    dtype: str
    name: str


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer, or of an operation such as `+`.

    Attributes:
        operation: the layer or operation, the model's own.
        args: positional arguments, with `Value`s for tensors.
        kwargs: named arguments, likewise.
        outputs: list of `Value`, flat.
        path: names of the nested models that it stands in, then the operation's.
        name: str. The operation's name, or its path where another has that name.
    """

    operation: Any
    args: Any
    kwargs: dict[str, Any]
    outputs: list[Value]
    path: tuple[str, ...]
    name: str = ""

    def __post_init__(self) -> None:
        self.takes_training = "training" in inspect.signature(self.operation.call).parameters

    @property
    def is_layer(self) -> bool:
        """Whether a layer is called, and not an operation."""
        return isinstance(self.operation, keras.layers.Layer)

    @property
    def weights(self) -> list[Any]:
        """The layer's weights; an operation has none."""
        return list(self.operation.weights) if self.is_layer else []

    @property
    def inputs(self) -> list[Value]:
        """The tensors that come in, in order."""
        flat = keras.tree.flatten((self.args, self.kwargs))
        return [one for one in flat if isinstance(one, Value)]

    def run(self, values: dict[Value, Tensor], training: bool | None) -> None:
        """Call the operation on tensors, and enter what it gives.

        Args:
            values: dict of `Value` to tensor.
            training: bool, or `None` for the caller's. Goes before what the model says, as in
                Keras's own functional models.
        """
        args, kwargs = self.filled(values)
        if self.takes_training and training is not None:
            kwargs = {**kwargs, "training": training}
        values.update(self.entered(self.operation(*args, **kwargs)))

    def filled(self, values: dict[Value, Tensor]) -> Any:
        """Give the arguments and the named ones, with tensors in the places of values."""
        return keras.tree.map_structure(
            lambda one: values[one] if isinstance(one, Value) else one, (self.args, self.kwargs)
        )

    def entered(self, outputs: Any) -> dict[Value, Tensor]:
        """Give what the operation gave, by value."""
        return dict(zip(self.outputs, keras.tree.flatten(outputs), strict=True))


@dataclasses.dataclass
class Flat:
    """A model's calls in the order in which they run.

    Attributes:
        inputs: list of `Value`, flat.
        outputs: list of `Value`, flat.
        calls: list of `Call`.
        structure: what the model is called on, `Value`s for tensors; `None` of a stretch of calls.
    """

    inputs: list[Value]
    outputs: list[Value]
    calls: list[Call]
    structure: Any = None

    def run(
        self,
        tensors: Sequence[Tensor],
        training: bool | None,
        around: Callable[[int], Any] | None = None,
        keep: bool = False,
    ) -> dict[Value, Tensor]:
        """Run all calls on tensors.

        Args:
            tensors: list of tensors, one per input; cast to the types that the model declares.
            training: bool, or `None` for the caller's.
            around: function of a call's position that gives a context for it, or `None`. Defaults
                to `None`.
            keep: bool. Whether all values are given, not the outputs alone. Defaults to `False`.

        Returns:
            Dict of `Value` to tensor.
        """
        values = {
            value: _as_declared(tensor, value)
            for value, tensor in zip(self.inputs, tensors, strict=True)
        }
        drops = {} if keep else self._last_uses()
        for index, call in enumerate(self.calls):
            if around is None:
                call.run(values, training)
            else:
                with around(index):
                    call.run(values, training)
            for value in drops.get(index, ()):
                del values[value]
        return values

    def _last_uses(self) -> dict[int, list[Value]]:
        last: dict[Value, int] = {}
        for index, call in enumerate(self.calls):
            last.update(dict.fromkeys([*call.inputs, *call.outputs], index))
        drops: dict[int, list[Value]] = collections.defaultdict(list)
        for value, index in last.items():
            if value not in self.outputs:
                drops[index].append(value)
        return drops


def _as_declared(tensor: Any, value: Value) -> Tensor:
    if not hasattr(tensor, "dtype") or keras.utils.is_keras_tensor(tensor):
        return tensor
    if keras.backend.standardize_dtype(tensor.dtype) == value.dtype:
        return tensor
    return with_mask(keras.ops.convert_to_tensor(tensor, value.dtype), mask_of(tensor))


def flat_calls(graph: keras.Model) -> Flat:
    """Give the calls of a functional model, models nested in it written out.

    Args:
        graph: functional model, of the class that `keras.Model(inputs, outputs)` gives or of one
            that adds nothing to its call.
    """
    calls: list[Call] = []
    inputs = [
        Value(tuple(one.shape), keras.backend.standardize_dtype(one.dtype), one.name)
        for one in graph.inputs
    ]
    outputs = _write_out(graph, inputs, calls, ())
    _name(calls)
    for call in calls:
        for value in call.outputs:
            value.name = call.name
    return Flat(inputs, outputs, calls, keras.tree.pack_sequence_as(graph.input, inputs))


def is_plain(model: Any) -> bool:
    """Tell whether a model computes what its graph says, and nothing else."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        return False
    plain = type(keras.Model(model.inputs, model.outputs))
    return type(model).call in (plain.call, keras.Sequential.call)


def graph_calls(model: keras.Model) -> Iterator[tuple[Any, Any, dict[str, Any], list[Any]]]:
    """Give operation, arguments, named arguments and outputs of a functional model's calls.

    Keras keeps them under private names (3.15), which stand in this function alone.

    Args:
        model: functional model.

    Yields:
        Calls in the order in which Keras runs them, its own symbolic tensors among the arguments.

    Raises:
        RuntimeError: this Keras keeps them elsewhere.
    """
    by_depth = getattr(model, "_nodes_by_depth", None)
    if not isinstance(by_depth, dict):
        raise RuntimeError(
            "`from_model` reads functional models as Keras 3.15 keeps them. Received: Keras "
            f"{keras.__version__}, which keeps them elsewhere. Use Keras 3.15."
        )
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if not node.is_input:
                yield node.operation, node.arguments.args, node.arguments.kwargs, node.outputs


def _write_out(
    model: keras.Model, inputs: list[Value], calls: list[Call], path: tuple[str, ...]
) -> list[Value]:
    """Add a model's calls on these values to the list, and give its outputs."""
    graph: Any = model
    if isinstance(model, keras.Sequential):
        graph = keras.Model(model.inputs, model.outputs)
    known: dict[int, Value] = {
        id(tensor): value for tensor, value in zip(graph.inputs, inputs, strict=True)
    }

    def value_of(one: Any) -> Any:
        return known[id(one)] if keras.utils.is_keras_tensor(one) else one

    for operation, args, kwargs, outputs in graph_calls(graph):
        row = row_of_layers(operation, args, kwargs, graph_calls)
        args, kwargs = keras.tree.map_structure(value_of, (args, kwargs))
        here = (*path, operation.name)
        given = _nested_inputs(operation, args, kwargs)
        if row is not None:
            made = _write_out(row, keras.tree.flatten(args), calls, here)
        elif given is not None:
            made = _write_out(operation, _cast(operation, given, calls, here), calls, here)
        else:
            made = [
                Value(tuple(one.shape), keras.backend.standardize_dtype(one.dtype), "")
                for one in outputs
            ]
            calls.append(Call(operation, args, dict(kwargs), made, here))
        known.update(zip(map(id, outputs), made, strict=True))
    return [known[id(one)] for one in graph.outputs]


def _nested_inputs(operation: Any, args: Any, kwargs: dict[str, Any]) -> list[Value] | None:
    """Give what a nested model is called on, or `None` where it stays one call."""
    named = [one for key, one in kwargs.items() if key != "training" and one is not None]
    if not is_plain(operation) or named or len(args) != 1:
        return None
    given = keras.tree.flatten(args[0])
    declared = operation.inputs
    fits = len(given) == len(declared) and all(
        isinstance(value, Value)
        and len(value.shape) == len(tensor.shape)
        and _casts(value.dtype, tensor.dtype)
        for value, tensor in zip(given, declared, strict=False)
    )
    return given if fits else None


def _casts(dtype: str, other: str) -> bool:
    return dtype == other or (_is_float(dtype) and _is_float(other))


def _is_float(dtype: Any) -> bool:
    return "float" in str(keras.backend.standardize_dtype(dtype))


def _cast(model: Any, given: list[Value], calls: list[Call], path: tuple[str, ...]) -> list[Value]:
    """Cast to the types that a nested model declares, as its own call does."""
    values = []
    for value, tensor in zip(given, model.inputs, strict=True):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if value.dtype != dtype:
            layer = keras.layers.Identity(dtype=dtype, name=f"{model.name}_cast")
            made = Value(value.shape, dtype, "")
            calls.append(Call(layer, (value,), {}, [made], (*path, layer.name)))
            value = made
        values.append(value)
    return values


def _name(calls: Sequence[Call]) -> None:
    """Give every call its operation's name, or a longer one where two operations share it."""
    owners: dict[str, set[int]] = collections.defaultdict(set)
    for call in calls:
        owners[call.path[-1]].add(id(call.operation))
    for call in calls:
        alone = len(owners[call.path[-1]]) == 1
        call.name = call.path[-1] if alone else ".".join(call.path)
