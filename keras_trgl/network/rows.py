"""Graphs of layers that do nothing but call others, as an encoder of many blocks does.

Such a layer would be one unit, however many residual blocks it holds. Written out, each is one.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_trgl.layers.masks import mask_of

FAILS = (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, LookupError)
"""What a `call` that needs real tensors raises."""


def row_of_layers(
    layer: Any, args: Any, kwargs: dict[str, Any], read: Callable[[keras.Model], Any]
) -> keras.Model | None:
    """Give the graph of what a layer calls, or `None` where it must stay one call.

    It is run on symbolic tensors. It stays whole where it adds, reshapes or uses a weight itself,
    where its `call` asks whether it trains, where it would cast, or where masks come in.

    Args:
        layer: Keras layer or operation, built.
        args: what a model calls it on, with symbolic tensors.
        kwargs: likewise, by name.
        read: function of a functional model that gives its calls, as `graph_calls`.

    Returns:
        Functional model of the tensors in `args`, in order, or `None`.
    """
    given = keras.tree.flatten(args)
    if not _may_be(layer, given, kwargs):
        return None
    try:
        graphs = [_graph(layer, args, {**kwargs, **way}) for way in _ways(layer)]
    except FAILS:
        return None
    told = [_told(graph, read(graph)) for graph in graphs]
    called = [one for one, _ in told[0][:-1]]
    reached = {id(weight) for one in called for weight in getattr(one, "weights", ())}
    fits = (
        all(one == told[0] for one in told)
        and all(isinstance(one, keras.layers.Layer) for one in called)
        and sum(not _is_kerass(one) for one in called) > 1
        and all(id(weight) in reached for weight in layer.weights)
    )
    return graphs[0] if fits else None


def _may_be(layer: Any, given: list[Any], kwargs: dict[str, Any]) -> bool:
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
        return False
    if _is_kerass(layer) or type(layer).__module__.startswith("keras_trgl."):
        return False
    if any(one is not None for name, one in kwargs.items() if name != "training"):
        return False
    policy = layer.dtype_policy
    return (
        policy.compute_dtype == policy.variable_dtype
        and layer.activity_regularizer is None
        and bool(given)
        and all(
            keras.utils.is_keras_tensor(one)
            and keras.backend.standardize_dtype(one.dtype) == policy.compute_dtype
            and mask_of(one) is None
            for one in given
        )
    )


def _is_kerass(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.")


def _ways(layer: Any) -> list[dict[str, Any]]:
    """Give the named arguments to try: first as the caller has it, then in and out of training."""
    if "training" not in inspect.signature(layer.call).parameters:
        return [{}]
    return [{"training": on} for on in (None, True, False)]


def _graph(layer: Any, args: Any, kwargs: dict[str, Any]) -> keras.Model:
    inputs: list[Any] = []

    def fresh(one: Any) -> Any:
        inputs.append(keras.Input(batch_shape=one.shape, dtype=one.dtype))
        return inputs[-1]

    args = keras.tree.map_structure(fresh, args)
    return keras.Model(inputs, layer.call(*args, **kwargs))


def _told(graph: keras.Model, calls: Any) -> list[tuple[Any, Any]]:
    """Give what a graph calls, in order, and on what, apart from whether it trains; its outputs."""
    places = {id(one): (-1, place) for place, one in enumerate(graph.inputs)}
    told: list[tuple[Any, Any]] = []
    for index, (operation, args, kwargs, outputs) in enumerate(calls):
        named = {name: one for name, one in kwargs.items() if name != "training"}
        flat = keras.tree.flatten((args, named))
        told.append((operation, tuple(places.get(id(one), one) for one in flat)))
        places.update({id(one): (index, place) for place, one in enumerate(outputs)})
    told.append((None, tuple(places[id(one)] for one in graph.outputs)))
    return told
