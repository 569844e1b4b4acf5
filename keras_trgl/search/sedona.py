"""Where to cut, and which head to put there, by held-out loss."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.checks import (
    NO_BLOCKS,
    check_choice,
    check_integer,
    check_list,
    check_positive,
)
from keras_trgl.datasets.batch_stream import BatchStream
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.heads.sedona import SedonaHead
from keras_trgl.progress import Progress
from keras_trgl.registration import public
from keras_trgl.search.grouping import Grouping, Tried, copies, groupings, held_apart
from keras_trgl.search.relaxed import Budget, search_relaxed

DEPTHS = (1, 2, 3, 4)
COARSE_DEPTHS = (1, 4)


def check_budget(given: Any) -> None:
    """Raise unless counts are at least 1, rates above 0, and the held-out share within (0, 1).

    Raises:
        TypeError: a count is no integer.
        ValueError: a number is out of range.
    """
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        if field.name == "held_out":
            check_positive(field.name, value)
            if value >= 1:
                raise ValueError(f"`held_out` must be below 1. Received: held_out={value}.")
        elif field.type in (int, "int"):
            check_integer(field.name, value, 1)
        else:
            check_positive(field.name, value)


@public
@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving: all candidates train a little, the better half goes on.

    Round r = 0, 1, … trains each that is left `2**r * steps` steps more by `VanGL`, and keeps the
    half with the lower held-out loss of the last head, until one is left. Candidates stay in
    memory: weights and slots of as many networks.

    Args:
        steps: int ≥ 1, steps of the first round. Defaults to `200`.
        every: int ≥ 1. Blocks between two places where a cut is tried. Defaults to `1`.
        candidates: int ≥ 1. Number of groupings that are tried; of more, so many are drawn by the
            seed. Defaults to `16`.
        batch_size: int ≥ 1, examples. Defaults to `64`.
        learning_rate: float > 0, of SGD with momentum 0.9, per step. Defaults to `0.02`.
        held_out: float in (0, 1). Share of the data that judges. Defaults to `0.2`.

    Raises:
        TypeError: a count is no integer.
        ValueError: a number is out of range.

    Example:
        >>> from keras_trgl.search import Halving
        >>> Halving(steps=50).candidates
        16

    Reference:
        Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
        Optimization", 2016, algorithm 1.
    """

    steps: int = 200
    every: int = 1
    candidates: int = 16
    batch_size: int = 64
    learning_rate: float = 0.02
    held_out: float = 0.2

    def __post_init__(self) -> None:
        check_budget(self)


@public
@dataclasses.dataclass(frozen=True)
class Relaxed:
    """The relaxed bi-level search: weights of cuts and heads move down the held-out loss.

    Every boundary i has a = softmax(α_i), keep or cut, and b = softmax(β_i) over the heads. With
    J_U = L_U and J_i = a_keep J_(i+1) + a_cut L_i, L_i of the b-weighted sum of the heads'
    outputs, unit i trains by ∂J_i/∂θ_i, which is the published loss's gradient without the
    factors of the boundaries below it; heads train by ∂L_i. An outer step takes a snapshot, makes
    `inner_steps` SGD steps on training batches, and moves α, β by Adam (betas 0.5, 0.999) along
    the exact gradient of the last head's loss on a held-out batch, through all inner steps; the
    snapshot becomes where they ended. The published code takes the last training loss instead.
    Batch normalization takes batch statistics throughout.

    Args:
        outer_steps: int ≥ 1, steps of α and β. Published: 2,000. Defaults to `200`.
        inner_steps: int ≥ 1, SGD steps within each. Defaults to `5`.
        pretrain_steps: int ≥ 1, steps before, that snapshots are taken from. Published: 40,000.
            Defaults to `200`.
        snapshots: int ≥ 1, number of them. Published: 50. Defaults to `8`.
        batch_size: int ≥ 1, examples. Defaults to `64`.
        learning_rate: float > 0, of inner SGD, per step. Defaults to `0.02`.
        search_rate: float > 0, of Adam, per outer step. Defaults to `0.01`.
        held_out: float in (0, 1). Share of the data that judges. Defaults to `0.4`.

    Raises:
        TypeError: a count is no integer.
        ValueError: a number is out of range.

    Example:
        >>> from keras_trgl.search import Relaxed
        >>> Relaxed(outer_steps=50).inner_steps
        5

    Reference:
        Pyeon et al., "SEDONA: Search for Decoupled Neural Networks", ICLR 2021, section 3.
    """

    outer_steps: int = 200
    inner_steps: int = 5
    pretrain_steps: int = 200
    snapshots: int = 8
    batch_size: int = 64
    learning_rate: float = 0.02
    search_rate: float = 0.01
    held_out: float = 0.4

    def __post_init__(self) -> None:
        check_budget(self)


