"""The one place that turns a model, or blocks, into units that stages are made of."""

import dataclasses
import warnings
from typing import Any

import keras

from keras_trgl.checks import check_list
from keras_trgl.types import Shape

NO_UNITS = (
    "Give the layers that an architecture makes, or a Keras model that "
    "`GreedyModel.from_model` takes, whose units are counted."
)


@dataclasses.dataclass(frozen=True)
class Units:
    """What stages are made of.

    Attributes:
        layers: list of layers, one per unit.
        shape: tuple, the data's shape without the batch axis, as a model tells it, or `None`.
        dtype: str, the data's type.
        is_model: bool. Whether they are units of a model, over its own layers. Sizes in these
            units are `cuts` for `GreedyModel.from_model`.
    """

    layers: list[Any]
    shape: Shape | None
    dtype: str
    is_model: bool

    def __len__(self) -> int:
        return len(self.layers)


def units_of(given: Any, name: str = "blocks", to_run: bool = False) -> Units:
    """Give the units of a model, or blocks as they are.

    Args:
        given: built `keras.Model` that `from_model` takes, or a list of layers.
        name: str. The argument's name, for errors. Defaults to `"blocks"`.
        to_run: bool. Whether units will be run, which moves batch statistics and seeds: then a
            model is copied. Defaults to `False`.

    Returns:
        `Units`.

    Raises:
        TypeError: it is neither.
        ValueError: the model cannot be cut.
    """
    if not isinstance(given, keras.Model):
        check_list(name, given, "layers", NO_UNITS)
        return Units(list(given), None, keras.config.floatx(), False)
    # Late, as what cuts a model stands above what only counts.
    from keras_trgl.network.bringing import copied
    from keras_trgl.network.from_model import split_model
    from keras_trgl.network.units import EVERY_UNIT

    with warnings.catch_warnings():
        # Units without a residual are told of by `from_model`, once it is known how it is cut.
        warnings.simplefilter("ignore")
        cut = split_model(copied(given) if to_run else given, EVERY_UNIT)
    data = cut.flat.inputs[0]
    layers = [block for stage in cut.stages for block in stage.blocks]
    return Units(layers, tuple(data.shape[1:]), str(data.dtype), True)
