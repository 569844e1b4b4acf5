"""A user's model as a graph of layers: read, run on symbolic tensors, or copied."""

import random
from typing import Any

import keras

from keras_trgl.layers.inner import inner_layers
from keras_trgl.network.calls import Flat, flat_calls, is_plain
from keras_trgl.network.door import input_type
from keras_trgl.network.shows_network import ShowsNetwork

FAILS = (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, LookupError)
"""What a model that cannot run on symbolic tensors, or be copied, raises."""

WAY_OUT = (
    "Write it as `keras.Model(inputs, outputs)`, or give `GreedyModel` a list of stages, each a "
    "layer or a list of layers."
)


def flat_model(model: Any) -> Flat:
    """Give a model's calls, in the order in which they run.

    A model with a graph is read; another, or one with a `call` of its own, is run on symbolic
    tensors, and must compute the same whatever its arguments but the data are.

    Args:
        model: built `keras.Model`.

    Raises:
        TypeError: no Keras model came.
        ValueError: it has no graph and cannot be run on symbolic tensors, or uses weights that no
            layer holds.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a functional Keras model. Received: model={model!r}.")
    if isinstance(model, ShowsNetwork):
        raise ValueError(
            "`model` must be a plain functional model. Received: "
            f"{model.name} of type {type(model).__name__}, which is cut into stages. To cut what "
            "it computes anew, give its last depth: `model.truncate(model.num_stages)`."
        )
    if is_plain(model):
        graph = keras.Model(model.inputs, model.outputs) if _is_sequential(model) else model
        return flat_calls(graph)
    flat = flat_calls(_run_symbolically(model))
    _name_operations(flat)
    _check_reached(model, flat)
    return flat


def _is_sequential(model: Any) -> bool:
    return isinstance(model, keras.Sequential)


def _run_symbolically(model: Any) -> keras.Model:
    """Give the graph of a model's `call`.

    Raises:
        ValueError: its inputs are not known, its policy is mixed, or `call` needs real tensors.
    """
    who = f"{model.name} of type {type(model).__name__}"
    if _is_sequential(model):
        raise ValueError(
            "`model` must be functional, or sequential with a `keras.Input`. Received: "
            f"{who}, whose graph is not known. Begin it with `keras.Input(shape)`."
        )
    policy = model.dtype_policy
    if policy.compute_dtype != policy.variable_dtype:
        raise ValueError(
            "A model with a `call` of its own must compute in the type of its weights, or the "
            f"casts that Keras makes around the call are lost. Received: {who}, of {policy.name}. "
            "Set the policy of its layers instead: `Dense(…, dtype='mixed_float16')`."
        )
    try:
        inputs = _symbolic_inputs(model)
        return keras.Model(inputs, model.call(inputs))
    except FAILS as error:
        shown = " ".join(str(error).split())[:160]
        raise ValueError(
            f"`model` must be functional, or its `call` must run on symbolic tensors. Received: "
            f"{who}, whose graph is not known: {type(error).__name__}: {shown} {WAY_OUT}"
        ) from error


def _symbolic_inputs(model: Any) -> Any:
    if getattr(model, "inputs", None):
        return keras.tree.map_structure(
            lambda one: keras.Input(batch_shape=one.shape, dtype=one.dtype, name=one.name),
            model.input,
        )
    config = (model.get_build_config() or {}) if model.built else {}
    shape = config.get("input_shape")
    if shape is None:
        raise ValueError("It is not built: call it on data first.")
    dtype = input_type([model]) or keras.config.floatx()

    def made(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: keras.Input(tuple(s[1:]), dtype=dtype, name=key) for key, s in one.items()}
        if one and isinstance(one[0], (list, tuple)):
            return type(one)(keras.Input(tuple(s[1:]), dtype=dtype) for s in one)
        return keras.Input(tuple(one[1:]), dtype=dtype)

    return made(shape)


def _name_operations(flat: Flat) -> None:
    """Name operations by their order: the names that Keras gives depend on what was made before."""
    counts: dict[str, int] = {}
    for call in flat.calls:
        if not call.is_layer:
            kind = type(call.operation).__name__.lower()
            counts[kind] = counts.get(kind, 0) + 1
            call.name = f"{kind}_{counts[kind]}"
            for value in call.outputs:
                value.name = call.name


def _check_reached(model: Any, flat: Flat) -> None:
    reached = {id(weight) for call in flat.calls for weight in call.weights}
    lost = [weight.path for weight in model.weights if id(weight) not in reached]
    if lost:
        raise ValueError(
            "Every weight of a model with a `call` of its own must belong to a layer that it "
            f"calls. Received: {model.name}, where no layer reaches {', '.join(lost[:3])}. Put "
            "it into a layer, and call that."
        )


def copied(model: Any) -> Any:
    """Give a copy of a model with the same weights.

    Args:
        model: built `keras.Model`.

    Raises:
        ValueError: a layer cannot be made anew from its configuration.
    """
    before = random.getstate()
    try:
        if is_plain(model):
            made: Any = keras.models.clone_model(model, clone_function=_again, recursive=True)
        else:
            made = type(model).from_config(model.get_config())
            made.build_from_config(model.get_build_config())
        made.set_weights(model.get_weights())
    except FAILS as error:
        shown = " ".join(str(error).split())[:160]
        raise ValueError(
            "`share=False` makes every layer anew from its configuration. Received: "
            f"{model.name}, where that fails: {type(error).__name__}: {shown} Train it in place: "
            "`share=True`."
        ) from error
    finally:
        random.setstate(before)
    for layer in inner_layers(made):
        if isinstance(layer, keras.layers.Normalization):
            # Its mean and variance are not weights of the call; they come from the weights.
            layer.finalize_state()
    return made


def _again(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())
