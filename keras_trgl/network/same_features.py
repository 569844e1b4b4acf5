"""Whether the stages of a model that was cut compute what the model does."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.network.bringing import flat_model
from keras_trgl.network.calls import Value, is_plain
from keras_trgl.network.from_model import CutModel

SIDE, LENGTH = 64, 8
"""Sizes taken for axes of images, and of other data, that the model leaves open."""


def check_same(model: Any, cut: CutModel) -> None:
    """Raise unless two examples go through the stages as through the model.

    Args:
        model: the user's model.
        cut: what it was cut into, or its copy was.

    Raises:
        ValueError: the features differ; the message names the first layer whose output does.
    """
    given = [_examples(value) for value in keras.tree.flatten(cut.flat.structure)]
    parts = [stage.blocks[0] for stage in cut.stages] + ([cut.top] if cut.top else [])
    features: Any = keras.tree.pack_sequence_as(cut.flat.structure, given)
    features = features if len(given) > 1 else given[0]
    for part in parts:
        features = part(features, training=False)
    flat = flat_model(model)
    main = _twin(flat.calls, cut)
    outputs = keras.tree.flatten(model(_packed(model, cut, given), training=False))
    if main in flat.outputs:
        if _equal(outputs[flat.outputs.index(main)], features):
            return
    else:
        # Features from the middle: the calls of the user's model give them.
        values = flat.run(given, False, keep=True)
        if _equal(values[main], features):
            return
    raise ValueError(
        f"The stages must compute what the model does. Received: {model.name}, where the output "
        f"of {_first_difference(model, cut, given)} differs on two examples. A layer that draws "
        "at random in inference, or reads the state of another, does that. `check=False` skips it."
    )


def _twin(calls: Sequence[Any], cut: CutModel) -> Value:
    """Give the value of the user's model that the last call of what was cut stands for."""
    last = cut.flat.calls[-1]
    place = last.outputs.index(cut.flat.outputs[0])
    found: Value = [call for call in calls if call.name == last.name][-1].outputs[place]
    return found


def _packed(model: Any, cut: CutModel, given: Sequence[Any]) -> Any:
    if len(given) > 1:
        return keras.tree.pack_sequence_as(cut.flat.structure, list(given))
    if getattr(model, "inputs", None) and len(model.inputs) == len(given):
        return keras.tree.pack_sequence_as(model.input, list(given))
    return given[0]


def _examples(value: Value) -> Any:
    """Give two examples of an input's shape and type."""
    open_side = SIDE if len(value.shape) >= 4 else LENGTH
    sides = (2, *[side or open_side for side in value.shape[1:]])
    rng = np.random.default_rng(0)
    if value.dtype == "string":
        return keras.ops.convert_to_tensor(np.full(sides, "a"))
    if "float" in value.dtype:
        return keras.ops.convert_to_tensor(rng.normal(size=sides), value.dtype)
    return keras.ops.convert_to_tensor(rng.integers(0, 2, sides), value.dtype)


def _equal(one: Any, other: Any) -> bool:
    one, other = (np.asarray(keras.ops.convert_to_numpy(x)) for x in (one, other))
    if one.shape != other.shape:
        return False
    half = one.dtype.itemsize == 2
    one, other = one.astype("float64"), other.astype("float64")
    limit = (1e-2 if half else 1e-5) * float(np.nan_to_num(np.abs(one)).max(initial=0)) + 1e-6
    return bool(np.allclose(one, other, rtol=0, atol=limit, equal_nan=True))


def _first_difference(model: Any, cut: CutModel, given: Sequence[Any]) -> str:
    """Give the name of the first layer whose output differs."""
    mine, theirs = cut.flat, flat_model(model)
    used = dict(zip(keras.tree.flatten(mine.structure), given, strict=True))
    ours = mine.run([used[value] for value in mine.inputs], False, keep=True)
    others = theirs.run(given, False, keep=True)
    by_name = {call.name: call for call in theirs.calls}
    for call in mine.calls:
        twin = by_name.get(call.name)
        for value, other in zip(call.outputs, twin.outputs if twin else (), strict=False):
            if not _equal(others[other], ours[value]):
                return call.name
    if not is_plain(model):
        return f"its own `call`, of {type(model).__name__},"
    # The calls agree with each other: what differs is how a nested model runs them.
    tops = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return tops[0].name if tops else mine.calls[-1].name
