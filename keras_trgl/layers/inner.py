"""What a layer is made of: the layers, initializers and seed generators inside it.

Keras has public lists of a layer's variables, not of its parts. These are found where they stand:
among attributes, in lists and in dicts, in the order in which they were set.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras

PARTS = (keras.layers.Layer, keras.initializers.Initializer, keras.random.SeedGenerator)
_FOLLOWED = (keras.layers.Layer, keras.initializers.Initializer, list, tuple, dict)


def slots(owner: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Give where every part inside a layer stands, the outer ones before what they hold.

    Args:
        owner: layer, initializer, or a list or dict of those.

    Yields:
        (holder, key, part): `part` is an attribute of `holder` of this name, or its entry. An
        initializer that stands in two places comes twice, and so does a layer, whose own parts
        come once.
    """
    yield from _slots(owner, set())


def _slots(owner: Any, seen: set[int]) -> Iterator[tuple[Any, Any, Any]]:
    if id(owner) in seen:
        return
    seen.add(id(owner))
    if isinstance(owner, dict):
        entries = list(owner.items())
    elif isinstance(owner, (list, tuple)):
        entries = list(enumerate(owner))
    else:
        entries = list(vars(owner).items())
    for key, part in entries:
        if isinstance(part, PARTS):
            yield owner, key, part
        if isinstance(part, _FOLLOWED):
            yield from _slots(part, seen)


def put(holder: Any, key: Any, part: Any) -> None:
    """Put a part into a place that `slots` gave."""
    if isinstance(holder, (dict, list)):
        holder[key] = part
    else:
        setattr(holder, key, part)


def inner_layers(layer: Any) -> list[Any]:
    """Give the layers inside a layer, each once."""
    found = {id(part): part for _, _, part in slots(layer) if isinstance(part, keras.layers.Layer)}
    found.pop(id(layer), None)
    return list(found.values())


def seed_generators(layer: Any) -> list[Any]:
    """Give the seed generators inside a layer, each once."""
    kind = keras.random.SeedGenerator
    return list({id(part): part for _, _, part in slots(layer) if isinstance(part, kind)}.values())


def data_format_of(layers: Any) -> str | None:
    """Give where images have their channels: what the last layer that tells, tells.

    Args:
        layers: list of layers in a row.

    Returns:
        `"channels_first"` or `"channels_last"`, or `None` where no layer tells.
    """
    told = [
        getattr(one, "data_format", None) for row in layers for one in (*inner_layers(row), row)
    ]
    return next((one for one in reversed(told) if isinstance(one, str)), None)


def follow_format(head: Any, blocks: Any) -> None:
    """Let a head that leaves its `data_format` open take that of the blocks before it.

    Args:
        head: layer.
        blocks: list of layers in a row.
    """
    if getattr(head, "data_format", "") is None:
        head.data_format = data_format_of(blocks)


def config_of(part: Any) -> dict[str, Any] | None:
    """Give a part's configuration, or `None` where it has none: a user's object needs none."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        # Keras warns of a lambda, which only matters where the configuration is saved.
        warnings.simplefilter("ignore")
        return dict(part.get_config())
    return None


def is_open(part: Any) -> bool:
    """Say whether an initializer or a seed generator drew its seed, as none was given."""
    return (config_of(part) or {}).get("seed", 0) is None
