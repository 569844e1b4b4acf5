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
from keras_trgl.network.passing import apart, together
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
        self, blocks: Sequence[Any], x: Any, reduction: str | None
    ) -> tuple[Any, list[Tensor]]:
        """Give features and energies, as `run_blocks` does."""
        blocks, energies = self.pieces(blocks), list[Tensor]()
        last = len(blocks) - self.length
        for start in range(0, len(blocks), self.length):
            segment = blocks[start : start + self.length]
            # What has no gradient, as token ids, cannot be what a second run waits for.
            plain = start >= last or not any(map(_is_float, keras.tree.flatten(x)))
            run = run_blocks if plain else _run_segment
            x, found = run(segment, x, reduction)
            energies += found
        return x, energies

    def pieces(self, blocks: Sequence[Any]) -> list[Any]:
        """Give blocks with parts of a model in pieces.

        They are made once: steps that are not traced come again and again.

        Args:
            blocks: list of layers.
        """
        place = tuple(map(id, blocks))
        if place not in self._pieces:
            # The blocks are held too, so that their identity is nobody else's.
            self._pieces[place] = (list(blocks), pieces_of(blocks))
        return self._pieces[place][1]


def _is_float(x: Any) -> bool:
    return bool(keras.backend.is_float_dtype(x.dtype.name))


def _run_segment(
    blocks: Sequence[Any], x: Any, reduction: str | None
) -> tuple[Any, list[Tensor]]:
    """Run some blocks so that only what comes in is kept."""
    came, told = keras.tree.flatten(x), list[_Left]()
    floats = [place for place, one in enumerate(came) if _is_float(one)]

    def run(given: Any) -> tuple[Tensor, ...]:
        before = [len(block.losses) for block in blocks]
        features, energies = run_blocks(blocks, given, reduction)
        _check_losses(blocks, before)
        left = _Left(features, came, len(energies))
        told.append(left)
        return (*left.floats, *energies, *left.others)

    segment = InTraining(run)
    states = {id(v): v for block in blocks for v in block.variables if not v.trainable}

    def call(*tensors: Tensor) -> Any:
        given = list(came)
        for place, one in zip(floats, tensors, strict=True):
            given[place] = with_mask(one, mask_of(came[place]))
        return segment(keras.tree.pack_sequence_as(x, given), training=True)

    again = rematerialized(call, list(states.values()))
    return told[0].together(again(*(tf.identity(came[place]) for place in floats)))


class _Left:
    """What blocks give, so that it can leave what runs twice, as numbers with a gradient first.

    Masks are attributes of tensors, which do not come out, and numbers without a gradient must not.

    Args:
        features: tensor or structure of them.
        came: list of tensors that came in.
        num_energies: int.
    """

    def __init__(self, features: Any, came: Sequence[Tensor], num_energies: int) -> None:
        features, masks = apart(features)
        leaves, self._num_energies = keras.tree.flatten(features), num_energies
        places = {id(one): one for one in came if not _is_float(one)}
        self._features, self._masks = features, list(masks)
        # What came in goes around.
        self._around = [places.get(id(leaf)) for leaf in leaves]
        self.floats = [leaf for leaf in leaves if _is_float(leaf)]
        rest = [
            leaf
            for leaf, one in zip(leaves, self._around, strict=True)
            if one is None and not _is_float(leaf)
        ]
        self._is_float = [_is_float(leaf) for leaf in leaves]
        self._types = [one.dtype for one in (*rest, *masks.values())]
        self.others = [tf.cast(one, tf.float64) for one in (*rest, *masks.values())]

    def together(self, tensors: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        """Give features and energies of what came out.

        Args:
            tensors: list of tensors, `floats`, energies and `others`.
        """
        floats, left = iter(tensors[: len(self.floats)]), tensors[len(self.floats) :]
        energies, left = left[: self._num_energies], left[self._num_energies :]
        rest = [tf.cast(one, type_) for one, type_ in zip(left, self._types, strict=True)]
        others = iter(rest)
        leaves = [
            next(floats) if is_float else next(others) if around is None else around
            for is_float, around in zip(self._is_float, self._around, strict=True)
        ]
        masks = dict(zip(self._masks, others, strict=True))
        return together((keras.tree.pack_sequence_as(self._features, leaves), masks)), list(energies)


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
