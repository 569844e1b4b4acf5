"""What every depth makes of data, in inference mode, all depths in one pass."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_trgl.layers.inner import data_format_of
from keras_trgl.layers.masks import keeping_mask
from keras_trgl.layers.stage import run_blocks
from keras_trgl.network.door import Door
from keras_trgl.network.no_head import NoHead
from keras_trgl.network.passing import main
from keras_trgl.types import Shape, Tensor


@dataclasses.dataclass(frozen=True)
class DepthStep:
    """One depth's work on a batch; where several tensors cross, it shows the main one.

    Attributes:
        before: tensor, what the stage is called on.
        features: tensor, what it gives.
        predict: function without arguments that gives the head's prediction, or `None`.
        energy: scalar tensor, or `None`.
        data_format: of `features`: `"channels_first"` or another word.
    """

    before: Tensor
    features: Tensor
    predict: Callable[[], Tensor] | None = None
    energy: Tensor | None = None
    data_format: str | None = None


Walk = Callable[[Any], Iterator[DepthStep]]
"""A function of a batch of data that gives the steps of depths 1, 2, … in order."""


def walk_of_stages(
    stages: Sequence[Any],
    heads: Sequence[Any],
    reduction: str | None = None,
    shape: Shape | None = None,
) -> Walk:
    """Give the walk through built stages.

    Args:
        stages: stages 1 to k.
        heads: their heads.
        reduction: `"mean"` or `"sum"` to find energies, or `None`. Defaults to `None`.
        shape: that of the data that the network was built for. Defaults to `None`.
    """
    door = Door(stages[0].blocks)

    def walk(x: Any) -> Iterator[DepthStep]:
        x = door.take(x, shape)
        blocks: list[Any] = []
        for stage, head in zip(stages, heads, strict=True):
            before, energy = x, None
            # Blocks, not the stage: nothing of training is added or left behind.
            x, energies = run_blocks(stage.blocks, before, reduction)
            for one in energies:
                energy = one if energy is None else ops.add(energy, one)
            blocks = [*blocks, *stage.blocks]
            predict = None
            if not isinstance(head, NoHead):

                def predict(head: Any = head, x: Any = x) -> Tensor:
                    return keeping_mask(head, main(x))

            yield DepthStep(main(before), main(x), predict, energy, data_format_of(blocks))

    return walk


class SeenByDepth(keras.Model):
    """A dict of what is wanted of each depth, `name_k`, every entry with a row per example.

    - `vectors`: features, the mean over all axes but batch and channels.
    - `origin`: what the stage is called on, likewise, where it is numbers with a point.
    - `features`: as they are.
    - `prediction`: of the head, where there is one.
    - `energy`: of the batch, for each of its rows, where the stage has one.
    - `displacement`: |T(x) − x|²/|x|², where shapes agree; NaN where |x| is 0.

    Args:
        walk: the way through the depths.
        wants: names of what is wanted.
        depths: numbers from 1, of those to give.
    """

    def __init__(self, walk: Walk, wants: Collection[str], depths: Collection[int]) -> None:
        # Layers cast for themselves; a policy set since the model was made is none of its own.
        super().__init__(name="seen_by_depth", autocast=False)
        self._walk, self._wants, self._depths = walk, set(wants), set(depths)
        self.built = True

    def call(self, inputs: Any) -> dict[str, Tensor]:
        """Give the dict.

        Args:
            inputs: tensor, `(batch, …)`, or a list, tuple or dict with one.
        """
        found: dict[str, Tensor] = {}
        for depth, step in enumerate(self._walk(inputs), start=1):
            if depth in self._depths:
                for name in self._wants:
                    value = _of(step, name)
                    if value is not None:
                        found[f"{name}_{depth}"] = value
            if depth == max(self._depths):
                break
        return found


def _of(step: DepthStep, name: str) -> Tensor | None:
    if name == "vectors":
        return pooled(step.features, step.data_format)
    if name == "origin":
        return pooled(step.before, step.data_format) if is_float(step.before) else None
    if name == "features":
        return ops.cast(step.features, keras.config.floatx())
    if name == "prediction":
        return None if step.predict is None else ops.cast(step.predict(), keras.config.floatx())
    if name == "energy":
        rows = ops.shape(step.features)[:1]
        return None if step.energy is None else ops.broadcast_to(step.energy, rows)
    return displacement(step.before, step.features)


def is_float(x: Tensor) -> bool:
    """Tell whether a tensor holds numbers with a point."""
    return "float" in keras.backend.standardize_dtype(x.dtype)


def pooled(x: Tensor, data_format: str | None) -> Tensor:
    """Give the mean over all axes but batch and channels, `(batch, channels)`.

    Args:
        x: tensor, `(batch, …)`.
        data_format: `"channels_first"` for images that have them there.
    """
    x = ops.cast(x, keras.config.floatx())
    rank = len(x.shape)
    if rank < 3:
        return x if rank == 2 else ops.reshape(x, (-1, 1))
    # A sequence has its steps before its channels, whatever the format of images.
    first = data_format == "channels_first" and rank > 3
    return ops.mean(x, axis=tuple(range(2, rank) if first else range(1, rank - 1)))


def displacement(before: Tensor, after: Tensor) -> Tensor | None:
    """Give |after − before|²/|before|² of each row, `(batch,)`; `None` where shapes differ.

    Args:
        before: tensor, `(batch, …)`.
        after: tensor, `(batch, …)`.
    """
    if tuple(before.shape[1:]) != tuple(after.shape[1:]) or not is_float(before):
        return None
    axes = tuple(range(1, len(before.shape)))
    floatx = keras.config.floatx()
    before, after = ops.cast(before, floatx), ops.cast(after, floatx)
    size = ops.sum(ops.square(before), axis=axes)
    moved = ops.sum(ops.square(ops.subtract(after, before)), axis=axes)
    nothing = ops.equal(size, 0)
    ratio = ops.divide(moved, ops.where(nothing, ops.ones_like(size), size))
    return ops.where(nothing, ops.full_like(ratio, float("nan")), ratio)
