"""How far every stage is from an optimal map between its two sides."""

from typing import Any

from keras_trgl.diagnostics.assigned import Costs, check_assignment, costs_by_depth, said
from keras_trgl.diagnostics.depth_table import DepthTable, column
from keras_trgl.diagnostics.seen import Seen, see
from keras_trgl.registration import public


@public
def monge_gap(
    model: Any,
    data: Any,
    cuts: Any = None,
    sample: int = 1000,
    dimensions: int = 32,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> DepthTable:
    """Give the transport cost of every stage less the least one between the same two clouds.

    The gap is mean |T_k(x) − x|² − W2² ≥ 0 with features made into points as `wasserstein` does;
    it is zero just where no other pairing of the points is cheaper, as for the gradient of a
    convex function. Of projected or averaged features it speaks of what is left of them.

    A few points cannot show every gap: a stage that moves them by less than the way to the next
    point pairs them best, whatever it does. So `spacing`, the mean squared distance of a point to
    its nearest other before the stage, stands beside `cost`. Where `cost` is below it, a small gap
    says nothing of the distribution; more rows or fewer `dimensions` bring points closer.

    Args:
        model: built `GreedyModel`, or a functional `keras.Model` with `cuts`.
        data: array `(examples, …)`, or a tuple `(x, y)` of arrays.
        cuts: list of depths 1…K, or of names of layers of a plain model, the first of which is
            compared with the data; `None` is every depth. Defaults to `None`.
        sample: int ≥ 2, rows at most; 5000 are the limit. Defaults to `1000`.
        dimensions: int in [1, 32]. Axes to project to. Defaults to `32`.
        seed: int ≥ 0. Seed of the rows. Defaults to `0`.
        batch_size: int ≥ 1, examples. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.

    Returns:
        `DepthTable` with `gap`, `cost`, `w2_squared` and `spacing`, in squared feature units, and
        `relative`, the gap over the cost, 0 to 1.

    Raises:
        ImportError: scipy, the extra `[analysis]`, is missing.
        ValueError: the model is not built, has no such depth, or gives numbers that are not
            finite; too many rows or dimensions.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> turn = keras.layers.Dense(2, use_bias=False)
        >>> turn.build((None, 2))
        >>> turn.set_weights([np.array([[0.0, 1.0], [-1.0, 0.0]])])
        >>> model = trgl.GreedyModel.from_blocks(
        ...     [turn], [1], trgl.heads.LinearHead(2), method="vangl", seed=0)
        >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
        >>> model.build(x.shape)
        >>> bool(trgl.diagnostics.monge_gap(model, x)["relative"][0] > 0.9)
        True

    Reference:
        Uscidda and Cuturi, "The Monge Gap: A Regularizer to Learn All Transport Maps", ICML
        2023, definition 3.1.
    """
    check_assignment(sample, dimensions)
    seen = see(model, data, ("origin", "vectors"), cuts, sample, seed, batch_size, verbose)
    return gaps(seen, costs_by_depth(seen, dimensions), dimensions)


def gaps(seen: Seen, costs: list[Costs | None], dimensions: int) -> DepthTable:
    """Give `monge_gap`'s table.

    Args:
        seen: what costs were found of.
        costs: of each depth.
        dimensions: int, axes of the points.
    """
    nothing = Costs(*[float("nan")] * 3)
    known = [nothing if one is None else one for one in costs]
    found = {
        "gap": column(one.pairs - one.best for one in known),
        "relative": column(
            0.0 if one.pairs == 0 else (one.pairs - one.best) / one.pairs for one in known
        ),
        "cost": column(one.pairs for one in known),
        "w2_squared": column(one.best for one in known),
        "spacing": column(one.spacing for one in known),
    }
    unit = "squared feature units"
    return DepthTable(
        "Monge gap by stage",
        seen.index,
        found,
        {name: "gap over cost, 0 to 1" if name == "relative" else unit for name in found},
        seen.about(features=said(dimensions)),
    )
