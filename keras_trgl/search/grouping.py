"""What a search for stages found: their sizes, the head at each cut, and what was weighed."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_trgl.datasets.image_data import stratified
from keras_trgl.html_table import InNotebooks, Table
from keras_trgl.layers.copying import copy_layer
from keras_trgl.recording import shown
from keras_trgl.registration import public

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Tried:
    """A grouping that was tried, after so many steps."""

    stage_sizes: tuple[int, ...]
    choices: tuple[int, ...]
    steps: int
    held_out_loss: float


@public
@dataclasses.dataclass(frozen=True, repr=False)
class Grouping(InNotebooks):
    """Stages that a search found, and the head at each cut.

    Args:
        stage_sizes: tuple of K ints, blocks per stage.
        choices: tuple of K − 1 ints: which of the heads each cut has, a position from 0.
        held_out_loss: float. Loss of the last head on held-out data at the end, in nats per
            example.
        tried: tuple of all groupings that were tried, in order; empty for the relaxed search.
        strengths: tuple of floats, one per boundary of two blocks, 0 to 1: how much the relaxed
            search wants a cut there; empty for halving.
        recipes: tuple of K unbuilt heads that `heads` copies.

    Example:
        >>> import keras_trgl as trgl
        >>> heads = (trgl.heads.LinearHead(3), trgl.heads.LinearHead(3))
        >>> trgl.search.Grouping((1, 2), (0,), 0.25, (), (), heads)
        Grouping(stage_sizes=(1, 2), choices=(0,), held_out_loss=0.25)
    """

    stage_sizes: tuple[int, ...]
    choices: tuple[int, ...]
    held_out_loss: float
    tried: tuple[Tried, ...] = dataclasses.field(compare=False)
    strengths: tuple[float, ...] = dataclasses.field(compare=False)
    recipes: tuple[Any, ...] = dataclasses.field(compare=False)

    def __repr__(self) -> str:
        return shown(
            self,
            stage_sizes=self.stage_sizes,
            choices=self.choices,
            held_out_loss=float(f"{self.held_out_loss:.4g}"),
        )

    @property
    def heads(self) -> list[Any]:
        """New unbuilt heads, one per stage, for `GreedyModel.from_blocks(blocks, sizes, heads)`."""
        return copies(self.recipes, "head")

    @property
    def table(self) -> str:
        """What was tried, a row each, as text."""
        lines = [f"{'steps':>6}  {'held-out loss':>13}  stages and heads"]
        lines += [
            f"{one.steps:>6}  {one.held_out_loss:>13.4f}  {one.stage_sizes} {one.choices}"
            for one in self.tried
        ]
        return "\n".join(lines)

    def _as_table(self) -> Table:
        found = zip(self.stage_sizes, (*self.choices, "the last"), strict=True)
        rows = [(k, *cells) for k, cells in enumerate(found, start=1)]
        return Table(
            repr(self), ("stage", "blocks", "head"), rows, self.table if self.tried else ""
        )


def copies(layers: Sequence[Any], what: str) -> list[Any]:
    """Give unbuilt copies of layers, each with a name of its own."""
    return [copy_layer(layer, f"{what}_{place}_{layer.name}") for place, layer in enumerate(layers)]


def held_apart(x: Any, y: Any, share: float, seed: int) -> tuple[Any, Any, Any, Any]:
    """Give arrays for training and held-out ones, the same share of every class."""
    held = stratified(y, share, seed)
    if not held.any():
        raise ValueError(
            "`held_out` must hold out at least one example of a class. Received: "
            f"held_out={share} of {len(y)} examples. Take a larger share, or more data."
        )
    return x[~held], y[~held], x[held], y[held]


def groupings(num_blocks: int, num_stages: int, choices: int, every: int) -> list[Any]:
    """Give all cuts on a grid, with all choices of heads.

    Args:
        num_blocks: int, U.
        num_stages: int, K.
        choices: int, heads to choose from.
        every: int ≥ 1, blocks between two places of the grid.

    Returns:
        List of pairs: sizes, choices.
    """
    places = range(every, num_blocks, every)
    found = []
    for cuts in itertools.combinations(places, num_stages - 1):
        sizes = tuple(int(one) for one in np.diff((0, *cuts, num_blocks)))
        found += [(sizes, one) for one in itertools.product(range(choices), repeat=len(cuts))]
    return found
