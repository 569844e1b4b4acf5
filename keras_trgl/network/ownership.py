"""Stages and heads as the user gave them: used as they are, or copied where they are recipes."""

import collections
import gc
import random
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_choice, check_integer, check_list
from keras_trgl.energy import REDUCTIONS
from keras_trgl.layers.copying import copy_layer
from keras_trgl.layers.inner import inner_layers
from keras_trgl.layers.stage import Stage
from keras_trgl.methods.method import LocalMethod
from keras_trgl.network.placement import Placement
from keras_trgl.types import Shape, StagePlace

_OWNERS: "weakref.WeakKeyDictionary[Any, weakref.ref[Any]]" = weakref.WeakKeyDictionary()
"""Of each block and head, the model that it was handed to."""


def pick_seed(seed: int | None) -> int:
    """Give the seed, or draw one from the state that `keras.utils.set_random_seed` sets."""
    if seed is None:
        return random.randrange(2**31)
    check_integer("seed", seed, 0)
    return int(seed)


FROM_PARTS = (
    "`GreedyModel.from_blocks(blocks, stage_sizes, head)` makes stages and heads of a list of "
    "blocks, `GreedyModel.from_model(model, cuts, head)` of a functional model."
)
"""The way out for what is no list."""


def head_recipes(head: Any, num_stages: int) -> list[Any]:
    """Give one head, or recipe of a head, per stage.

    Raises:
        ValueError: a single head that is built already cannot be copied.
        TypeError: it is no layer.
    """
    if isinstance(head, (list, tuple)):
        return list(head)
    if not isinstance(head, keras.layers.Layer):
        units = head if isinstance(head, int) and not isinstance(head, bool) and head > 0 else 10
        raise TypeError(
            "`head` must be a Keras layer, or a list of one per stage. Received: "
            f"head={head!r}. Give an object, for {units} classes `heads.LinearHead({units})`."
        )
    if isinstance(head, keras.layers.Layer) and head.built and num_stages > 1:
        raise ValueError(
            f"`head` is copied for every stage, so it must not be built. Received: {head.name}, "
            f"which has weights. Give an unbuilt one, or a list of {num_stages} heads."
        )
    return [head] * num_stages


def claim(model: Any, layers: Sequence[Any]) -> None:
    """Enter blocks and heads as this model's own, for as long as it lives.

    Args:
        model: the model that is made of them.
        layers: its blocks and heads.

    Raises:
        ValueError: one of them is part of another model that is alive.
    """
    if any(_owner(layer) not in (None, model) for layer in layers):
        # Models refer to themselves in circles: what is forgotten may still be there.
        gc.collect()
    for layer in layers:
        other = _owner(layer)
        if other not in (None, model):
            raise ValueError(
                "A block or head belongs to one model, or the second would go on from weights that "
                "the first has trained, as in a sweep over tau with one list of blocks. Received: "
                f"{layer.name}, which is part of {other.name}. Make blocks and heads again for "
                "every model: call the function that makes them once more."
            )
    for layer in layers:
        _OWNERS[layer] = weakref.ref(model)


def _owner(layer: Any) -> Any:
    owner = _OWNERS.get(layer)
    return None if owner is None else owner()


def recipe_of(layer: Any, is_built: bool) -> dict[str, Any]:
    """Give a stage's or head's configuration, from which the model builds it by its own seed.

    Keras would build what it makes from a configuration before there is a model, with weights
    that no seed tells of.

    Args:
        layer: stage or head.
        is_built: bool. Whether the model is built, so that one made of it will build its layers.
    """
    config = dict(keras.saving.serialize_keras_object(layer))
    if not is_built:
        return config
    usual = (keras.layers.Layer.build_from_config, keras.Model.build_from_config)
    # Those that build themselves in a way of their own are left to it.
    special = {
        type(one).__name__
        for one in [layer, *inner_layers(layer)]
        if type(one).build_from_config not in usual
    }
    return dict(_without_build(config, special))


def _without_build(config: Any, special: set[str]) -> Any:
    if isinstance(config, dict):
        kept = config.get("class_name") in special
        return {
            key: _without_build(one, special)
            for key, one in config.items()
            if key != "build_config" or kept
        }
    return [_without_build(one, special) for one in config] if isinstance(config, list) else config