STRATEGIES = {"halving": Halving, "relaxed": Relaxed}


@public
def sedona(
    blocks: Sequence[Any],
    x: Any,
    y: Any,
    num_stages: int,
    head: Any,
    heads: Sequence[Any] | None = None,
    strategy: Any = "halving",
    seed: int = 0,
    verbose: int = 1,
) -> Grouping:
    """Find where to cut a network, and which head to put at each cut, by held-out loss.

    Parts of the data train the candidates, others judge them; keep the test part out of `x`. The
    same seed gives the same grouping.

    Args:
        blocks: list of unbuilt layers, as `architectures` make them; copies of them train.
        x: array `(examples, …)`, or a nested structure of such.
        y: int array `(examples,)`: classes.
        num_stages: int ≥ 2, K.
        head: unbuilt layer, the last stage's, from features to logits.
        heads: list of unbuilt layers to choose from at each cut. `None` is `SedonaHead` with the
            `units` of `head`, 128 channels wide, of depth 1 to 4, for halving 1 and 4. Defaults to
            `None`.
        strategy: `Halving`, `Relaxed`, or `"halving"`, `"relaxed"`. Defaults to `"halving"`.
        seed: int ≥ 0. Of weights, order, held-out data and candidates. Defaults to `0`.
        verbose: int ≥ 0. 0 shows no progress. Defaults to `1`.

    Returns:
        `Grouping`.

    Raises:
        TypeError: blocks, heads or a number are of another kind.
        ValueError: more stages than blocks or than the grid has places for; labels that are no
            class indices, or that are not as many as examples; a head that gives no
            `(batch, units)`.

    Example:
        >>> import numpy as np, keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1))
        >>> found = trgl.search.sedona(
        ...     blocks, np.zeros((32, 8, 8, 1), "float32"), np.arange(32) % 2, num_stages=2,
        ...     head=trgl.heads.LinearHead(2), heads=[trgl.heads.LinearHead(2)],
        ...     strategy=trgl.search.Halving(steps=1, every=2), verbose=0)
        >>> found.stage_sizes, len(found.heads)
        ((2, 1), 2)

    Reference:
        Pyeon et al., "SEDONA: Search for Decoupled Neural Networks", ICLR 2021.
    """
    if isinstance(strategy, str):
        check_choice("strategy", strategy, tuple(STRATEGIES))
        strategy = STRATEGIES[strategy]()
    if not isinstance(strategy, (Halving, Relaxed)):
        raise TypeError(
            "`strategy` must be a `Halving` or a `Relaxed`, or the name of one. Received: "
            f"strategy={strategy!r}."
        )
    x, y = _check_data(blocks, x, y, num_stages, seed)
    if heads is None:
        heads = _published_heads(head, isinstance(strategy, Halving))
    check_list("heads", heads, "unbuilt layers", "Give `heads=None` for Sedona's own.")
    if not heads:
        raise ValueError("`heads` must hold at least one head. Received: none.")
    data = held_apart(x, y, strategy.held_out, seed)
    progress = bool(verbose)
    if isinstance(strategy, Halving):
        return _halve(blocks, head, heads, data, num_stages, strategy, seed, progress)
    names = [field.name for field in dataclasses.fields(Budget)]
    budget = Budget(**{name: getattr(strategy, name) for name in names})
    loss, strengths, picks = search_relaxed(blocks, head, heads, data, budget, seed, progress)
    # The K − 1 strongest; of equal ones the earlier.
    order = sorted(range(len(strengths)), key=lambda place: (-strengths[place], place))
    cuts = sorted(order[: num_stages - 1])
    sizes = tuple(int(one) for one in np.diff((0, *(cut + 1 for cut in cuts), len(blocks))))
    chosen = tuple(picks[cut] for cut in cuts)
    recipes = (*(heads[one] for one in chosen), head)
    return Grouping(sizes, chosen, loss, (), tuple(strengths), recipes)


