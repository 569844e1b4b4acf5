"""A traced function that every schedule shares, and that TensorFlow does not inline."""

from typing import Any

import tensorflow as tf

from keras_trgl.feeding.batch_forms import leaves_of, open_spec


class SharedFunction:
    """A function that is not inlined, traced once for all batches of the same structure.

    The batch axis is open, so that a short batch and every schedule run the very same graph.

    Args:
        function: Python function of tensors, nested structures of them, or `None`.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._traced: dict[Any, Any] = {}

    def __call__(self, *batch: Any) -> Any:
        """Call it."""
        traced, tensors = self._of(batch)
        return traced(*tensors)

    def outputs(self, *batch: Any) -> Any:
        """Give the structure of what a call gives, of tensors that only their specs are read of."""
        return self._of(batch)[0].structured_outputs

    def _of(self, batch: Any) -> tuple[Any, list[Any]]:
        """Give the traced function of such a batch, and its arguments."""
        tensors = [tf.convert_to_tensor(leaf) for leaf in leaves_of(batch)]
        specs = [open_spec(tensor) for tensor in tensors]
        structure = tf.nest.map_structure(lambda leaf: leaf is None, batch)
        key = repr((structure, specs))
        if key not in self._traced:

            def packed(*leaves: Any) -> Any:
                left = iter(leaves)
                return self._function(
                    *tf.nest.map_structure(lambda none: None if none else next(left), structure)
                )

            # TensorFlow warns of many functions of the same lines, unless each is traced by itself.
            self._traced[key] = tf.function(
                packed,
                input_signature=specs,
                autograph=False,
                experimental_attributes={"_noinline": True},
            ).get_concrete_function()
        return self._traced[key], tensors