class _Own:
    """Gives each place its layer: the very object, or a copy where it serves several places.

    Args:
        layers: all blocks and heads, one entry per place.

    Raises:
        TypeError: an entry is no Keras layer.
        ValueError: a layer with weights stands in two places.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        for layer in layers:
            if not isinstance(layer, keras.layers.Layer):
                is_input = isinstance(layer, keras.KerasTensor)
                way_out = (
                    "Leave `keras.Input` out, and call `model.build(shape)`."
                    if is_input
                    else "Call a class to make a layer of it."
                )
                raise TypeError(
                    f"Stages and heads must be made of Keras layers. Received: {layer!r}. {way_out}"
                )
            if isinstance(layer, keras.layers.InputLayer):
                raise TypeError(
                    "Stages and heads are layers that compute something. Received: "
                    f"{layer.name}, an `InputLayer`. Leave it out, and call `model.build(shape)`."
                )
        self._places = collections.Counter(map(id, layers))
        self._names = collections.Counter({layer.name for layer in layers})
        made = [one for one in layers if one.built and one.weights]
        twice = sorted({one.name for one in made if self._places[id(one)] > 1})
        if twice:
            raise ValueError(
                "A layer with weights can stand in one place only, or two stages would train it. "
                f"Received twice: {', '.join(twice)}. Give an unbuilt one, which is copied."
            )

    def layer(self, layer: Any, name: str | None = None) -> Any:
        """Give the layer of one place; a copy has this name, or the layer's and a number."""
        if self._places[id(layer)] == 1:
            return layer
        while name is None or self._names[name]:
            self._names[layer.name] += 1
            name = f"{layer.name}_{self._names[layer.name] - 1}"
        self._names[name] += 1
        return copy_layer(layer, name)


def check_names(layers: Sequence[Any]) -> None:
    """Raise unless every block and head has a name of its own.

    Raises:
        ValueError: two have the same.
    """
    names = collections.Counter(layer.name for layer in layers)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise ValueError(
            "Every block and head of a model needs a name of its own. Received twice: "
            f"{', '.join(twice)}. Give them other names (`name=`), or leave `name` out to have "
            "Keras number them."
        )


def check_apart(parts: Sequence[Any]) -> None:
    """Raise if two stages share weights, as by a layer that stands inside blocks of both.

    Args:
        parts: list of built `StagePart`.

    Raises:
        ValueError: they do; the message names the stages and the weight.
    """
    places: dict[int, int] = {}
    for depth, part in enumerate(parts, start=1):
        for weight in part.variables:
            if places.setdefault(id(weight), depth) != depth:
                raise ValueError(
                    "A weight belongs to one stage, or two would train it. Received: "
                    f"{weight.path} in stages {places[id(weight)]} and {depth}. Give each stage "
                    "a layer of its own."
                )


def own_parts(
    stages: Sequence[Any], heads: Sequence[Any], method: LocalMethod
) -> tuple[list[Stage], list[Any], Placement]:
    """Give the model's stages, with the method's regularisers, its heads, and where they live.

    A layer that serves one place is used as it is; one that serves several is copied for each. A
    method that does not cut the gradient gets all blocks as a single stage, and the last head.

    Raises:
        ValueError: there is no stage, their number is not that of the heads, a layer with weights
            stands in two places, one that does cannot be copied, or two have the same name.
        TypeError: something is no Keras layer.
    """
    for name, value in (("stages", stages), ("heads", heads)):
        check_list(name, value, "layers, one per stage", FROM_PARTS)
    if not stages or len(stages) != len(heads):
        raise ValueError(
            "Every stage needs a head: `stages` and `heads` must be as many, at least one. "
            f"Received: {len(stages)} stages, {len(heads)} heads. `GreedyModel.from_blocks` makes "
            "both from a list of blocks and one head."
        )
    groups = [_blocks(stage) for stage in stages]
    if not method.cuts_gradient:
        groups = [[block for group in groups for block in group]]
    places = [layer for group in groups for layer in group]
    own, placement = [], Placement(len(groups))
    heads = list(heads[-len(groups) :])
    makes = _Own([*places, *heads])
    own_heads: list[Any] = []
    for k, (group, head) in enumerate(zip(groups, heads, strict=True)):
        with placement.on(k):
            blocks = [makes.layer(block) for block in group]
            own_heads.append(makes.layer(head, f"head_{k + 1}"))
            for layer in [*blocks, own_heads[-1]]:
                placement.bring(layer, k)
            stage = Stage(blocks, name=f"stage_{k + 1}")
            stage.trainable = getattr(stages[k], "trainable", True)
            _add_energy(stage, method, k, len(groups))
        own.append(stage)
    check_names([*(block for stage in own for block in stage.blocks), *own_heads])
    return own, own_heads, placement


