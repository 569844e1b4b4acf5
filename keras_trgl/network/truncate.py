"""F_k∘G_k as a plain functional Keras model, and every depth's prediction at once.

A functional model leaves a node at every layer that it calls, and the layers outlive it. So a
depth is cut off once, and all depths are predicted without nodes.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_trgl.layers.masks import keeping_mask
from keras_trgl.network.door import Door, input_of
from keras_trgl.network.passing import main
from keras_trgl.network.placement import strategy_in_force
from keras_trgl.network.unfolding import Unfolding
from keras_trgl.types import Tensor

InputShape = tuple[int | None, ...]


class AllExits(keras.Model):
    """Every depth's prediction, by the stages' blocks, so that no energy is added.

    Args:
        stages: built stages 1 to k.
        heads: built heads 1 to k.
        name: str. The model's name.
        input_shape: shape of the data that the stages were built for. Defaults to `None`.
    """

    def __init__(
        self,
        stages: Sequence[Any],
        heads: Sequence[Any],
        name: str,
        input_shape: InputShape | None = None,
    ) -> None:
        # Layers cast for themselves; a policy set since they were made is none of their own.
        super().__init__(name=name, autocast=False)
        self._shape = input_shape
        self._rows = [list(stage.blocks) for stage in stages]
        self._exits = list(heads)
        self._door = Door(stages[0].blocks)
        self.built = True

    def call(self, inputs: Tensor) -> list[Tensor]:
        """Give the list of predictions, `(batch, units)` each, for depths 1 to k.

        Args:
            inputs: tensor, `(batch, …)`, or a list, tuple or dict with one.
        """
        x, predictions = self._door.take(inputs, self._shape), []
        for blocks, head in zip(self._rows, self._exits, strict=True):
            for block in blocks:
                x = block(x)
            predictions.append(keeping_mask(head, main(x)))
        return predictions


def truncated_model(
    stages: Sequence[Any],
    heads: Sequence[Any],
    input_shape: InputShape,
    name: str,
    data: str | None = None,
) -> keras.Model:
    """Give stages in a row and the last one's head as a functional model.

    Args:
        stages: built stages 1 to k.
        heads: built heads 1 to k.
        input_shape: shape of the data, batch axis included.
        name: str. The model's name.
        data: str or `None`. The input's name; `None` takes a declared one. Defaults to `None`.

    Returns:
        `keras.Model` that shares the layers and carries no energy loss. Blocks and heads made of
        Keras's own layers alone are unfolded into them.
    """
    inputs = input_of(stages[0].blocks, input_shape, data)
    names = [one.name for one in keras.tree.flatten(inputs)]
    call, x = Unfolding(names), inputs
    for stage in stages:
        # Blocks, not stages, so that no energy is added.
        for block in stage.blocks:
            x = call(block, x)
    model = keras.Model(inputs, call(heads[-1], main(x)), name=name)
    # Keras itself keeps no list of them.
    model.input_names = names
    return model


class Cuts:
    """What was cut off one network: a model per depth, and one for all depths.

    Each is made once, and anew where the variables have moved or another strategy is in force. A
    plain object, so that Keras does not take the models for parts of the network.
    """

    def __init__(self) -> None:
        self._made: dict[Any, tuple[list[Any], keras.Model]] = {}

    def truncated(
        self,
        stages: Sequence[Any],
        heads: Sequence[Any],
        input_shape: InputShape,
        name: str,
        data: str | None = None,
    ) -> keras.Model:
        """Give `truncated_model` of these stages and heads, the same one every time."""
        return self._once(
            (len(stages), data),
            [*stages, heads[-1]],
            lambda: truncated_model(stages, heads, input_shape, name, data),
        )

    def all_exits(
        self, stages: Sequence[Any], heads: Sequence[Any], input_shape: InputShape, name: str
    ) -> keras.Model:
        """Give `AllExits` of these stages and heads, the same one every time."""
        return self._once(
            "all", [*stages, *heads], lambda: AllExits(stages, heads, name, input_shape)
        )

    def _once(
        self, cut: Any, layers: Sequence[Any], make: Callable[[], keras.Model]
    ) -> keras.Model:
        # A traced function speaks of the variables it was traced with, wherever the layers have
        # theirs now. Held weakly, as variables that moved are to be freed.
        values = [variable.value for layer in layers for variable in layer.variables]
        key = (cut, strategy_in_force())
        seen, model = self._made.get(key, ([], None))
        same = len(seen) == len(values) and all(
            one() is value for one, value in zip(seen, values, strict=True)
        )
        if model is None or not same:
            model = make()
            self._made[key] = ([weakref.ref(value) for value in values], model)
        return model
