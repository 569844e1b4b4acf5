"""What a client sends, made into what a network takes: the same in a file and in its check."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.export.options import SENT, Inputs
from keras_trgl.network.door import input_type
from keras_trgl.types import Tensor


class Intake:
    """Casts and preprocessing before the first block.

    Args:
        inputs: `Inputs`, as the user gave them.
        blocks: the blocks of the first stage.

    Attributes:
        dtype: str. Type of what a client sends.
        preprocess: as in `Inputs`.
    """

    def __init__(self, inputs: Inputs, blocks: Sequence[Any]) -> None:
        self.preprocess = inputs.preprocess
        self._taken = input_type(blocks) or "float32"
        whole = self._taken if self._taken in SENT else "int64"
        by_model = whole if "int" in self._taken or self._taken == "string" else "float32"
        self.dtype = inputs.dtype or by_model

    def __call__(self, x: Tensor) -> Tensor:
        """Give the network's data.

        Raises:
            ValueError: numbers for a network of text, or text for one of numbers.
        """
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
