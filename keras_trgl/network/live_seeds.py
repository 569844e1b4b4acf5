"""Seeds for the very objects that the user handed over, as a function of (seed, position).

An open seed is one that was not given. While a layer is built its initializers are lent seeds, and
afterwards it has the ones it came with: what was drawn gets into no configuration. Seeds go out in
the order of the layer's configuration; what that does not speak of comes after it.
"""

import contextlib
import copy
import random
from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.layers.chain import build_layer, output_shape
from keras_trgl.layers.inner import config_of, inner_layers, is_open, put, seed_generators, slots
from keras_trgl.network.part import Part
from keras_trgl.seeds import BLOCK, HEAD, derive_seed
from keras_trgl.types import Shape

_LATE, _DRAWS = 1, 2
"""Fifth word of a position: generators that no configuration tells of; draws while building."""


def build_blocks(blocks: Sequence[Any], shape: Shape, seed: int, first: int) -> None:
    """Build the blocks of a stage, each with the seeds of its position.

    Args:
        blocks: list of layers. Those that are built stay as they are.
        shape: shape of the stage's input, batch axis included.
        seed: int ≥ 0. The model's seed.
        first: int ≥ 0. Position of the first block in the model.
    """
    for index, block in enumerate(blocks, start=first):
        build_seeded(block, shape, seed, BLOCK, index)
        shape = output_shape(block, shape)


def build_seeded(layer: Any, shape: Shape, seed: int, *position: int) -> None:
    """Build a layer with the seeds of its position, unless it is built.

    Every variable has a seed of its own: what a layer draws itself while it is built, as
    `MultiHeadAttention` does for its kernels, comes from the position too.

    Args:
        layer: Keras layer.
        shape: shape of its input, batch axis included.
        seed: int ≥ 0. The model's seed.
        *position: kind and index.
    """
    if layer.built:
        return
    seeds = _Seeds(seed, position, lends=True)
    before = random.getstate()
    try:
        seeds.give_all(layer)
        random.seed(derive_seed(seed, *position, 0, _DRAWS))
        build_layer(layer, shape)
    finally:
        random.setstate(before)
        seeds.take_back()
    seeds.give_late(layer)


def seed_again(stages: Sequence[Any], heads: Sequence[Any], seed: int) -> None:
    """Give built layers' seed generators the states that the model's seed gives them.

    Args:
        stages: built stages.
        heads: built heads, as many.
        seed: int ≥ 0. The model's seed, as it was when the model was made.
    """
    index = 0
    for stage, head in zip(stages, heads, strict=True):
        places = [(block, BLOCK, index + place) for place, block in enumerate(stage.blocks)]
        index += len(stage.blocks)
        for layer, kind, place in [*places, (head, HEAD, index - 1)]:
            if isinstance(layer, Part):
                continue  # A user's layers keep the seeds that the user gave them.
            seeds = _Seeds(seed, (kind, place), lends=False)
            seeds.give_all(layer)
            seeds.give_late(layer)


