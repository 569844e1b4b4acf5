"""Stages and heads as the user gave them, made into the model's own."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.layers.stage import Stage
from keras_trgl.methods.method import Method
from keras_trgl.network.placement import Placement
from keras_trgl.seeds import BLOCK, HEAD, fill_seeds


def chosen(name: str, value: Any, base: type, members: Mapping[str, type]) -> Any:
    """Give an object from itself or from its name, as Keras's `get` functions do.

    Raises:
        ValueError: a name that is none of `members`.
        TypeError: something else that is no `base`.
    """
    if isinstance(value, base):
        return value
    if isinstance(value, str):
        if value not in members:
            known = ", ".join(repr(one) for one in members)
            raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}.")
        return members[value]()
    raise TypeError(
        f"`{name}` must be a {base.__name__} or one of {', '.join(map(repr, members))}. "
        f"Received: {name}={value!r}. Did you pass a class instead of an object?"
    )


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
    stages: Sequence[Any], heads: Sequence[Any], method: Method, seed: int
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
            if stage.residual_units:
                stage.regularizer = method.make_regularizer(k, len(groups))
        own.append(stage)
    return own, placement


def bring_home(stages: Sequence[Any], heads: Sequence[Any], method: Method) -> None:
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
