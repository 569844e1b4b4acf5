"""What a client sends, made into what a network takes: the same in a file and in its check."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.export.options import SENT, Inputs
from keras_trgl.network.door import input_type
from keras_trgl.network.several_inputs import inputs_of


class Intake:
    """Casts and preprocessing before the first block.

    Args:
        inputs: `Inputs`, as the user gave them.
        blocks: the blocks of the first stage.

    Attributes:
        dtype: str. Type of what a client sends; of several inputs each has its own.
        preprocess: as in `Inputs`.
        several: `SeveralInputs`, or `None` where there is one.

    Raises:
        ValueError: settings of one input for a network of several.
    """

    def __init__(self, inputs: Inputs, blocks: Sequence[Any]) -> None:
        self.preprocess = inputs.preprocess
        self.several = inputs_of(blocks[0])
        if self.several is not None and inputs != Inputs():
            raise ValueError(
                "`Inputs` speaks of one input. Received: settings for a model with "
                f"{len(self.several.names)}: {', '.join(self.several.names)}. They are taken as "
                "the model declares them; leave `inputs` out, and prepare data by layers of the "
                "model."
            )
        self._taken = input_type(blocks) or "float32"
        whole = self._taken if self._taken in SENT else "int64"
        by_model = whole if "int" in self._taken or self._taken == "string" else "float32"
        self.dtype = inputs.dtype or by_model

    def __call__(self, x: Any) -> Any:
        """Give the network's data.

        Raises:
            ValueError: numbers for a network of text, or text for one of numbers.
        """
        if self.several is not None:
            return self.several.take(x)
        x = tf.convert_to_tensor(x)
        if self.preprocess is not None:
            sends_numbers = self.dtype in ("float32", "uint8")
            given = self.preprocess(tf.cast(x, tf.float32) if sends_numbers else x)
            x = tf.convert_to_tensor(given)
        if (x.dtype == tf.string) != (self._taken == "string"):
            raise ValueError(
                f"The model takes {self._taken}. Received: {x.dtype.name} from "
                f"Inputs(dtype={self.dtype!r}). Leave `dtype` out, or let `preprocess` give "
                f"{self._taken}."
            )
        return x if x.dtype == tf.string else tf.cast(x, self._taken)


def check_one_input(stages: Sequence[Any], what: str) -> None:
    """Raise where a network takes several inputs.

    Args:
        stages: its stages.
        what: str. What takes one.

    Raises:
        ValueError: it takes several.
    """
    several = inputs_of(stages[0].blocks[0])
    if several is not None:
        raise ValueError(
            f"{what} takes a model of one input. Received: one with {len(several.names)}: "
            f"{', '.join(several.names)}. `export_serving` takes several."
        )
