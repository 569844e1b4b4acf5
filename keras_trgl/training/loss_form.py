"""Whether a loss takes what the heads give: logits or probabilities."""

import warnings
from collections.abc import Sequence
from typing import Any

from keras_trgl.network.head_end import end_of
from keras_trgl.network.top import PROBABILITIES
from keras_trgl.training.exit_settings import losses_of

TAKES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy")


def loss_name(loss: Any) -> Any:
    """Give the name of a loss that came as an object, a function or a name."""
    return getattr(loss, "name", None) or getattr(loss, "__name__", loss)


def check_loss_form(loss: Any, heads: Sequence[Any]) -> None:
    """Warn where a cross-entropy takes a head's logits for probabilities, or the reverse.

    Keras clips such numbers and trains on, badly and without a word.

    Args:
        loss: as in `compile`.
        heads: the heads as they were given. Only those whose last layer is known are judged.

    Raises:
        ValueError: a loss without a reduction.
    """
    losses = losses_of(loss, len(heads))
    if losses[0] is not losses[-1]:
        for one, head in zip(losses, heads, strict=True):
            check_loss_form(one, [head])
        return
    name = loss_name(loss)
    if getattr(loss, "reduction", "") in (None, "none"):
        raise ValueError(
            "A loss must give one number for a batch. Received: "
            f"{name} with reduction={loss.reduction!r}. Leave `reduction` out, or give "
            "'sum_over_batch_size', 'sum' or 'mean_with_sample_weight'."
        )
    if name not in TAKES:
        return
    from_logits = bool(getattr(loss, "from_logits", False))
    ends = [end_of(head) for head in heads]
    mixed = "linear" in ends and any(end in PROBABILITIES for end in ends)
    each = ", or a list of losses, one per exit" if mixed else ""
    if from_logits and any(end in PROBABILITIES for end in ends):
        warnings.warn(
            f"The loss takes logits, `from_logits=True`, and a head ends in "
            f"{next(end for end in ends if end in PROBABILITIES)}: it would be applied twice. "
            f"Leave the head's activation out, or give `from_logits=False`{each}.",
            stacklevel=4,
        )
    if not from_logits and "linear" in ends:
        words = "".join(part.capitalize() for part in str(name).split("_"))
        words = words.replace("Crossentropy", "Crossentropy(from_logits=True)")
        warnings.warn(
            f"The loss takes probabilities, and a head gives logits. Received: {name} without "
            f"`from_logits=True`. Give `keras.losses.{words}`{each}.",
            stacklevel=4,
        )
