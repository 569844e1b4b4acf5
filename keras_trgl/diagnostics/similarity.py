"""How alike the features of two depths are, whatever way they are turned."""

import math
from typing import Any

import numpy as np

from keras_trgl.checks import check_integer
from keras_trgl.diagnostics.depth_table import DepthTable
from keras_trgl.diagnostics.sampled import draw
from keras_trgl.diagnostics.seen import Seen, see
from keras_trgl.diagnostics.views import view_of
from keras_trgl.progress import Progress
from keras_trgl.registration import public

LEAST = 4
"""Rows of a batch: the unbiased estimate divides by n − 3."""


@public
def similarity(
    model: Any,
    data: Any,
    other: Any = None,
    cuts: Any = None,
    other_cuts: Any = None,
    sample: int = 2000,
    seed: int = 0,
    batch_size: int = 256,
    verbose: Any = 0,
) -> DepthTable:
    """Give the linear CKA between all pairs of depths, of one model or of two.

    CKA(X, Y) = HSIC(X, Y)/√(HSIC(X, X)·HSIC(Y, Y)), each HSIC the mean over batches of its
    unbiased estimate with linear kernels. Features are flattened, not averaged. 1 is "alike but
    for a rotation and a scale"; unrelated features give about 0, maybe a little less.

    Args:
        model: built `GreedyModel`, or a functional `keras.Model` with `cuts`. Rows of the table.
        data: array `(examples, …)`, or a tuple `(x, y)` of arrays; both models take it.
        other: `keras.Model`, a second one: columns of the table. `None` compares the first with
            itself. Defaults to `None`.
        cuts: list of depths 1…K, or of names of layers of a plain model; `None` is every depth.
            Defaults to `None`.
        other_cuts: list likewise, of the second model. Defaults to `None`.
        sample: int ≥ 4. Rows at most; what batches of one size leave over is left out. Defaults
            to `2000`.
        seed: int ≥ 0. Seed of the rows. Defaults to `0`.
        batch_size: int ≥ 4, examples of which a kernel is made at most. Defaults to `256`.
        verbose: as in `predict`. Defaults to `0`.

    Returns:
        `DepthTable`, a matrix: a row per depth of the model, a column per depth of the other.

    Raises:
        ValueError: a model is not built, has no such depth, or gives numbers that are not finite;
            fewer than four rows; `other_cuts` without `other`.

    Example:
        >>> import keras, numpy as np, keras_trgl as trgl
        >>> blocks = [keras.layers.Dense(3, kernel_initializer="orthogonal") for _ in range(2)]
        >>> model = trgl.GreedyModel.from_blocks(
        ...     blocks, [1, 1], trgl.heads.LinearHead(2), method="vangl", seed=0)
        >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
        >>> model.build(x.shape)
        >>> found = trgl.diagnostics.similarity(model, x)
        >>> round(float(found["2"][0]), 4)  # Depth 1 against depth 2, a rotation of it.
        1.0

    Reference:
        Nguyen et al., "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021, equations 2
        and 3.
    """
    check_integer("batch_size", batch_size, LEAST, "The unbiased estimate divides by n − 3.")
    if other is None and other_cuts is not None:
        raise ValueError(
            "`other_cuts` are those of `other`. Received: "
            f"other_cuts={other_cuts!r} without it. Pass `other`, or `cuts`."
        )
    seen = see(model, data, (), cuts, sample, seed, batch_size, verbose)
    second = None
    if other is not None:
        drawn = draw(data, sample, seed, needs_labels=False)
        second = Seen(view_of(other, other_cuts), drawn, {}, batch_size, verbose)
        second.view.check(drawn.x[:1])
    return alike(seen, second)


def alike(seen: Seen, other: Seen | None = None) -> DepthTable:
    """Give `similarity`'s table.

    Args:
        seen: a sample.
        other: the same sample of another model, or `None`. Defaults to `None`.
    """
    rows = len(seen.sample.x)
    # Batches of one size, as unequal ones would weigh rows unequally: few rows are left out.
    batches = math.ceil(rows / seen.batch_size)
    size = rows // batches
    if size < LEAST:
        raise ValueError(
            f"Similarity takes {LEAST} rows at least. Received: {rows}. Take a larger `sample`."
        )
    second = seen if other is None else other
    sums = np.zeros((len(seen.depths), len(second.depths)))
    own, others = np.zeros(len(seen.depths)), np.zeros(len(second.depths))
    done = Progress(batches, 1 if seen.verbose else 0, "batch")
    for start in range(0, batches * size, size):
        left = _kernels(seen, slice(start, start + size))
        right = left if other is None else _kernels(other, slice(start, start + size))
        own += [hsic(one, one) for one in left]
        others += [hsic(one, one) for one in right]
        sums += [[hsic(one, two) for two in right] for one in left]
        done()
    scale = np.sqrt(np.maximum(np.outer(own, others), 0.0))
    values = np.divide(sums, scale, out=np.full_like(sums, math.nan), where=scale > 0)
    about = seen.about(
        features="flattened",
        estimate=f"linear CKA, unbiased, {batches} batch{'es' * (batches > 1)} of {size} rows",
    )
    if batches * size < rows:
        about["rows"] += f"; the last {rows - batches * size} left out, for batches of one size"
    about["axes"] = tuple(f"depth of {one.view.model.name}" for one in (seen, second))
    if other is not None:
        about["other"] = other.view.model.name
    return DepthTable(
        "similarity of features",
        seen.index,
        {str(name): tuple(map(float, values[:, i])) for i, name in enumerate(second.index)},
        {str(name): "linear CKA" for name in second.index},
        about,
        is_matrix=True,
    )


def hsic(one: Any, other: Any) -> float:
    """Give the unbiased estimate of HSIC from two kernels whose diagonals are 0.

    Args:
        one: float64 array, `(examples, examples)`.
        other: float64 array, likewise.
    """
    n = len(one)
    sums, others = one.sum(0), other.sum(0)
    # Song et al. 2012: tr(KL) + ΣK·ΣL/((n − 1)(n − 2)) − 2·1ᵀKL1/(n − 2), over n(n − 3).
    total = (one * other).sum() + sums.sum() * others.sum() / ((n - 1) * (n - 2))
    return float((total - 2.0 * (sums @ others) / (n - 2)) / (n * (n - 3)))


def _kernels(seen: Seen, rows: slice) -> list[Any]:
    """Give the linear kernels of every depth's features, with zeros on the diagonal."""
    kernels = []
    for given in seen.batch_of_features(rows).values():
        features = given.reshape(len(given), -1).astype(np.float64)
        kernel = features @ features.T
        np.fill_diagonal(kernel, 0.0)
        kernels.append(kernel)
    return kernels
