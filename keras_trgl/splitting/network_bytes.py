"""Bytes that training a network by stages takes at its worst moment, for any way to cut it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.layers.chain import main_shape, output_shape, passes_several
from keras_trgl.progress import Progress
from keras_trgl.splitting.kinds import kind_of
from keras_trgl.splitting.stage_bytes import beside
from keras_trgl.splitting.traced_bytes import BlockBytes, TracedBlock, tensor_bytes
from keras_trgl.types import Shape, StagePlace

UPDATE_SHARE, UPDATE_LARGEST = 1.7, 12
"""What updates make on their way: so much of the gradients, and at most so many largest weights."""

ROOM, SPREAD_ROOM, PARTS_ROOM = 1.031, 0.748, 0.024
"""What TensorFlow's allocator takes for tensors, as a share of their bytes; more for each unit of
`spread`; and more where a batch is trained in parts.

It gives a free piece whole where that is less than twice as large as asked for: so it takes more
where sizes differ. All of these are fitted to what was measured (`benchmarks/plan`). A plan
differs by up to 0.06 from one run to the next.
"""

CUT_ROOM = 0.069
"""The same where there are several stages at once, which leave pieces to each other."""

VARIABLES_ROOM, VARIABLES_IN_TURN_ROOM = 1.112, 1.143
"""The same of variables."""

ENDS_ROOM = 1.3
"""What is lost at the ends of the allocator's regions, as a share of `lost_at_ends`."""

SMALL, LARGE = 2**12, 2**16
"""Bytes under which tensors are too small to matter, and from which on one may have the end of a
region."""

FIRST_REGION = 2**20
"""Bytes of the allocator's first region; each new one is twice as large."""


@dataclasses.dataclass(frozen=True)
class WayToTrain:
    """How a network is trained within a budget.

    Attributes:
        stage_sizes: tuple of K ints, blocks per stage.
        micro_batches: int ≥ 1. Parts of a batch.
        remat: int ≥ 1, blocks between two tensors that are kept, or `None` for all.
    """

    stage_sizes: tuple[int, ...]
    micro_batches: int = 1
    remat: int | None = None


