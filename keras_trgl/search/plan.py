"""From a budget of bytes to stages, remat and parts of a batch."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_integer
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.html_table import InNotebooks, Table
from keras_trgl.methods.by_name import get_method
from keras_trgl.plot.memory import memory
from keras_trgl.recording import shown
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.regimes.by_name import get_regime
from keras_trgl.regimes.in_turn import InTurn
from keras_trgl.registration import public
from keras_trgl.splitting.network_bytes import NetworkBytes, WayToTrain
from keras_trgl.splitting.partition import min_max_partition
from keras_trgl.splitting.stage_bytes import check_layers, data_shape
from keras_trgl.splitting.units import units_of
from keras_trgl.types import Shape

MAKES = ("regime", "seed", "name")
"""What `make` gives to the model; all else is `compile`'s."""

WORK_OF_STAGE, WORK_OF_HALVING, WORK_OF_REMAT = 0.01, 0.05, 1 / 3
"""More time of a step, as shares: for a head, for parts half as large, for a second run."""


WEIGHED = ("stages", "parts", "remat", "MiB", "work", "fits")
"""What the table tells of each way that was weighed."""


@dataclasses.dataclass(frozen=True)
class Weighed:
    """A way to train that was weighed, with its predicted bytes and more work, as a share."""

    stage_sizes: tuple[int, ...]
    remat: bool
    micro_batches: int
    predicted_bytes: int
    work: float


@public
@dataclasses.dataclass(frozen=True, repr=False)
class Plan(InNotebooks):
    """How a network is trained within a budget of bytes.

    Args:
        stage_sizes: tuple of K ints, blocks per stage.
        remat: bool. Whether a stage keeps its blocks' inputs alone.
        micro_batches: int ≥ 1. Parts of a batch.
        predicted_bytes: int, bytes at the worst moment of training.
        batch_size: int ≥ 1, examples.
        max_bytes: int, bytes: the budget.
        weighed: tuple of all ways that were weighed, least work first.
        recipe: function of the settings of `make` that gives the model.

    Example:
        >>> import keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(16, 16, 3))
        >>> head = trgl.heads.LinearHead(10)
        >>> found = trgl.plan(blocks, 32, 2**24, head=head, optimizer="sgd", verbose=0)
        >>> found.stage_sizes, found.remat, found.micro_batches
        ((3,), False, 1)
    """

    stage_sizes: tuple[int, ...]
    remat: bool
    micro_batches: int
    predicted_bytes: int
    batch_size: int
    max_bytes: int
    weighed: tuple[Weighed, ...] = dataclasses.field(compare=False)
    recipe: Callable[..., GreedyModel] = dataclasses.field(compare=False)

    def __repr__(self) -> str:
        return shown(
            self,
            stage_sizes=self.stage_sizes,
            remat=self.remat,
            micro_batches=self.micro_batches,
            predicted=f"{self.predicted_bytes / 2**20:.1f} of {self.max_bytes / 2**20:.1f} MiB",
        )

    @property
    def table(self) -> str:
        """What was weighed, a row per way, as text."""
        widths = (6, 5, 5, 9, 5, 0)
        return "\n".join(
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
            for row in (WEIGHED, *self._cells())
        )

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                *(str(len(one.stage_sizes)), str(one.micro_batches), str(one.remat)),
                *(f"{one.predicted_bytes / 2**20:.1f}", f"{1 + one.work:.2f}"),
                "yes" if one.predicted_bytes <= self.max_bytes else "no",
            )
            for one in self.weighed
        ]

    def _as_table(self) -> Table:
        notes = "The first that fits is the plan: least work comes first."
        return Table(repr(self), WEIGHED, self._cells(), notes)

    def make(self, loss: Any = None, **kwargs: Any) -> GreedyModel:
        """Make the model, compiled with the plan's optimizer, parts and remat.

        Args:
            loss: as in `compile`. Defaults to `None`.
            **kwargs: `regime`, `seed`, `name` of the model; all else as in `compile`.

        Returns:
            `GreedyModel`.
        """
        return self.recipe(self, loss, kwargs)

    def plot(self, path: Any = None, subject: str | None = None) -> Any:
        """Draw predicted bytes over work, with the line of the budget; see `plot.memory`.

        Args:
            path: str or path of the picture; its ending says the format. `None` writes none.
                Defaults to `None`.
            subject: str. Data set and model for the title. Defaults to `None`.

        Returns:
            `matplotlib.figure.Figure`.

        Raises:
            ImportError: matplotlib, the extra `[plot]`, is missing.
        """
        return memory(self, subject=subject, path=path)


