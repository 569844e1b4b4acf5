"""Weights that run linearly over depth, and what decoders may be asked to rebuild."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeAlias

from keras_trgl.methods.decoder import grids
from keras_trgl.types import StagePlace

Weight: TypeAlias = float | list[float]
"""A weight of all stages below the last, or those of stages 1 and K − 1."""


def ends(weight: Weight) -> list[float]:
    """Give the weights of stages 1 and K − 1."""
    return weight if isinstance(weight, list) else [weight, weight]


def as_weight(name: str, value: float | Sequence[float]) -> Weight:
    """Give a number, or the pair of those of stages 1 and K − 1.

    Raises:
        TypeError: it is neither.
        ValueError: a weight is below 0 or not finite.
    """
    pair: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value, value]
    hint = "Give one number, or two: of stage 1 and of stage K − 1."
    if len(pair) != 2 or any(isinstance(w, bool) or not isinstance(w, Real) for w in pair):
        raise TypeError(f"`{name}` must be a number or a pair. Received: {name}={value!r}. {hint}")
    if not all(0 <= float(w) < float("inf") for w in pair):
        raise ValueError(
            f"`{name}` must be at least 0 and finite. Received: {name}={value}. {hint}"
        )
    listed = [float(w) for w in pair]
    return listed if isinstance(value, (list, tuple)) else listed[0]


def check_something_left(first: Weight, second: Weight) -> None:
    """Raise if a stage would have nothing to learn: both weights 0 at one end.

    Raises:
        ValueError: they are.
    """
    for place, pair in zip(
        ("1", "K − 1"), zip(ends(first), ends(second), strict=True), strict=True
    ):
        if not any(pair):
            raise ValueError(
                "A stage needs something to learn, so `reconstruction_weight` and `label_weight` "
                f"cannot both be 0. Received: both 0 for stage {place}. Give one of them a value "
                "there."
            )


def at_depth(weight: Weight, depth: int, num_stages: int) -> float:
    """Give the weight of stage k, 1…K − 1: linear from the first to the last of a pair."""
    first, last = ends(weight)
    share = (depth - 1) / (num_stages - 2) if num_stages > 2 else 0.0
    return (1.0 - share) * first + share * last


def check_rebuilds(who: Any, stage: StagePlace, target: Any, what: str, ranks: Any) -> None:
    """Raise unless a decoder can be made from the stage's features to a target.

    Args:
        who: the method.
        stage: `StagePlace`, where the stage stands.
        target: tuple, shape of what is to be rebuilt, batch axis included.
        what: str. What that is.
        ranks: ranks that can be rebuilt, with the words for their axes.

    Raises:
        ValueError: another rank, or a size that is not known.
    """
    shapes = (tuple(target), tuple(stage.feature_shape))
    if len(target) in ranks and grids(*shapes) is not None:
        return
    raise ValueError(
        f"{type(who).__name__} rebuilds {what} {' or '.join(ranks.values())} of known size. "
        f"Received, at stage {stage.depth}: {what} {shapes[0]}, features {shapes[1]}. Build the "
        "model for whole sizes, tokens of an image without a class token; or give "
        "`reconstruction_weight=0`, which needs no decoder."
    )
