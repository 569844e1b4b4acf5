"""What a head ends in, and so what its numbers are: logits or probabilities."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_trgl.heads.head import Head
from keras_trgl.network.part import Part
from keras_trgl.network.top import PROBABILITIES


def end_of(head: Any) -> str | None:
    """Give the name of the function that a head ends in, or `None` where it is not known."""
    if isinstance(head, Head) and type(head).__module__.startswith("keras_trgl."):
        return "linear"
    if isinstance(head, Part):
        return end_of(head.calls[-1].operation)
    if isinstance(head, keras.Sequential):
        return end_of(head.layers[-1]) if head.layers else None
    if isinstance(head, keras.layers.Softmax):
        return "softmax"
    kinds = (keras.layers.Dense, keras.layers.Activation)
    activation = getattr(head, "activation", None) if isinstance(head, kinds) else None
    return getattr(activation, "__name__", None)


def check_end(heads: Sequence[Any], predictions: str) -> None:
    """Raise where heads give probabilities and are said to give logits.

    Of one unit the numbers themselves do not tell.

    Args:
        heads: the heads.
        predictions: `"logits"` or another word.

    Raises:
        ValueError: they do.
    """
    ends = [end for end in map(end_of, heads) if end in PROBABILITIES]
    if ends and predictions == "logits":
        raise ValueError(
            f"Logits are numbers of any sign. Received: a head that ends in {ends[0]}. Pass "
            "`predictions='probabilities'`."
        )


def kind_of(head: Any, loss: Any, predictions: Any) -> str:
    """Give what a head's numbers are, as far as head, loss and numbers tell.

    Args:
        head: layer.
        loss: as in `compile`, or `None`.
        predictions: float array, `(examples, units)`.

    Returns:
        `"logits"` or `"probabilities"`.
    """
    end = end_of(head)
    if end in PROBABILITIES:
        return "probabilities"
    from_logits = getattr(loss, "from_logits", None)
    if end == "linear" or from_logits:
        return "logits"
    inside = bool((predictions >= 0).all() and (predictions <= 1).all())
    return "probabilities" if inside or from_logits is False else "logits"
