"""Stages and heads as the user gave them, made into the model's own."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.energy import REDUCTIONS
from keras_trgl.layers.stage import Stage
from keras_trgl.methods.method import LocalMethod
from keras_trgl.network.placement import Placement
from keras_trgl.seeds import BLOCK, HEAD, METHOD_LAYER, fill_seeds
from keras_trgl.types import StagePlace


def pick_seed(seed: int | None) -> int:
    """Give the seed, or draw one from the state that `keras.utils.set_random_seed` sets."""
    if seed is None:
        return random.randrange(2**31)
    check_integer("seed", seed, 0)
    return int(seed)


def head_recipes(head: Any, num_stages: int) -> list[Any]:
    """Give one head, or recipe of a head, per stage.

    Raises:
        ValueError: a single head that is built already cannot be copied.
    """
    if isinstance(head, (list, tuple)):
        return list(head)
    if isinstance(head, keras.layers.Layer) and head.built and num_stages > 1:
        raise ValueError(
            f"`head` is copied for every stage, so it must not be built. Received: {head.name}, "
            f"which has weights. Give an unbuilt one, or a list of {num_stages} heads."
        )
    return [head] * num_stages


def own_layer(layer: Any, name: str, seed: int, *position: int) -> Any:
    """Give the layer if it is built, else a copy with a name and seeds of its own.

    Raises:
        TypeError: `layer` is no Keras layer.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"Stages and heads must be made of Keras layers. Received: {layer!r} for {name}. "
            "Call a class to make a layer of it."
        )
    if layer.built:
        return layer
    config = fill_seeds(layer.get_config(), seed, *position)
    return type(layer).from_config({**config, "name": name})


def own_stages(
    stages: Sequence[Any], heads: Sequence[Any], method: LocalMethod, seed: int
) -> tuple[list[Stage], Placement]:
    """Give the model's stages, with the method's regularisers, and where they live.

    A method that does not cut the gradient gets all blocks as a single stage. Layers are made
    where their stage lives: some have variables from the start.

    Raises:
        ValueError: there is no stage, their number is not that of the heads, or a built layer
            stands in two places.
    """
    if not stages or len(stages) != len(heads):
        raise ValueError(
            "Every stage needs a head: `stages` and `heads` must be as many, at least one. "
            f"Received: {len(stages)} stages, {len(heads)} heads. `GreedyModel.from_blocks` makes "
            "both from a list of blocks and one head."
        )
    groups = [_blocks(stage) for stage in stages]
    if not method.cuts_gradient:
        groups = [[block for group in groups for block in group]]
    _check_own([layer for group in groups for layer in group] + list(heads))
    own, index, placement = [], 0, Placement(len(groups))
    for k, group in enumerate(groups):
        copies = []
        with placement.on(k):
            for block in group:
                copies.append(own_layer(block, f"block_{index + 1}", seed, BLOCK, index))
                placement.check_home(copies[-1], k)
                index += 1
            stage = Stage(copies, name=f"stage_{k + 1}")
            stage.trainable = getattr(stages[k], "trainable", True)
            _add_energy(stage, method, k, len(groups))
        own.append(stage)
    return own, placement


def _add_energy(stage: Stage, method: LocalMethod, k: int, num_stages: int) -> None:
    """Let a stage with residual blocks add, or record, the energy that its method wants.

    Raises:
        ValueError: the method records another reduction than its regulariser has.
    """
    if not stage.residual_units:
        return
    # Shapes are not known yet, and no energy needs them.
    place = StagePlace(k + 1, num_stages, (), (), (), None, ())
    stage.regularizer = method.stage_regularizer(place)
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


def own_wrapper(method: LocalMethod, place: StagePlace, given: Any, seed: int, blocks: int) -> Any:
    """Give the head that a method wants in place of the given one, or that one.

    Args:
        method: the method.
        place: where the stage stands.
        given: the head that the user gave.
        seed: int ≥ 0.
        blocks: int. Blocks up to the end of the stage.

    Raises:
        TypeError: the method gives no Keras layer.
    """
    head = method.stage_head(place, given)
    if head is given:
        return given
    return own_layer(head, f"head_{place.depth}", seed, HEAD, blocks - 1)


def own_method_layers(
    method: LocalMethod, place: StagePlace, seed: int, blocks: int
) -> dict[str, Any]:
    """Give the layers of a method for one stage, built.

    Args:
        method: the method.
        place: where the stage stands.
        seed: int ≥ 0.
        blocks: int. Blocks up to the end of the stage.

    Raises:
        TypeError: the method gives something else than a dict of layers.
    """
    wanted = method.stage_layers(place)
    if not isinstance(wanted, Mapping):
        raise TypeError(
            f"`stage_layers` of {type(method).__name__} must give a dict of name to layer. "
            f"Received, for stage {place.depth}: {wanted!r}. Give `{{}}` for none."
        )
    layers: dict[str, Any] = {}
    for index, (name, entry) in enumerate(wanted.items()):
        layer, shape = entry if isinstance(entry, tuple) else (entry, place.feature_shape)
        title = f"{name}_{place.depth}"
        layers[name] = own_layer(layer, title, seed, METHOD_LAYER, blocks - 1, index)
        if not layers[name].built:
            layers[name].build(shape)
    return layers


def bring_home(stages: Sequence[Any], heads: Sequence[Any], method: LocalMethod) -> None:
    """Move layers that a model is made of anew, and are built, to where their stage lives."""
    placement = Placement(len(stages) if method.cuts_gradient else 1)
    for k, (stage, head) in enumerate(zip(stages, heads, strict=True)):
        if method.cuts_gradient:
            placement.move(k, [*stage.variables, *head.variables])


def own_heads(
    heads: Sequence[Any], stages: Sequence[Stage], seed: int, placement: Placement
) -> list[Any]:
    """Give the model's heads: as many as stages, the last ones where stages were joined.

    A head's seed comes from the index of the block before it, so it does not depend on K.
    """
    own, blocks = [], 0
    for k, (head, stage) in enumerate(zip(heads[-len(stages) :], stages, strict=True)):
        blocks += len(stage.blocks)
        with placement.on(k):
            own.append(own_layer(head, f"head_{k + 1}", seed, HEAD, blocks - 1))
        placement.check_home(own[-1], k)
    return own


def _blocks(stage: Any) -> list[Any]:
    if isinstance(stage, Stage):
        return list(stage.blocks)
    return list(stage) if isinstance(stage, (list, tuple)) else [stage]


def _check_own(layers: Sequence[Any]) -> None:
    built = [layer for layer in layers if getattr(layer, "built", False)]
    twice = sorted({one.name for one in built if sum(one is other for other in built) > 1})
    if twice:
        raise ValueError(
            "A built layer can stand in one place only, or two stages would train it. "
            f"Received twice: {', '.join(twice)}."
        )