def _add_energy(stage: Stage, method: LocalMethod, k: int, num_stages: int) -> None:
    """Let a stage with residual blocks add, or record, the energy that its method wants.

    Raises:
        ValueError: the method records another reduction than its regulariser has.
    """
    if not stage.residual_units:
        return
    stage.regularizer = method.stage_regularizer(_early_place(k, num_stages))
    wanted = method.needs_energy
    if wanted is not None:
        check_choice("needs_energy", wanted, REDUCTIONS)
        stage.recorded_reduction = wanted
    if wanted not in (None, stage.energy_reduction):
        raise ValueError(
            f"`needs_energy` must be the reduction of the method's regulariser, "
            f"{stage.energy_reduction!r}. Received: needs_energy={wanted!r} of "
            f"{type(method).__name__}. Leave it out: the regulariser's energy is recorded anyway."
        )


def predicts(method: LocalMethod, k: int, num_stages: int) -> bool:
    """Say whether a stage, counted from 0, has a head.

    Raises:
        ValueError: the last one has none.
    """
    answer = not method.cuts_gradient or method.stage_predicts(_early_place(k, num_stages))
    if not answer and k + 1 == num_stages:
        raise ValueError(
            f"The last stage must predict. Received: `stage_predicts` of {type(method).__name__}, "
            f"which is False for stage {k + 1} of {num_stages}. Give True for it: "
            "`return stage.is_last`."
        )
    return bool(answer)


def _early_place(k: int, num_stages: int) -> StagePlace:
    """Give where a stage stands before shapes are known."""
    return StagePlace(k + 1, num_stages, (), (), (), None, ())


def method_head(method: LocalMethod, place: StagePlace, given: Any) -> Any:
    """Give the head that a method wants in place of the given one, or that one.

    Args:
        method: the method.
        place: where the stage stands.
        given: the head that the user gave.

    Raises:
        TypeError: the method gives no Keras layer.
    """
    head = method.stage_head(place, given)
    _check_layer(head, f"`stage_head` of {type(method).__name__}, stage {place.depth}")
    return head


def method_layers(method: LocalMethod, place: StagePlace) -> dict[str, tuple[Any, Shape]]:
    """Give the layers that a method has for a stage, each with the shape that it is built for.

    Args:
        method: the method.
        place: where the stage stands.

    Raises:
        TypeError: the method gives something else than a dict of layers.
    """
    wanted, who = method.stage_layers(place), f"`stage_layers` of {type(method).__name__}"
    if not isinstance(wanted, Mapping):
        raise TypeError(
            f"{who} must give a dict of name to layer. Received, for stage {place.depth}: "
            f"{wanted!r}. Give `{{}}` for none."
        )
    layers: dict[str, tuple[Any, Shape]] = {}
    for name, entry in wanted.items():
        layer, shape = entry if isinstance(entry, tuple) else (entry, place.feature_shape)
        _check_layer(layer, f"{who}, stage {place.depth}, {name!r}")
        layers[name] = (layer, tuple(shape))
    return layers


def _check_layer(layer: Any, who: str) -> None:
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"{who}: must be made of Keras layers. Received: {layer!r}. Call a class to make a "
            "layer of it."
        )


def bring_home(stages: Sequence[Any], heads: Sequence[Any], method: LocalMethod) -> None:
    """Move layers that a model is made of anew, and are built, to where their stage lives."""
    placement = Placement(len(stages) if method.cuts_gradient else 1)
    for k, (stage, head) in enumerate(zip(stages, heads, strict=True)):
        if method.cuts_gradient:
            placement.move(k, [*stage.variables, *head.variables])


def _blocks(stage: Any) -> list[Any]:
    if isinstance(stage, Stage):
        return list(stage.blocks)
    return list(stage) if isinstance(stage, (list, tuple)) else [stage]
