"""Activations made anew in the backward pass, with the same numbers.

`keras.remat` alone runs a function twice and lets both runs count: dropout draws a second mask,
batch statistics move twice, and what is picked from inside has no gradient, all in silence. Here
the second run begins with the states that the first one found and leaves those of now, and the
energies are outputs.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.layers.masks import mask_of, with_mask
from keras_trgl.layers.stage import InTraining, run_blocks
from keras_trgl.network.pieces import pieces_of
from keras_trgl.types import Tensor


def rematerialized(call: Callable[..., Any], states: Sequence[Any]) -> Callable[..., Any]:
    """Give a function that keeps its arguments alone, and runs again when gradients are asked for.

    Args:
        call: function of positional tensors that gives a tuple of tensors; the first carries a
            gradient. It is run a second time out of reach of what surrounds the first.
        states: list of Keras variables that a run moves and no gradient trains: batch
            statistics and states of seeds.
    """

    def run(*tensors: Tensor) -> Any:
        found = [tf.identity(v.value) for v in states]
        runs: list[bool] = []

        def once(*tensors: Tensor) -> Any:
            if not runs:
                runs.append(True)
                return call(*tensors)
            # Not those of the first run: another layer may have moved what it shares.
            now = [tf.identity(v.value) for v in states]
            for variable, value in zip(states, found, strict=True):
                variable.assign(value)
            result = call(*tensors)
            for variable, value in zip(states, now, strict=True):
                variable.assign(value)
            return result

        return keras.remat(once)(*tensors)

    return run


class Remat:
    """Runs a stage's blocks so that the backward pass makes their activations anew.

    The last blocks are run once: their activations are asked for at once. Of a stage that is a
    part of a user's model each unit is a block.

    Args:
        length: int ≥ 1. Blocks between two tensors that are kept.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._pieces: dict[tuple[int, ...], tuple[Sequence[Any], list[Any]]] = {}

    def __call__(
        self, blocks: Sequence[Any], x: Tensor, reduction: str | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Give features and energies, as `run_blocks` does."""
        blocks, energies = self._in_pieces(blocks), list[Tensor]()
        last = len(blocks) - self.length
        for start in range(0, len(blocks), self.length):
            segment = blocks[start : start + self.length]
            # What has no gradient, as token ids, cannot be what a second run waits for.
            plain = start >= last or not keras.backend.is_float_dtype(x.dtype.name)
            run = run_blocks if plain else _run_segment
            x, found = run(segment, x, reduction)
            energies += found
        return x, energies

    def _in_pieces(self, blocks: Sequence[Any]) -> list[Any]:
        """Give blocks with parts in pieces, made once: steps that are not traced come again."""
        place = tuple(map(id, blocks))
        if place not in self._pieces:
            # The blocks are held too, so that their identity is nobody else's.
            self._pieces[place] = (list(blocks), pieces_of(blocks))
        return self._pieces[place][1]


def _run_segment(
    blocks: Sequence[Any], x: Tensor, reduction: str | None
) -> tuple[Tensor, list[Tensor]]:
    """Run some blocks so that only their input is kept."""
    mask, type_, masks = mask_of(x), x.dtype, list[bool]()

    def run(x: Tensor) -> tuple[Tensor, ...]:
        before = [len(block.losses) for block in blocks]
        features, energies = run_blocks(blocks, x, reduction)
        _check_losses(blocks, before)
        left = mask_of(features)
        masks.append(left is not None)
        # A mask is an attribute of a tensor, which does not come out of what runs twice.
        return (features, *energies, *([] if left is None else [tf.cast(left, type_)]))

    segment = InTraining(run)
    states = {id(v): v for block in blocks for v in block.variables if not v.trainable}
    call = rematerialized(
        lambda x: segment(with_mask(x, mask), training=True), list(states.values())
    )
    features, *rest = call(tf.identity(x))
    if masks[0]:
        *rest, left = rest
        features = with_mask(features, tf.cast(left, tf.bool))
    return features, rest


def _check_losses(blocks: Sequence[Any], before: Sequence[int]) -> None:
    """Raise if a block's call added a loss, which would get no gradient.

    Raises:
        ValueError: one did.
    """
    for block, count in zip(blocks, before, strict=True):
        if len(block.losses) > count:
            raise ValueError(
                "With `remat` a loss that a layer adds when it is called gets no gradient. "
                f"Received: block {block.name}, which adds one. Leave `remat` out, or take the "
                "loss into the method's `stage_losses`."
            )


def segment_length(remat: Any) -> int | None:
    """Give the blocks between two tensors that are kept, or `None` for no remat.

    Args:
        remat: what `compile` got: bool, or a number of blocks.

    Raises:
        TypeError: it is neither.
        ValueError: it is below 1.
    """
    if isinstance(remat, bool):
        return 1 if remat else None
    hint = "`True` keeps every block's input, 2 every second one's, `False` everything."
    check_integer("remat", remat, 1, hint)
    return int(remat)


def tell_of_no_use(length: int, sizes: Sequence[int]) -> None:
    """Warn where no stage has blocks that are made anew.

    Args:
        length: blocks between two tensors that are kept.
        sizes: list of K ints, blocks per stage.
    """
    if max(sizes) <= length:
        warnings.warn(
            "`remat` makes a stage's blocks anew, but for the last of them. Received: "
            f"remat={length} with at most {max(sizes)} blocks in a stage, where it saves nothing. "
            "Take fewer stages, or leave it out. A block of a model that was cut is a unit.",
            stacklevel=6,
        )