def _check_data(blocks: Any, x: Any, y: Any, num_stages: int, seed: int) -> tuple[Any, Any]:
    """Give arrays, checked.

    Raises:
        TypeError: something of another kind.
        ValueError: numbers that do not fit.
    """
    check_list("blocks", blocks, "layers", NO_BLOCKS)
    check_integer("num_stages", num_stages, 2, "One stage has no cut to search for.")
    check_integer("seed", seed, 0)
    if num_stages > len(blocks):
        raise ValueError(
            f"`num_stages` must be at most the number of blocks, {len(blocks)}. Received: "
            f"num_stages={num_stages}."
        )
    x, y = np.asarray(x), np.asarray(y)
    if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != len(x):
        raise ValueError(
            "`y` must be class indices (examples,), as many as `x` has examples. Received: "
            f"y of shape {y.shape} and type {y.dtype}, {len(x)} examples. Of one-hot labels take "
            "`y.argmax(-1)`."
        )
    return x, y


def _published_heads(head: Any, coarse: bool) -> list[Any]:
    units = getattr(head, "units", None)
    if units is None:
        raise ValueError(
            "Sedona's heads have the `units` of `head`. Received: "
            f"{getattr(head, 'name', head)!r}, which has none. Give `heads`."
        )
    return [SedonaHead(units, depth, width=128) for depth in (COARSE_DEPTHS if coarse else DEPTHS)]


def _halve(
    blocks: Any,
    head: Any,
    heads: Any,
    data: Any,
    num_stages: int,
    budget: Halving,
    seed: int,
    progress: bool,
) -> Grouping:
    left = groupings(len(blocks), num_stages, len(heads), budget.every)
    if not left:
        raise ValueError(
            f"`every` must leave places for {num_stages - 1} cuts. Received: every={budget.every} "
            f"of {len(blocks)} blocks. Take a smaller one."
        )
    if len(left) > budget.candidates:
        drawn = np.random.default_rng(seed).permutation(len(left))[: budget.candidates]
        left = [left[place] for place in sorted(drawn)]
    rounds = max(1, math.ceil(math.log2(len(left))))
    total = sum(math.ceil(len(left) / 2**r) for r in range(rounds))
    count = Progress(total, int(progress), "training")
    x, y, held_x, held_y = data
    stream = BatchStream(x, y, batch_size=budget.batch_size, seed=seed)
    models: dict[Any, Any] = {}
    tried: list[Tried] = []
    for r in range(rounds):
        losses = {}
        for one in left:
            if one not in models:
                models[one] = _candidate(blocks, head, heads, one, budget.learning_rate, seed)
            # Epochs of `steps` batches: each round goes on in the order of the data.
            models[one].fit(
                stream,
                initial_epoch=2**r - 1,
                epochs=2 ** (r + 1) - 1,
                steps_per_epoch=budget.steps,
                verbose=0,
            )
            loss = models[one].evaluate(held_x, held_y, batch_size=256, verbose=0)
            losses[one] = loss if math.isfinite(loss) else math.inf
            sizes, chosen = one
            spent = (2 ** (r + 1) - 1) * budget.steps
            tried.append(Tried(sizes, chosen, spent, losses[one]))
            count()
        left = sorted(left, key=lambda one: losses[one])[: math.ceil(len(left) / 2)]
        models = {one: models[one] for one in left}
    sizes, chosen = left[0]
    recipes = (*(heads[one] for one in chosen), head)
    return Grouping(sizes, chosen, losses[left[0]], tuple(tried), (), recipes)


def _candidate(
    blocks: Any, head: Any, heads: Any, grouping: Any, rate: float, seed: int
) -> GreedyModel:
    sizes, chosen = grouping
    recipes = [*(heads[one] for one in chosen), head]
    model = GreedyModel.from_blocks(
        copies(blocks, "block"), list(sizes), copies(recipes, "head"), method="vangl", seed=seed
    )
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model
