"""What a stage costs in bytes, counted from shapes and types."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.layers.chain import build_layer
from keras_trgl.layers.copying import copy_layer
from keras_trgl.layers.inner import follow_format
from keras_trgl.splitting.activation_bytes import Counter, Held, bytes_of
from keras_trgl.types import Shape, StagePlace

IN_FLIGHT = 2
"""Tensors of the largest size that the backward pass holds beside what the forward pass kept."""


def check_layers(blocks: Sequence[Any], head: Any) -> None:
    """Raise unless blocks and head are Keras layers.

    Raises:
        TypeError: one is not.
    """
    for layer in (*blocks, *([] if head is None else [head])):
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                "`blocks` must be Keras layers, and `head` one, which every stage gets a copy "
                f"of. Received: {layer!r}. Pass the largest of several heads."
            )


def stage_bytes(
    blocks: Sequence[Any],
    head: Any,
    shape: Shape,
    method: Any = None,
    num_stages: int = 1,
    ends: Sequence[int] | None = None,
) -> Callable[[int, int], int]:
    """Give the function that tells what a stage costs.

    Args:
        blocks: list of layers, built or not.
        head: unbuilt layer, or `None`; with `ends` a list of K of them.
        shape: tuple, the data's shape, batch axis included.
        method: `LocalMethod` whose heads and nets count too, or `None`. Defaults to `None`.
        num_stages: int. K, which a method may ask for. Defaults to `1`.
        ends: list of K ints, the block that each stage ends before, where that is settled, or
            `None`. Defaults to `None`.

    Returns:
        Function of (start, end): bytes per example of a stage of blocks start to end − 1.
    """
    held = Held(shape, counted=True)
    inputs, alone, inside, largest, heads = [], [], [], [], list[int]()
    before_stage = shape
    for end, block in enumerate(blocks, start=1):
        # `inside` a stage a block keeps its input unless the block before did; as the first of
        # a stage it does not count it, since the stage's input is held in any case.
        size, before = bytes_of(block, held.shape), held.counted
        counter = Counter()
        output = counter.walk([block], held)
        inputs.append(size)
        inside.append(counter.bytes)
        alone.append(counter.bytes - (size if held.counted and not before else 0))
        largest.append(counter.largest)
        held = output
        place = _place(blocks, end, head, (shape, before_stage, output.shape), num_stages, ends)
        if place is None:
            heads.append(0)
            continue
        own = head if ends is None else head[place.depth - 1]
        heads.append(_beside_bytes(method, place, own, output, blocks[:end]))
        before_stage = output.shape

    def cost(start: int, end: int) -> int:
        kept = inputs[start] + alone[start] + sum(inside[start + 1 : end])
        return kept + heads[end - 1] + IN_FLIGHT * max(largest[start:end])

    return cost


def data_shape(first: Any, input_shape: Shape | None) -> Shape:
    """Give the shape of the data without the batch axis, as given or as the first block tells.

    Raises:
        TypeError: a side is no integer.
        ValueError: neither tells it, or a side is below 1.
    """
    expected = input_shape
    if expected is None:
        expected = getattr(first, "expected_input_shape", None)
    if expected is None:
        raise ValueError(
            "The shape of the data must be known to count bytes. Received: input_shape=None and "
            "a first block that does not tell. Pass `input_shape=(height, width, channels)`."
        )
    hint = "Every side but the batch must be known to count bytes, as in `(32, 32, 3)`."
    for side in expected:
        check_integer("input_shape", side, 1, hint)
    return tuple(expected)


def _place(
    blocks: Sequence[Any],
    end: int,
    head: Any,
    shapes: tuple[Shape, Shape, Shape],
    num_stages: int,
    ends: Sequence[int] | None,
) -> StagePlace | None:
    """Give where a stage that ends before block `end` stands, as far as the split tells.

    Args:
        blocks: list of layers.
        end: int ≥ 1. Position after the stage's last block.
        head: as in `stage_bytes`.
        shapes: of the data, of the stage's input, and of its features.
        num_stages: int. K.
        ends: as in `stage_bytes`; where no stage ends there is no place.
    """
    data, inputs, features = shapes
    if ends is None:
        # How many stages come before is not known while sizes are sought: the first, or the last.
        depth, inputs = num_stages if end == len(blocks) else 1, features
    elif end in ends:
        depth = list(ends).index(end) + 1
        head = head[depth - 1]
    else:
        return None
    later, units = tuple(blocks[end:]), getattr(head, "units", None)
    return StagePlace(depth, num_stages, data, inputs, features, units, later, end - 1)


def beside(
    method: Any, place: StagePlace, head: Any, before: Sequence[Any]
) -> list[tuple[Any, Shape]]:
    """Give a stage's head and its method's nets, each with the shape of what it takes.

    Args:
        method: `LocalMethod`, or `None` for the head alone.
        place: where the stage stands.
        head: layer, or `None`.
        before: list of layers, the blocks up to there.
    """
    found: list[tuple[Any, Shape]] = []
    if head is not None and (method is None or method.stage_predicts(place)):
        own = head if head.built else copy_layer(head)
        follow_format(own, before)
        own = own if method is None else method.stage_head(place, own)
        found.append((own, place.feature_shape))
    for entry in () if method is None else method.stage_layers(place).values():
        found.append(entry if isinstance(entry, tuple) else (entry, place.feature_shape))
    for layer, _ in found:
        follow_format(layer, before)
    return found


def _beside_bytes(
    method: Any, place: StagePlace, head: Any, features: Held, before: Sequence[Any]
) -> int:
    """Give the bytes that a stage's head and its method's nets keep."""
    counter = Counter()
    for layer, shape in beside(method, place, head, before):
        build_layer(layer, shape)
        # What it keeps of the features is its own, and not the next block's.
        is_features = tuple(shape) == tuple(place.feature_shape)
        counter.walk([layer], Held(tuple(shape), is_features and features.counted))
    return counter.bytes