class NetworkBytes:
    """The bytes of every way to train a network on one device.

    Args:
        blocks: list of layers, built or not.
        head: unbuilt layer that every stage gets a copy of, or a list with one entry per block:
            what a stage that ends there has beside, a list of pairs (layer, shape of its input).
        shape: tuple, the data's shape without the batch axis.
        batch_size: int ≥ 1, examples.
        optimizer: Keras optimizer, or `None` for none.
        reduction: of the energy, or `None` where the method wants none.
        dtype: str. The data's type. Defaults to `"float32"`.
        in_turn: bool. Whether one stage trains at a time. Defaults to `False`.
        verbose: 0, 1, 2 or `"auto"`: whether progress is shown. Defaults to `0`.
        method: `LocalMethod` whose heads, nets and stores count, or `None`. Defaults to `None`.
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        head: Any,
        shape: Shape,
        batch_size: int,
        optimizer: Any,
        reduction: str | None,
        dtype: str = "float32",
        in_turn: bool = False,
        verbose: Any = 0,
        method: Any = None,
    ) -> None:
        self.batch_size = batch_size
        self._method = method
        self._spans_stages = method is not None and method.spans_stages
        self._in_turn = in_turn
        self.slots = slots_of(optimizer)
        self._kinds: dict[str, TracedBlock] = {}
        self._spreads: dict[int, float] = {}
        self.blocks: list[TracedBlock] = []
        self._head, self._given = head, list(blocks)
        self._beside: dict[tuple[Shape, int], list[TracedBlock]] = {}
        self.data = batch_size * math.prod(side or 1 for side in shape) * np.dtype(dtype).itemsize
        if passes_several(blocks[0]):
            given = keras.tree.flatten(blocks[0].given)
            sides = [[side or 1 for side in one.shape[1:]] for one in given]
            rows = [tensor_bytes(one, of.dtype) for one, of in zip(sides, given, strict=True)]
            self.data = batch_size * sum(rows)
        now: Any = (None, *shape)
        self._sides = [(now, dtype)]
        done = Progress(len(blocks), verbose, "kind")
        for place, block in enumerate(done.of(blocks)):
            self.blocks.append(self._traced(block, now, dtype, reduction, place > 0))
            now, dtype = shape_after(block, now), block.compute_dtype
            self._sides.append((tuple(now), dtype))
            self.beside(place, place + 1)

    def beside(self, start: int, end: int) -> list[TracedBlock]:
        """Give what a stage of blocks start to end − 1 has beside them: its head, and nets."""
        came, (left, dtype) = self._sides[start][0], self._sides[end]
        if (came, end) not in self._beside:
            if isinstance(self._head, list):
                own = self._head[end - 1]
            else:
                head, blocks = self._head, self._given
                # How many stages come before is not known while sizes are sought.
                depth, units = 2 if end == len(blocks) else 1, getattr(head, "units", None)
                data, later = self._sides[0][0], tuple(blocks[end:])
                place = StagePlace(depth, 2, data, came, left, units, later, end - 1)
                own = beside(self._method, place, head, blocks[:end])
            self._beside[came, end] = [self._traced(*one, dtype, None, True) for one in own]
        return self._beside[came, end]

    def _traced(self, layer: Any, shape: Shape, dtype: str, *options: Any) -> TracedBlock:
        key = kind_of(layer, shape, dtype, options)
        if key not in self._kinds:
            self._kinds[key] = TracedBlock(layer, shape, dtype, *options)
        return self._kinds[key]

    def total(self, way: WayToTrain, stored: int = 0) -> int:
        """Give the predicted peak of training this way, with what the allocator takes more.

        Args:
            way: how it is trained.
            stored: int ≥ 0, batches that wait at every cut. Defaults to `0`.
        """
        waiting = stored * sum(self.crossing(way))
        share = self._room(way)
        rows = -(-self.batch_size // way.micro_batches)
        tensors = max(
            share * stage + ENDS_ROOM * lost_at_ends(stage, self._sizes(*cut, rows))
            for stage, cut in zip(self.stages(way), self._trained_at_once(way), strict=True)
        )
        variables = VARIABLES_IN_TURN_ROOM if self._in_turn else VARIABLES_ROOM
        tensors = max(tensors, share * self.passing(way)) + waiting
        return int(variables * self.standing(way) + tensors)

    def _room(self, way: WayToTrain) -> float:
        """Give what the allocator takes for tensors, as a share of their bytes."""
        room = ROOM + SPREAD_ROOM * self.spread(-(-self.batch_size // way.micro_batches))
        if way.micro_batches > 1:
            room += PARTS_ROOM
        if len(way.stage_sizes) > 1 and not self._spans_stages and not self._in_turn:
            room += CUT_ROOM
        return room

    def _sizes(self, start: int, end: int, rows: int) -> list[int]:
        """Give the bytes of every tensor of a stage's passes."""
        own = [*self.blocks[start:end], *self.beside(start, end)]
        return [size for one in own for size in one.sizes_at(rows)]

    def spread(self, rows: int) -> float:
        """Give how much larger a piece is, in the mean, than what is put there; 0 for one size.

        Pieces have the sizes that were asked for before; one serves for what is more than half as
        large, and any of these is as likely as another.

        Args:
            rows: int ≥ 1, examples that are trained on at once.
        """
        if rows not in self._spreads:
            asked = np.sort([n for one in self.blocks for n in one.sizes_at(rows) if n >= SMALL])
            sums = np.concatenate([[0.0], np.cumsum(asked)])
            first, end = np.searchsorted(asked, asked), np.searchsorted(asked, 2 * asked)
            pieces = (sums[end] - sums[first]) / np.maximum(end - first, 1)
            self._spreads[rows] = float(pieces.sum() / max(sums[-1], 1)) - 1 if len(asked) else 0.0
        return self._spreads[rows]

    def _trained(self, way: WayToTrain) -> list[int]:
        """Give the bytes of the trained weights of every stage."""
        return [
            sum(one.trained for one in (*self.blocks[start:end], *self.beside(start, end)))
            for start, end in _cuts(way)
        ]

    def passing(self, way: WayToTrain) -> int:
        """Give what the whole batch takes on its way through the stages that do not train."""
        frozen = self.blocks[: -way.stage_sizes[-1]] if self._in_turn else []
        passes = (one.at(self.batch_size) for one in frozen)
        return max((one.input + one.passing for one in passes), default=0)

    def crossing(self, way: WayToTrain) -> list[int]:
        """Give the bytes of a batch at every cut."""
        ends = np.cumsum(way.stage_sizes)[:-1]
        return [self.blocks[end - 1].at(self.batch_size).output for end in ends]

    def standing(self, way: WayToTrain) -> int:
        """Give what is there all the time: weights, slots, the batch, and what is in flight."""
        own = self._own(way)
        held = sum(one.weights for one in own) + self.in_flight(way)
        return held + self.slots * sum(one.trained for one in own) + self.data

    def in_flight(self, way: WayToTrain) -> int:
        """Give what of earlier batches waits at the stages, as the method says."""
        if self._method is None:
            return 0
        crossing, trained, count = self.crossing(way), self._trained(way), len(way.stage_sizes)
        sides = zip([self.data, *crossing], [*crossing, 0], trained, strict=True)
        found = 0
        for depth, (came, left, weights) in enumerate(sides, start=1):
            waits = self._method.in_flight(StagePlace(depth, count, (), (), (), None, ()))
            found += waits.inputs * came + waits.features * left + waits.weights * weights
        return found

    def _own(self, way: WayToTrain) -> list[TracedBlock]:
        """Give the blocks, and what is beside them at the stages' ends."""
        cuts = _cuts(way)[-1 if self._spans_stages else 0 :]
        return [*self.blocks, *(one for cut in cuts for one in self.beside(*cut))]

    def _trained_at_once(self, way: WayToTrain) -> list[tuple[int, int]]:
        """Give for every stage the blocks that train with it, as positions."""
        whole = [(0, len(self.blocks))] * len(way.stage_sizes)
        return whole if self._spans_stages else _cuts(way)

    def stages(self, way: WayToTrain) -> list[int]:
        """Give what every stage takes beside, at its worst moment."""
        cuts = self._trained_at_once(way)
        return [self.stage(*cut, way.micro_batches, way.remat) for cut in cuts]

    def stage(self, start: int, end: int, micro_batches: int = 1, remat: int | None = None) -> int:
        """Give what a stage of blocks start to end − 1 takes beside what stands.

        Args:
            start: int ≥ 0. Position of the first block, from 0.
            end: int. Position after the last block.
            micro_batches: int ≥ 1. Parts of a batch. Defaults to `1`.
            remat: int ≥ 1 or `None`, blocks between two tensors that are kept. Defaults to `None`.
        """
        rows = -(-self.batch_size // micro_batches)
        parts = [one.at(rows) for one in self.blocks[start:end]]
        # Nobody takes the features of a stage that trains alone.
        hands_on = end < len(self.blocks) and not self._in_turn
        ends = self.beside(start, end)
        head = side_by_side([one.at(rows) for one in ends])
        whole = self._in_row(parts, remat, head, hands_on)
        gradients = whole.gradients
        own = [*self.blocks[start:end], *ends]
        largest = UPDATE_LARGEST * max(one.largest for one in own)
        update = gradients + min(int(UPDATE_SHARE * gradients), largest)
        share = self.batch_size / rows
        came = int(parts[0].input * share) if start else 0
        left = int(parts[-1].output * share) if hands_on else 0
        peak = max(whole.forward, whole.backward)
        if micro_batches > 1:
            # The sum of gradients, and the features of all parts; a part itself is no copy.
            peak += gradients + left
        return came + max(peak, left + update)

    @staticmethod
    def _in_row(
        parts: Sequence[BlockBytes], remat: int | None, head: list[BlockBytes], hands_on: bool
    ) -> BlockBytes:
        if remat is not None:
            last = max((len(parts) - 1) // remat * remat, 0)
            again = [made_again(parts[at : at + remat]) for at in range(0, last, remat)]
            # Each second run is waited for, and what is done by then is free.
            kept = [dataclasses.replace(one, stays=False) for one in parts[last:]]
            parts = [*again, *kept]
        return in_a_row([*parts, *head], held=parts[-1].output if hands_on and head else 0)


def _cuts(way: WayToTrain) -> list[tuple[int, int]]:
    """Give where stages begin and end, as positions of blocks."""
    ends = [int(end) for end in np.cumsum(way.stage_sizes)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def lost_at_ends(total: int, sizes: Sequence[int]) -> float:
    """Give what tensors of so many bytes together lose at the ends of the allocator's regions.

    A region is cut into pieces from its beginning. What is left of it goes whole to the last
    tensor, where it is less than twice as large: nothing of a power of two, up to a tensor's size
    of others. Regions double, so small networks lose more.

    Args:
        total: int ≥ 0, bytes that are there at once.
        sizes: list of ints, bytes of the tensors there are.
    """
    asked = np.sort([size for size in sizes if size >= LARGE]).astype("float64")
    if not len(asked):
        return 0.0
    held, lost, region = 0.0, 0.0, float(FIRST_REGION)
    before = np.cumsum(asked)
    while held < total:
        fit = int(np.searchsorted(asked, region, side="right"))
        # Most of the bytes must be of tensors that have room in it.
        if fit and before[fit - 1] > before[-1] / 2:
            end = float((asked[:fit] * np.mod(region, asked[:fit])).sum() / before[fit - 1])
            lost += end if held + region <= total else 0.0
            held += region - end
        region *= 2
    return lost


def shape_after(block: Any, shape: Shape) -> Shape:
    """Give the shape of the tensor that heads read after a block.

    Args:
        block: layer.
        shape: tuple, its input's shape, where that is one tensor.
    """
    declared = keras.tree.flatten(block.given) if passes_several(block) else []
    shapes: Any = tuple(tuple(one.shape) for one in declared) or shape
    return main_shape(output_shape(block, shapes))


def in_a_row(parts: Sequence[BlockBytes], held: int = 0) -> BlockBytes:
    """Give the bytes of blocks that follow each other.

    Args:
        parts: list of those of each.
        held: int. Bytes of the last but one's output, where it is asked for to the end.
            Defaults to `0`.
    """
    before, borders, forward, kept = list[int](), list[int](), 0, 0
    for place, part in enumerate(parts):
        # What lies between two blocks is counted with the second, whichever of them needs it.
        waits = place > 0 and (part.reads_input or parts[place - 1].reads_output)
        borders.append(part.input if waits else 0)
        kept += borders[-1]
        before.append(kept)
        passing = part.input if place and not waits else 0
        forward = max(forward, kept + passing + part.forward)
        kept += part.kept
    backward, stays = 0, 0
    for place in reversed(range(len(parts))):
        mine = parts[place]
        extra = held if place + 1 < len(parts) else 0
        # Its output is among what stays, unless it is the last.
        twice = mine.output if place + 1 < len(parts) and mine.reads_output else 0
        most = before[place] + mine.backward - twice
        backward = max(backward, most + stays + extra)
        # Either its weights' gradients are there by now, or what they are made of.
        stays += max(mine.gradients, mine.kept + borders[place] if mine.stays else 0)
    first, end = parts[0], parts[-1]
    return BlockBytes(
        kept=kept,
        input=first.input,
        reads_input=first.reads_input,
        output=end.output,
        reads_output=end.reads_output,
        forward=forward,
        backward=backward,
        gradients=sum(part.gradients for part in parts),
    )


def side_by_side(parts: Sequence[BlockBytes]) -> list[BlockBytes]:
    """Give the bytes of nets that take the same tensor, as a list of one block, or of none.

    Args:
        parts: list of those of each, in the order in which they run.
    """
    if len(parts) < 2:
        return list(parts)
    forward, backward, kept, stays = 0, 0, 0, 0
    before = list[int]()
    for part in parts:
        before.append(kept)
        forward = max(forward, kept + part.forward)
        kept += part.kept + part.output
    for part, held in zip(reversed(parts), reversed(before), strict=True):
        # A gradient for what they take waits for the next one's.
        waits = part.input if stays else 0
        backward = max(backward, held + part.backward + stays + waits)
        stays += max(part.gradients, part.kept if part.stays else 0)
    return [
        dataclasses.replace(
            parts[0],
            kept=kept,
            reads_input=any(part.reads_input for part in parts),
            forward=forward,
            backward=backward,
            gradients=sum(part.gradients for part in parts),
        )
    ]


def made_again(parts: Sequence[BlockBytes]) -> BlockBytes:
    """Give the bytes of blocks of which the input alone is kept."""
    row = in_a_row(parts)
    # The second run is on a copy of the input, while what arrives from above waits.
    second = max(row.forward + row.output, row.backward) + row.input
    return dataclasses.replace(
        row,
        kept=0,
        reads_input=True,
        reads_output=False,
        backward=second,
        stays=False,
    )


def slots_of(optimizer: Any) -> int:
    """Give how many numbers an optimizer keeps for every trained one; 0 for `None`."""
    if optimizer is None:
        return 0
    made = type(optimizer).from_config(optimizer.get_config())
    made.build([keras.Variable(np.zeros((3, 5), "float32"), name="probe")])
    return sum(tuple(one.shape) == (3, 5) for one in made.variables)