@public
def plan(
    model_or_blocks: Any,
    batch_size: int,
    max_bytes: int,
    head: Any = None,
    optimizer: Any = "rmsprop",
    method: Any = "trgl",
    regime: Any = "parallel",
    input_shape: Shape | None = None,
    verbose: Any = "auto",
) -> Plan:
    """Find how to train a network within a budget of bytes, with the least more work.

    Stages cost a head each, parts of a batch a little, and remat a forward pass more. Bytes are
    counted, on one device, from the traced passes of every kind of block, head and net of the
    method: weights, gradients, slots of the optimizer, the batch, what crosses a cut, what the
    method keeps of earlier batches, and the worst moment of the worst stage. They are those of
    TensorFlow's allocator on a CPU, with what it takes more than tensors have as that was measured:
    `benchmarks/plan` has the peaks that `measure_peak` shows beside them. Arrays of data that the
    caller holds come on top.

    Args:
        model_or_blocks: list of layers, built or not, or a `keras.Model` that `from_model` takes,
            whose units are its blocks.
        batch_size: int ≥ 1, examples.
        max_bytes: int ≥ 1, bytes.
        head: unbuilt layer that every stage gets a copy of. Must be given. Defaults to `None`.
        optimizer: str or Keras optimizer, as in `compile`. Defaults to `"rmsprop"`.
        method: `Method` or its name. Defaults to `"trgl"`.
        regime: `Regime` or its name; stores of `Buffered` count. Defaults to `"parallel"`.
        input_shape: tuple without the batch axis. `None` asks the first block. Defaults to
            `None`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        `Plan`.

    Raises:
        TypeError: a block or the head is no Keras layer, a number no integer.
        ValueError: no way takes so few bytes; there is no head; the shape is not known.

    Example:
        >>> import keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(16, 16, 3))
        >>> found = trgl.plan(blocks, 32, 8 * 2**20, trgl.heads.LinearHead(10), verbose=0)
        >>> found.predicted_bytes <= 8 * 2**20, sum(found.stage_sizes)
        (True, 3)
        >>> model = found.make("mse", seed=0)
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("max_bytes", max_bytes, 1, "Give bytes: 2 * 2**30 are 2 GiB.")
    units = units_of(model_or_blocks, "model_or_blocks")
    if not len(units):
        raise ValueError("A plan needs blocks. Received: model_or_blocks=[].")
    blocks, dtype = units.layers, units.dtype
    shape = data_shape(blocks[0], units.shape if input_shape is None else input_shape)
    if head is None:
        raise ValueError(
            "Every stage needs a head. Received: head=None. Give a recipe, such as "
            "`head=keras_trgl.heads.LinearHead(units=10)`."
        )
    check_layers(blocks, head)
    method, regime = get_method(method), get_regime(regime)
    optimizer = keras.optimizers.get(optimizer)
    reduction = _reduction(method)
    counted = NetworkBytes(
        *(blocks, head, shape, batch_size, optimizer, reduction, dtype),
        in_turn=isinstance(regime, InTurn),
        verbose=verbose,
        method=method,
    )
    stored = regime.capacity if isinstance(regime, Buffered) else 0
    is_model = units.is_model
    weighed = sorted(_weigh(counted, len(blocks), stored, (None, 1)), key=lambda one: one.work)
    best = next((one for one in weighed if one.predicted_bytes <= max_bytes), None)
    if best is None:
        raise ValueError(_refusal(counted, blocks, weighed, max_bytes))

    def recipe(plan: Plan, loss: Any, settings: dict[str, Any]) -> GreedyModel:
        own = {"method": method, "regime": regime}
        own.update({name: settings.pop(name) for name in MAKES if name in settings})
        make = GreedyModel.from_model if is_model else GreedyModel.from_blocks
        given: Any = model_or_blocks if is_model else blocks
        model = make(given, list(plan.stage_sizes), head, **own)
        model.build((None, *shape))
        options = {"optimizer": optimizer, "micro_batches": plan.micro_batches}
        model.compile(**{**options, "remat": plan.remat, "loss": loss, **settings})
        return model

    return Plan(
        best.stage_sizes,
        best.remat,
        best.micro_batches,
        best.predicted_bytes,
        int(batch_size),
        int(max_bytes),
        tuple(weighed),
        recipe,
    )


def _reduction(method: Any) -> str | None:
    """Give how the method finds an energy, or `None` where it finds none."""
    return getattr(method, "reduction", None) or method.needs_energy


def _weigh(
    counted: NetworkBytes, num_blocks: int, stored: int, lengths: Sequence[int | None]
) -> list[Weighed]:
    """Weigh ways to train: numbers of stages, parts, remat or none."""
    found = []
    parts = [2**power for power in range(8) if 2**power <= counted.batch_size]
    for remat in lengths:
        for micro_batches in parts:
            costs: dict[tuple[int, int], int] = {}

            def cost(start: int, end: int, m: int = micro_batches, length: Any = remat) -> int:
                if (start, end) not in costs:  # noqa: B023
                    costs[start, end] = counted.stage(start, end, m, length)  # noqa: B023
                return costs[start, end]  # noqa: B023

            for num_stages in _numbers_of_stages(num_blocks):
                sizes = tuple(min_max_partition(num_blocks, num_stages, cost))
                if remat is not None and max(sizes) == 1:
                    continue  # A stage of one block has nothing to make again.
                way = WayToTrain(sizes, micro_batches, remat)
                work = WORK_OF_STAGE * (num_stages - 1)
                work += WORK_OF_HALVING * math.log2(micro_batches)
                work += 0.0 if remat is None else WORK_OF_REMAT * (1 - num_stages / num_blocks)
                total = counted.total(way, stored)
                found.append(Weighed(sizes, remat is not None, micro_batches, total, work))
    return found


def _numbers_of_stages(num_blocks: int) -> list[int]:
    """Give numbers of stages: all small ones, and fewer and fewer above."""
    numbers = {1, num_blocks}
    step = 1.0
    while step < num_blocks:
        numbers.add(math.ceil(step))
        step *= 1.4
    return sorted(numbers)


def _refusal(
    counted: NetworkBytes, blocks: Sequence[Any], weighed: Sequence[Weighed], max_bytes: int
) -> str:
    """Say the least that would do, and what sets it."""
    least = min(weighed, key=lambda one: one.predicted_bytes)
    way = WayToTrain(least.stage_sizes, least.micro_batches, 1 if least.remat else None)
    costs, standing = counted.stages(way), counted.standing(way)
    k = max(range(len(costs)), key=costs.__getitem__)
    start = sum(least.stage_sizes[:k])
    rows = -(-counted.batch_size // least.micro_batches)
    inside = range(start, start + least.stage_sizes[k])
    worst = max(inside, key=lambda place: counted.blocks[place].at(rows).backward)
    what = f"block {worst + 1}, {blocks[worst].name}, with {costs[k] / 2**20:.1f} MiB"
    if standing > costs[k]:
        what = f"weights, slots and the batch, with {standing / 2**20:.1f} MiB"
    mib = math.ceil(least.predicted_bytes / 2**20 * 10) / 10
    return (
        f"`max_bytes` must be at least {least.predicted_bytes:,} ({mib:.1f} MiB): "
        f"{len(least.stage_sizes)} stages, {least.micro_batches} micro-batches"
        f"{', remat' if least.remat else ''}. Received: max_bytes={max_bytes:,}. "
        f"What sets it is {what}. Take a smaller `batch_size` or smaller inputs."
    )
