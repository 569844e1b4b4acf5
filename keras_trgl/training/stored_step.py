"""A step whose stages take batches from stores: what the buffered and the skewed step share."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.feeding.batch_forms import leaves_of
from keras_trgl.layers.chain import passes_several
from keras_trgl.layers.inner import inner_layers
from keras_trgl.layers.masks import makes_masks
from keras_trgl.network.passing import together
from keras_trgl.training.feature_buffer import FeatureBuffer
from keras_trgl.training.stage_objective import Batch
from keras_trgl.training.stage_step import StageStep


class StoredStep:
    """The stages' steps with a store of batches between each two.

    A member gives `capacity`, `reuse_limit`, `variables` and `__call__`.

    Args:
        steps: list of K `StageStep`.
        regime: the regime it was made for.
        measures_staleness: bool. Whether logs tell how old the features were. Defaults to
            `True`.

    Attributes:
        buffers: list of K − 1 `FeatureBuffer`, each where the stage that reads it lives.
        batch_size: int, of the batches that are stored, or `None` if it is not known.
        rates: list of learning rates, one per stage, that the stages stepped with last.
    """

    capacity = 1
    reuse_limit: int | None = None

    def __init__(
        self, steps: Sequence[StageStep], regime: Any, measures_staleness: bool = True
    ) -> None:
        self.steps = list(steps)
        self.regime = regime
        self.buffers: list[FeatureBuffer] = []
        self.rates: list[float | None] = []
        self.batch_size: int | None = None
        for step in self.steps[1:]:
            with step.on_device():
                step.staleness_tracker = (
                    keras.metrics.Mean(name="staleness") if measures_staleness else None
                )

    @property
    def variables(self) -> list[Any]:
        """All that must be kept for a run to go on."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> None:
        """Take a batch of data, and let stages step as the member says."""
        raise NotImplementedError

    def prepare(self, spec: Any) -> bool:
        """Make the stores for batches of this structure; keep those that fit.

        Args:
            spec: `(x, y, sample_weight, data)` of `tf.TensorSpec` or `None`.

        Returns:
            bool: whether they are new.
        """
        x, y, sample_weight, data = spec
        self.check_shapes(spec)
        specs = [(sides, y, sample_weight, data) for sides in self._crossing(x)]
        if len(self.buffers) == len(specs) and all(
            buffer.fits(one) for buffer, one in zip(self.buffers, specs, strict=True)
        ):
            return False
        self.buffers = []
        for reader, one in zip(self.steps[1:], specs, strict=True):
            with reader.on_device():
                self.buffers.append(FeatureBuffer(self.capacity, one, self.reuse_limit))
        return True

    @staticmethod
    def check_shapes(spec: Any) -> None:
        """Raise unless what is stored has one shape.

        Raises:
            ValueError: an axis but the batch's is open.
        """
        given = leaves_of(spec)
        if any(one.shape.rank is None or None in one.shape[1:] for one in given):
            shapes = ", ".join(str(tuple(one.shape)) for one in given if one.shape.rank)
            raise ValueError(
                "Batches that are stored between stages must have one shape. Received: "
                f"{shapes}. Pad them all to one length, or use `Parallel()` on one device."
            )

    def _crossing(self, x: Any) -> list[Any]:
        """Give specs of what crosses each cut, as `apart` gives it.

        Args:
            x: structure of `tf.TensorSpec`, a batch of data.
        """
        # Masks only show when the layers run; where none is made, shapes are told without a trace.
        traces = makes_masks(one for step in self.steps for one in inner_layers(step.stage))
        blocks = [block for step in self.steps for block in step.stage.blocks]
        traces = traces or any(map(passes_several, blocks))
        sides: Any = (x if len(tf.nest.flatten(x)) > 1 else tf.nest.flatten(x)[0], {})
        specs = []
        for step in self.steps[:-1]:
            if traces:
                sides = step.crossing(sides)
            else:
                shape = step.stage.compute_output_shape((None, *sides[0].shape[1:]))
                kind = step.stage.blocks[-1].compute_dtype
                sides = (tf.TensorSpec([None, *shape[1:]], kind), {})
            specs.append(sides)
        return specs

    def clear(self) -> None:
        """Forget what is stored."""
        self.rates = []
        for buffer, reader in zip(self.buffers, self.steps[1:], strict=True):
            with reader.on_device():
                buffer.clear()

    def warm_up(self) -> None:
        """Take note of a new learning rate."""

    def drain_all(self, eagerly: bool = False) -> None:
        """Let later stages train until no batch is in flight, where batches are used once.

        Args:
            eagerly: bool. Whether steps run without a graph. Defaults to `False`.
        """

    def retrace(self) -> None:
        """Forget traced functions, as after a change of what the steps hold."""

    def read(self, k: int) -> tuple[Batch, Any]:
        """Take a batch for stage k, counted from 0, and tell its staleness."""
        (sides, *rest), staleness = self.buffers[k - 1].read()
        return (together(sides), *rest), staleness

    def note_staleness(self, k: int, staleness: Any) -> None:
        """Log how old the features are that stage k, counted from 0, took."""
        tracker = self.steps[k].staleness_tracker
        if tracker is not None:
            tracker.update_state(tf.cast(staleness, keras.config.floatx()))
