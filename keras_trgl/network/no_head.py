"""What stands where a stage trains no head: a sentence for whoever asks for its prediction."""

from typing import Any

import keras

from keras_trgl.types import Shape


class NoHead(keras.layers.Layer):
    """Stands for the head of a stage that predicts nothing; raises when it is called.

    Args:
        depth: int. k of the stage, counted from 1.
        num_stages: int. K.
        method: the method that trains none.
    """

    def __init__(self, depth: int, num_stages: int, method: Any) -> None:
        super().__init__(name=f"no_head_{depth}")
        self.depth = depth
        self.num_stages = num_stages
        self.method = method
        self.built = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise, past Keras, which would wrap the sentence in what it was called with."""
        self.refuse()

    def refuse(self) -> None:
        """Raise.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "A depth can predict where its stage trains a head. Received: depth "
            f"{self.depth} of a model whose method is {self.method!r}, which trains none there. "
            f"Use the last depth, {self.num_stages}."
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the shape of no numbers."""
        return (input_shape[0], 0)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration, which tells of a stage without a head."""
        return {"name": self.name, "depth": self.depth}
