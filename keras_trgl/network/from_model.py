"""A functional Keras model cut into stages, at places where a single tensor passes.

The model is copied call by call. On the way every sum of a shortcut and a residual becomes a
`ResidualAdd`, which can tell the energy of what it adds; all else stays as it is.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.layers.pad_shortcut import PadShortcut
from keras_trgl.layers.residual_add import ResidualAdd
from keras_trgl.layers.stage import Stage, residual_units
from keras_trgl.network.shows_network import ShowsNetwork
from keras_trgl.types import Tensor

_AFFINE_LAYERS = (
    PadShortcut,
    *(
        getattr(keras.layers, name)
        for name in (
            *("Activation", "Add", "BatchNormalization", "Concatenate", "Dense", "Dropout"),
            *("DepthwiseConv1D", "DepthwiseConv2D", "EinsumDense", "Flatten", "Identity"),
            *("Permute", "Rescaling", "Reshape", "SeparableConv1D", "SeparableConv2D"),
            *(f"Conv{n}D" for n in (1, 2, 3)),
            *(f"AveragePooling{n}D" for n in (1, 2, 3)),
            *(f"GlobalAveragePooling{n}D" for n in (1, 2, 3)),
            *(f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping") for n in (1, 2, 3)),
            *(f"SpatialDropout{n}D" for n in (1, 2, 3)),
        )
    ),
)
_MAX_POOLING_LAYERS = tuple(getattr(keras.layers, f"MaxPooling{n}D") for n in (1, 2, 3))
_AFFINE_OPERATIONS = {"Add", "Concatenate", "GetItem", "Pad", "Reshape", "Transpose"}
_ACTIVATION_LAYERS = tuple(
    getattr(keras.layers, name) for name in ("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU")
)
_ACTIVATION_OPERATIONS = {"Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Tanh"}
_NORMALIZATION_LAYERS = tuple(
    getattr(keras.layers, f"{name}Normalization") for name in ("Batch", "Layer", "Group", "Unit")
)


def split_functional(
    model: keras.Model, num_stages: int, residuals: Mapping[str, str | None] | None = None
) -> list[Stage]:
    """Give a copy of the model in stages that hold nearly equal numbers of residuals.

    A cut lies where a single tensor passes from input to output: after a sum, or after the
    activation that follows it. Numbers of residuals differ by one at most, larger first, as far
    as such places allow; what comes before the first sum belongs to the first stage, what
    follows the last one to the last. A model without residuals is cut into nearly equal numbers
    of layers with weights, normalisations not counted.

    In a sum of two tensors, one computed from the other, the latter is the shortcut. Else, if
    one way from where the two part is affine (convolution, batch normalization, average
    pooling, padding and the like) and the other is not, the affine one is the shortcut. A sum of
    tensors of different shapes is no residual's, and `ResidualAdd` layers mark themselves.

    Args:
        model: functional or built sequential `keras.Model`, one input, one output. Stays as it
            is; its weights are copied.
        num_stages: int ≥ 1. K.
        residuals: dict of a sum's name to the name of the layer whose output is its residual, or
            to `None` for a sum that has no residual. Goes before the rules. Defaults to `None`.

    Returns:
        List of K `Stage`, each of one functional model `part_k`.

    Raises:
        TypeError: `model` is no Keras model, `num_stages` no integer, `residuals` no dict.
        ValueError: the model is not functional, calls a layer twice, has too few places to cut
            or a sum whose residual is ambiguous; `residuals` names something it has not.
    """
    check_integer("num_stages", num_stages, 1)
    if residuals is not None and not isinstance(residuals, Mapping):
        raise TypeError(
            "`residuals` must be a dict of a sum's name to its residual layer's name. "
            f"Received: residuals={residuals!r}."
        )
    graph = _functional(model)
    copy = _Copy(residuals or {})
    source = graph.inputs[0]
    start = keras.Input(
        batch_shape=source.shape,
        dtype=source.dtype,
        sparse=source.sparse,
        name=graph.layers[0].name,
    )
    copy.begin(start)
    whole = keras.models.clone_model(graph, input_tensors=start, call_function=copy.call)
    copy.check()
    for layer in graph.layers:
        if layer.name in copy.layers:
            _copy_weights(layer, copy.layers[layer.name])
    end = whole.outputs[0]
    cuts = _cuts(copy.calls, end, num_stages)
    borders = [start, *(copy.calls[cut].outputs[0] for cut in cuts), end]
    return [
        Stage(
            [keras.Model(borders[k], borders[k + 1], name=f"part_{k + 1}")], name=f"stage_{k + 1}"
        )
        for k in range(num_stages)
    ]


def _functional(model: Any) -> keras.Model:
    """Give the model's graph as a plain functional model on the same layers.

    Raises:
        TypeError: no Keras model came.
        ValueError: the model has no graph, calculates otherwise than its graph says, or has
            several inputs or outputs.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a functional Keras model. Received: model={model!r}.")
    way_out = (
        "Write it as `keras.Model(inputs, outputs)`, or give `GreedyModel` a list of stages, "
        "each a layer or a list of layers."
    )
    if isinstance(model, ShowsNetwork):
        raise ValueError(
            "`model` must be a plain functional model. Received: "
            f"{model.name} of type {type(model).__name__}, which is cut into stages. To cut what "
            "it computes anew, give its last depth: `model.truncate(model.num_stages)`."
        )
    inputs, outputs = (getattr(model, name, None) for name in ("inputs", "outputs"))
    if not inputs or not outputs:
        raise ValueError(
            "`model` must be functional, or sequential with a `keras.Input`. Received: "
            f"{model.name} of type {type(model).__name__}, whose graph is not known. {way_out}"
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"`model` must have one input and one output. Received: {model.name} with "
            f"{len(inputs)} inputs and {len(outputs)} outputs. {way_out}"
        )
    graph = keras.Model(inputs[0], outputs[0])
    if type(model).call not in (type(graph).call, keras.Sequential.call):
        raise ValueError(
            f"`model` must compute what its graph says. Received: {model.name} of type "
            f"{type(model).__name__}, which overrides `call`. {way_out}"
        )
    return graph


