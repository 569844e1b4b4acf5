"""A stage T_k: blocks that are trained as one."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_trgl.layers.chain import (
    as_layers,
    as_shapes,
    build_chain,
    call_chain,
    chain_output_shape,
    deserialize_chain,
    passes_several,
    serialize_chain,
)
from keras_trgl.layers.masks import hands_on
from keras_trgl.layers.residual_unit import ResidualUnit
from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import HoldsUnits, Tensor


def residual_units(layer: Any) -> list[ResidualUnit]:
    """Give the residual units in `layer`: itself, or those of a model or part it is, in order."""
    if isinstance(layer, ResidualUnit):
        return [layer]
    if isinstance(layer, HoldsUnits):
        return list(layer.residual_units)
    if isinstance(layer, keras.Model):
        return [unit for inner in layer.layers for unit in residual_units(inner)]
    return []


def run_blocks(
    blocks: Sequence[Any], x: Tensor, reduction: str | None
) -> tuple[Tensor, list[Tensor]]:
    """Call blocks in a row.

    Args:
        blocks: list of layers.
        x: tensor, what the first is called on.
        reduction: `"mean"` or `"sum"`, or `None` where no energy is asked for.

    Returns:
        Tuple of the last one's output, and the energies of the residual units, in order.
    """
    if reduction is None:
        return call_chain(blocks, x), []
    units = [unit for block in blocks for unit in residual_units(block)]
    with contextlib.ExitStack() as stack:
        for unit in units:
            stack.enter_context(unit.recording())
        features = call_chain(blocks, x)
        return features, [unit.energy(reduction) for unit in units]


class InTraining(keras.layers.Layer):
    """A function of blocks, run in training mode wherever it is called."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__(autocast=False, name="in_training")
        self._run = run
        self.supports_masking = True
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Any:
        """Run the blocks; what they are called in is in training mode."""
        del training
        return self._run(x)

    compute_mask = hands_on


@public
class Stage(Recorded, keras.layers.Layer):
    """Blocks in a row, with the regulariser of their energy.

    Args:
        blocks: list of layers. Residual units among them, also inside a Keras model, count
            for the energy; other layers are passed through.
        regularizer: layer that takes the list of the units' energies and adds its loss, with
            an attribute `reduction`; `GreedyModel` hands it in. Called in training mode only,
            so that neither evaluation nor an exported model carries the energy. Defaults to
            `None`.
        **kwargs: `name` and the like, as for any Keras layer.

    Raises:
        ValueError: `blocks` is empty.
        TypeError: an entry of `blocks` is no layer.

    Example:
        >>> import keras, numpy as np
        >>> from keras_trgl.layers import ResidualBlock, Stage
        >>> stage = Stage([ResidualBlock([keras.layers.Dense(4)]) for _ in range(2)])
        >>> stage(np.ones((2, 4), "float32")).shape
        TensorShape([2, 4])
    """

    def __init__(self, blocks: Any, regularizer: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = as_layers("blocks", blocks)
        if not self.blocks:
            raise ValueError("A stage needs a block. Received: blocks=[].")
        self.regularizer = regularizer
        # Set by `GreedyModel` for a method that wants the energy without a regulariser.
        self.recorded_reduction: str | None = None
        self._energy: Tensor | None = None
        self._run: Callable[..., Any] = run_blocks
        # Masks are the inner layers' to use and to hand on.
        self.supports_masking = True

    @property
    def residual_units(self) -> list[ResidualUnit]:
        """The units whose energy counts, in order."""
        return [unit for block in self.blocks for unit in residual_units(block)]

    def build(self, input_shape: Any) -> None:
        """Build every block for inputs of this shape, batch axis included."""
        build_chain(self.blocks, as_shapes(input_shape))
        if self.regularizer is not None and not self.regularizer.built:
            self.regularizer.build(None)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Give the features, and in training mode add the regulariser's loss.

        Args:
            inputs: tensor, the features of the stage before.
            training: bool. Whether the stage trains. Defaults to the caller's.

        Returns:
            Tensor, the last block's output.
        """
        reduction = self.energy_reduction if training else None
        self._energy = None
        features, energies = (self._run if training else run_blocks)(self.blocks, inputs, reduction)
        if reduction is not None:
            self._energy = (
                functools.reduce(ops.add, energies)
                if self.regularizer is None
                else self.regularizer(energies)
            )
        return features

    @contextlib.contextmanager
    def run_by(self, run: Callable[..., Any] | None) -> Iterator[None]:
        """Let training calls inside the context run the blocks in another way.

        Args:
            run: function like `run_blocks`, or `None` for that one.

        Returns:
            Context manager.
        """
        before, self._run = self._run, run or run_blocks
        try:
            yield
        finally:
            self._run = before

    @property
    def energy_reduction(self) -> str | None:
        """`"mean"` or `"sum"` where training calls find the energy, else `None`."""
        if not self.residual_units:
            return None
        if self.regularizer is not None:
            return str(self.regularizer.reduction)
        return self.recorded_reduction

    @property
    def energy(self) -> Tensor | None:
        """Plain energy of the latest call, a scalar tensor, or `None` where none was found."""
        return self._energy

    compute_mask = hands_on

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Give the features' shape, or a tuple of shapes; needs nothing built."""
        return chain_output_shape(self.blocks, as_shapes(input_shape))

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        """Give the features as symbolic tensors; of several each has a type of its own."""
        is_one = not isinstance(inputs, (tuple, list, dict))
        if is_one and not any(map(passes_several, self.blocks)):
            return super().compute_output_spec(inputs, **kwargs)
        for block in self.blocks:
            inputs = block.compute_output_spec(inputs)
        return inputs

    def get_config(self) -> dict[str, Any]:
        """Give the configuration, blocks included; the regulariser is the model's to give."""
        return {**super().get_config(), "blocks": serialize_chain(self.blocks)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Stage":
        """Make the stage from `get_config`'s result."""
        return cls(**{**config, "blocks": deserialize_chain(config["blocks"])})
