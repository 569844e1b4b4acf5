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


def _run_segment(blocks: Sequence[Any], x: Any, reduction: str | None) -> tuple[Any, list[Tensor]]:
    """Run some blocks so that only what comes in is kept."""
    came, told = keras.tree.flatten(x), list[_Left]()
    floats = [place for place, one in enumerate(came) if _is_float(one)]

    def run(given: Any) -> tuple[Tensor, ...]:
        before = [len(block.losses) for block in blocks]
        features, energies = run_blocks(blocks, given, reduction)
        _check_losses(blocks, before)
        left = _Left(came)
        told.append(left)
        return left.apart(features, energies)

    segment = InTraining(run)
    states = {id(v): v for block in blocks for v in block.variables if not v.trainable}

    def call(*tensors: Tensor) -> Any:
        given = list(came)
        for place, one in zip(floats, tensors, strict=True):
            given[place] = with_mask(one, mask_of(came[place]))
        return segment(keras.tree.pack_sequence_as(x, given), training=True)

    again = rematerialized(call, list(states.values()))
    made = again(*(tf.identity(came[place]) for place in floats))
    return told[0].together(made)


class _Left:
    """What blocks give, so that it can leave what runs twice: numbers with a gradient, and first.

    Masks are attributes of tensors, which do not come out, and what has no gradient must not. No
    tensor is held that blocks made.

    Args:
        came: list of tensors that came in.
    """

    def __init__(self, came: Sequence[Tensor]) -> None:
        self._plain = {id(one): one for one in came if not _is_float(one)}
        self._kinds: list[Any] = []
        self._structure: Any = None
        self._masks: list[str] = []
        self._num_energies = 0

    def apart(self, features: Any, energies: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Give features, energies, and then what else must leave, as numbers.

        Args:
            features: tensor or structure of them.
            energies: list of tensors.
        """
        features, masks = apart(features)
        leaves = keras.tree.flatten(features)
        # What came in goes around; of all else its type is noted.
        self._kinds = [
            None if _is_float(leaf) else self._plain.get(id(leaf), leaf.dtype) for leaf in leaves
        ]
        self._structure = keras.tree.map_structure(lambda _: 0, features)
        self._masks, self._num_energies = list(masks), len(energies)
        floats = [leaf for leaf, kind in zip(leaves, self._kinds, strict=True) if kind is None]
        others = [
            leaf
            for leaf, kind in zip(leaves, self._kinds, strict=True)
            if isinstance(kind, tf.DType)
        ]
        return (*floats, *energies, *(tf.cast(x, tf.float64) for x in (*others, *masks.values())))

    def together(self, tensors: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        """Give features and energies.

        Args:
            tensors: list of tensors that `apart` gave, by now from outside.
        """
        count = sum(kind is None for kind in self._kinds)
        floats, left = iter(tensors[:count]), tensors[count:]
        energies, others = left[: self._num_energies], iter(left[self._num_energies :])

        def leaf(kind: Any) -> Any:
            if kind is None:
                return next(floats)
            return tf.cast(next(others), kind) if isinstance(kind, tf.DType) else kind

        features = keras.tree.pack_sequence_as(
            self._structure, [leaf(kind) for kind in self._kinds]
        )
        masks = {place: tf.cast(next(others), tf.bool) for place in self._masks}
        return together((features, masks)), list(energies)


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