@dataclasses.dataclass
class _Call:
    """A layer's call: what came, what left, and what it follows from, as bits of positions."""

    layer: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    ancestry: int


class _Copy:
    """The copy under way: Keras calls `call` for every layer, those before it being done."""

    def __init__(self, residuals: Mapping[str, str | None]) -> None:
        self.calls: list[_Call] = []
        self.layers: dict[str, Any] = {}
        self._residuals = residuals
        self._maker: dict[int, int] = {}
        self._sums: set[str] = set()
        self._ambiguous: dict[str, list[str]] = {}
        self._hidden: list[str] = []
        self._shared: list[str] = []

    def begin(self, start: Tensor) -> None:
        """Enter the input as position 0."""
        self._enter(None, [], [start])

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layer, or the `ResidualAdd` that replaces it, and keep the call."""
        inputs = [x for x in keras.tree.flatten((args, kwargs)) if keras.utils.is_keras_tensor(x)]
        called_before = layer.name in self.layers
        if called_before:
            layer = self.layers[layer.name]
            self._shared.append(layer.name)
        if isinstance(layer, keras.Model) and _holds_sum(layer):
            self._sums.add(layer.name)
            if self._residuals.get(layer.name, "") is not None:
                self._hidden.append(layer.name)
        place = None
        if not called_before and _is_sum(layer, inputs):
            place = self._residual_place(layer.name, inputs)
        if place is not None:
            policy = getattr(layer, "dtype_policy", None)
            # An operation has no policy: it adds in the type that came.
            dtype = inputs[0].dtype if policy is None else policy.name
            layer = ResidualAdd(name=layer.name, dtype=dtype)
            args, kwargs = ([inputs[1 - place], inputs[place]],), {}
        outputs = layer(*args, **kwargs)
        self._enter(layer, inputs, keras.tree.flatten(outputs))
        self.layers[layer.name] = layer
        return outputs

    def check(self) -> None:
        """Raise if the model is one that cannot be split.

        Raises:
            ValueError: a layer is called twice, a sum is ambiguous or inside a nested model, or
                `residuals` names no sum.
        """
        if self._shared:
            shared = ", ".join(sorted(set(self._shared)))
            raise ValueError(
                "Every layer must be called once, or two stages could train its weights. "
                f"Received: called more than once: {shared}. Give each call a layer "
                "of its own."
            )
        unknown = [name for name in self._residuals if name not in self._sums]
        if unknown:
            raise ValueError(
                f"`residuals` must name sums of the model: {', '.join(sorted(self._sums))}. "
                f"Received: {', '.join(map(str, unknown))}."
            )
        if self._hidden:
            raise ValueError(
                "Sums must stand in the model itself, not in a model nested in it. Received: "
                f"{', '.join(self._hidden)}. Give the nested model itself to `from_model`, or "
                "call `keras_trgl.layers.ResidualAdd` in it, or leave its sums out of the energy: "
                f"`residuals={dict.fromkeys(self._hidden)}`."
            )
        if self._ambiguous:
            came = ", ".join(f"{name} of ({', '.join(of)})" for name, of in self._ambiguous.items())
            pairs = {n: of[-1] if len(of) == 2 else None for n, of in self._ambiguous.items()}
            raise ValueError(
                "A sum must be of two tensors and show which one is the residual. Received: "
                f"{came}. In the model call `keras_trgl.layers.ResidualAdd` on "
                "[shortcut, residual] instead, or name the layers whose outputs are the "
                f"residuals, for instance `residuals={pairs}`, where `None` leaves a sum out of "
                "the energy."
            )

    def _enter(self, layer: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        # Bits of one integer: unions and differences of whole histories in one step each.
        ancestry = 1 << len(self.calls)
        for tensor in inputs:
            ancestry |= self.calls[self._maker[id(tensor)]].ancestry
        for tensor in outputs:
            self._maker[id(tensor)] = len(self.calls)
        self.calls.append(_Call(layer, inputs, outputs, ancestry))

    def _residual_place(self, name: str, inputs: list[Tensor]) -> int | None:
        """Give which of a sum's inputs is the residual; `None` if none is, or it is ambiguous."""
        makers = [self._maker[id(tensor)] for tensor in inputs]
        of = [self.calls[maker].layer.name if maker else "the input" for maker in makers]
        self._sums.add(name)
        if name in self._residuals:
            chosen = self._residuals[name]
            if chosen is None:
                return None
            if len(of) != 2 or of.count(chosen) != 1:
                raise ValueError(
                    f"`residuals` must name one of the layers whose outputs {name} adds, two in "
                    f"number: {', '.join(of)}. Received: residuals[{name!r}]={chosen!r}."
                )
            return of.index(chosen)
        place = self._second_of_skip(makers[0], makers[1]) if len(makers) == 2 else None
        is_skip = len(makers) == 2 or any(
            self._second_of_skip(one, other) is not None
            for index, one in enumerate(makers)
            for other in makers[index + 1 :]
        )
        if place is None and is_skip:
            self._ambiguous[name] = of
        return place

    def _second_of_skip(self, one: int, other: int) -> int | None:
        """Give 0 or 1, the place of the residual of two, if the graph tells.

        The affine rule fails for a residual without any nonlinearity beside a projection: such
        a sum is ambiguous.
        """
        ways = self.calls[one].ancestry, self.calls[other].ancestry
        own = ways[0] & ~ways[1], ways[1] & ~ways[0]
        if bool(own[0]) != bool(own[1]):
            return 0 if own[0] else 1
        affine = [self._is_affine(way) for way in own]
        if affine[0] == affine[1]:
            return None
        return affine.index(False)

    def _is_affine(self, way: int) -> bool:
        calls = [call for index, call in enumerate(self.calls) if way >> index & 1]
        return all(_is_affine(call.layer) for call in calls)