class _Seeds:
    """Seeds of one position, on their way to the layer that stands there.

    Args:
        seed: int ≥ 0. The model's seed.
        position: kind and index.
        lends: bool. Whether initializers get seeds; else only generators do.
    """

    def __init__(self, seed: int, position: Sequence[int], lends: bool) -> None:
        self._seed = seed
        self._position = position
        self._lends = lends
        self._count = 0
        self._lent: list[tuple[Any, Any, Any, Any]] = []
        self._given: dict[int, Any] = {}

    def give_all(self, layer: Any) -> None:
        """Go through the layer's configuration, then through what else it holds."""
        self._walk(config_of(layer), layer)
        for holder, key, part in list(slots(layer)) if self._lends else ():
            if isinstance(part, keras.initializers.Initializer) and self._is_free(part, holder):
                self._lend(holder, key, part).seed = self._next()

    def give_late(self, layer: Any) -> None:
        """Give states to the generators that have got none, in the order in which they stand."""
        rest = [
            one for one in seed_generators(layer) if is_open(one) and id(one) not in self._given
        ]
        for place, one in enumerate(rest):
            self._set(one, derive_seed(self._seed, *self._position, place, _LATE))

    def take_back(self) -> None:
        """Put back what stood where a seed was lent."""
        for holder, key, before, _ in reversed(self._lent):
            put(holder, key, before)

    def _next(self) -> int:
        self._count += 1
        return derive_seed(self._seed, *self._position, self._count - 1)

    def _walk(self, config: Any, live: Any) -> None:
        """Go through a configuration together with the object, or the list, that it tells of."""
        if _is_object(config):
            self._walk(config["config"], live)
        elif isinstance(config, dict):
            for key, entry in config.items():
                if key == "seed" and entry is None:
                    self._give(live, self._next())
                else:
                    self._walk(entry, self._part(live, key, entry))
        elif isinstance(config, (list, tuple)):
            parts = live if isinstance(live, list) else [None] * len(config)
            for entry, part in zip(config, parts, strict=True):
                self._walk(entry, part)

    def _part(self, live: Any, key: str, entry: Any) -> Any:
        """Give what an entry of the configuration of `live` tells of, or `None`."""
        if live is None or not isinstance(entry, (dict, list, tuple)):
            return None
        held = [_attribute(live, name) for name in (key, f"_{key}")]
        if _is_object(entry):
            return self._found(live, key, entry, held)
        if isinstance(entry, dict):
            return None
        listed = next((h for h in held if isinstance(h, list) and len(h) == len(entry)), None)
        return [
            self._found(live, key, one, [] if listed is None else [listed[place]])
            for place, one in enumerate(entry)
        ]

    def _found(self, live: Any, key: str, entry: Any, held: Sequence[Any]) -> Any:
        if not _is_object(entry):
            return None
        for part in held:
            if type(part).__name__ == entry["class_name"]:
                return self._own(live, key, part, entry)
        name = entry["config"].get("name") if isinstance(entry["config"], dict) else None
        named = (
            inner
            for inner in inner_layers(live)
            if name is not None
            and inner.name == name
            and type(inner).__name__ == entry["class_name"]
        )
        return next(named, None)

    def _own(self, live: Any, key: str, part: Any, entry: Any) -> Any:
        """Give a part, or, of an initializer that is to be lent a seed, a copy in its place."""
        if not isinstance(part, keras.initializers.Initializer) or not _has_open(entry):
            return part
        if not self._lends:
            return part
        for holder, name, there in list(slots(live)):
            if there is part and name in (key, f"_{key}"):
                return self._lend(holder, name, part)
        return None

    def _lend(self, holder: Any, key: Any, initializer: Any) -> Any:
        # One initializer may serve several variables, and other models.
        lent = copy.copy(initializer)
        self._lent.append((holder, key, initializer, lent))
        put(holder, key, lent)
        return lent

    def _is_free(self, part: Any, holder: Any) -> bool:
        if isinstance(holder, tuple) or any(part is lent for *_, lent in self._lent):
            return False
        return hasattr(part, "seed") and is_open(part)

    def _give(self, live: Any, seed: int) -> None:
        """Give a seed to the object whose configuration asks for one."""
        if isinstance(live, keras.random.SeedGenerator):
            self._set(live, seed)
        elif isinstance(live, keras.initializers.Initializer):
            if self._lends:
                live.seed = seed
        elif isinstance(live, keras.layers.Layer):
            if self._lends and vars(live).get("seed", 0) is None:
                # What the layer makes with it when it is built gets this seed.
                self._lent.append((live, "seed", None, None))
                live.seed = seed
            for one in _generators_of(live):
                self._set(one, seed)

    def _set(self, generator: Any, seed: int) -> None:
        self._given[id(generator)] = generator
        if is_open(generator):
            generator.state.assign([seed, 0])


def _generators_of(layer: Any) -> list[Any]:
    """Give the open generators that a layer's own argument `seed` is for."""
    kind = keras.random.SeedGenerator
    own = [one for one in vars(layer).values() if isinstance(one, kind) and is_open(one)]
    if own and not type(layer).__module__.startswith("keras."):
        return own
    # Keras's layers hand their seed on to the layers that they are made of.
    return [one for one in seed_generators(layer) if is_open(one)]


def _attribute(live: Any, name: str) -> Any:
    # A property of a layer that is not built may raise anything.
    with contextlib.suppress(Exception):
        return getattr(live, name, None)
    return None


def _is_object(config: Any) -> bool:
    return isinstance(config, dict) and "class_name" in config and "config" in config


def _has_open(config: Any) -> bool:
    if isinstance(config, dict):
        return any((k == "seed" and v is None) or _has_open(v) for k, v in config.items())
    return isinstance(config, (list, tuple)) and any(map(_has_open, config))