def _is_sum(layer: Any, inputs: Sequence[Tensor]) -> bool:
    """Say whether a call adds several tensors of one shape: a layer, `ops.add` or `+`."""
    shapes = {tuple(tensor.shape) for tensor in inputs}
    return len(inputs) > 1 and len(shapes) == 1 and _is_add(layer)


def _is_add(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Layer):
        return type(layer) is keras.layers.Add
    # Operations of `keras.ops` have no public classes: `+` and `ops.add` are known by name.
    return type(layer).__name__ == "Add"


def _holds_sum(model: keras.Model) -> bool:
    inner = getattr(model, "operations", model.layers)
    return any(_is_add(one) or (isinstance(one, keras.Model) and _holds_sum(one)) for one in inner)


def _is_affine(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Layer):
        return type(layer).__name__ in _AFFINE_OPERATIONS
    if isinstance(layer, _MAX_POOLING_LAYERS):
        return set(layer.pool_size) == {1}
    activation = getattr(layer, "activation", None)
    linear = activation is None or activation is keras.activations.linear
    return linear and isinstance(layer, (*_AFFINE_LAYERS, ResidualAdd))


def _is_activation(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Layer):
        return type(layer).__name__ in _ACTIVATION_OPERATIONS
    return isinstance(layer, _ACTIVATION_LAYERS)


def _copy_weights(source: Any, copy: Any) -> None:
    """Copy by layer, not by model: a sum whose inputs changed places changes the model's order."""
    copy.set_weights(source.get_weights())
    for layer in [copy, *getattr(copy, "layers", [])]:
        if isinstance(layer, keras.layers.Normalization):
            # Its mean and variance are not weights of the call; they come from the weights.
            layer.finalize_state()


def _cuts(calls: Sequence[_Call], end: Tensor, num_stages: int) -> list[int]:
    """Give the positions of the K - 1 calls after which the model is cut.

    Raises:
        ValueError: there are fewer places than that.
    """
    counts = [len(residual_units(call.layer)) if call.layer else 0 for call in calls]
    counted, passed_over = "residuals", _is_activation
    if not any(counts):
        counts = [int(_is_main_layer(call.layer)) for call in calls]
        counted, passed_over = "layers with weights", _follows_main_layer
    single = _single_tensor_places(calls, end)
    places: list[int] = []
    for position in (index for index, count in enumerate(counts) if count):
        place = next((index for index in single if index >= position), len(calls) - 1)
        while place + 1 in single and passed_over(calls[place + 1].layer):
            place += 1
        if place not in places:
            places.append(place)
    possible = max(len(places), 1)
    if num_stages > possible:
        raise ValueError(
            f"`num_stages` must be at most {possible} for this model: a stage needs one of its "
            f"{sum(counts)} {counted} and ends where a single tensor passes. "
            f"Received: num_stages={num_stages}."
        )
    before = [sum(counts[: place + 1]) for place in places[:-1]]
    sizes = [last - first for first, last in zip([0, *before], [*before, sum(counts)], strict=True)]
    groups = _nearly_equal(sizes, num_stages)
    return [places[sum(groups[: k + 1]) - 1] for k in range(num_stages - 1)]


def _single_tensor_places(calls: Sequence[_Call], end: Tensor) -> list[int]:
    """Give the positions after which one tensor is all that later calls need, the last included."""
    last_use = {id(tensor): index for index, call in enumerate(calls) for tensor in call.inputs}
    # The head reads the end after every call.
    last_use[id(end)] = len(calls)
    places: list[int] = []
    live: set[int] = set()
    for index, call in enumerate(calls):
        live = {key for key in live if last_use[key] > index}
        live |= {id(tensor) for tensor in call.outputs if last_use.get(id(tensor), -1) > index}
        if len(live) == 1 and live == {id(call.outputs[0])}:
            places.append(index)
    return places


def _is_main_layer(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Layer) or not layer.weights:
        return False
    return not isinstance(layer, (*_NORMALIZATION_LAYERS, *_ACTIVATION_LAYERS))


def _follows_main_layer(layer: Any) -> bool:
    return _is_activation(layer) or isinstance(layer, _NORMALIZATION_LAYERS)


def _nearly_equal(sizes: Sequence[int], num_stages: int) -> list[int]:
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
