"""What Keras's callbacks watch, where it is one stage's; and the stages' rates in the logs."""

import re
from typing import Any

import keras

from keras_trgl.callbacks.in_turn import SETS_RATES

WATCHES = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.ModelCheckpoint,
)
LEAST_IS_BEST = ("loss", "objective", "energy", "kinetic_energy")


def direction(metric: Any) -> str | None:
    """Say what is best of a metric: `"max"`, `"min"`, or `None` where it does not tell.

    Keras keeps that in a private attribute, which only this function reads; a test sees that
    Keras's metrics have it.
    """
    return {"up": "max", "down": "min"}.get(getattr(metric, "_direction", None) or "")


def infer_modes(callbacks: list[Any], steps: list[Any]) -> None:
    """Set the mode of callbacks that watch one stage's number, where it is left to Keras.

    Keras looks for a metric of the whole name, `stage_k_` included, and raises for want of it.
    What is not known here stays as it is: the metrics may not be made yet.

    Args:
        callbacks: the user's callbacks.
        steps: the stages' steps, in order.
    """
    for one in callbacks:
        if not isinstance(one, WATCHES) or one.mode != "auto":
            continue
        named = re.fullmatch(r"(?:val_)?stage_(\d+)_(.+)", one.monitor or "")
        if named and 0 < int(named[1]) <= len(steps):
            one.mode = mode_of(steps[int(named[1]) - 1], named[2]) or "auto"
            # A restart compares what was given, before the metrics are there.
            one.mode_was_auto = True


def mode_of(step: Any, name: str) -> str | None:
    """Say what is best of an entry of one stage's logs, as `direction` does.

    Args:
        step: the stage's step.
        name: str. The entry, without `stage_k_`.
    """
    own = {metric.name: direction(metric) for metric in flat_metrics(step.exit)}
    least = name in LEAST_IS_BEST or name in step.loss_trackers
    return own.get(name) or ("min" if least else None)


def trained_depths(model: Any) -> set[int] | None:
    """Give the depths whose optimizer stepped, and those in training; `None` if none did.

    Args:
        model: `GreedyModel`, or another model, of which no depth is known.
    """
    run = getattr(model, "training_run", None)
    now = set() if run is None else {k + 1 for k in run.position.plan}
    optimizers = getattr(getattr(model, "optimizer", None), "optimizers", [])
    # With replicas a count is one of several, of which none is an int.
    counts = [int(keras.ops.convert_to_numpy(one.iterations)) for one in optimizers]
    stepped = {k for k, count in enumerate(counts, start=1) if count > 0}
    return stepped | now or None


def flat_metrics(exit_model: Any) -> list[Any]:
    """Give the compiled metrics of an exit one by one; a compiled group is one of Keras's."""
    found: list[Any] = []
    left = list(exit_model.metrics)
    while left:
        metric = left.pop(0)
        held = getattr(metric, "metrics", None)
        if isinstance(held, list):
            left.extend(held)
        else:
            found.append(metric)
    return found


def stage_rates(callbacks: list[Any], optimizers: Any, deepest: int) -> dict[str, float]:
    """Give the learning rates for the logs, where a callback of Keras logs rates.

    Args:
        callbacks: the user's callbacks.
        optimizers: list of the stages' optimizers.
        deepest: int. Position of the deepest stage in training, whose rate `learning_rate` is.

    Returns:
        dict of `learning_rate` and `learning_rate_stage_k` to floats; empty without such a
        callback.
    """
    if not any(isinstance(one, SETS_RATES) for one in callbacks):
        return {}
    rates = [float(keras.ops.convert_to_numpy(one.learning_rate)) for one in optimizers]
    named = {f"learning_rate_stage_{k}": rate for k, rate in enumerate(rates, start=1)}
    return {"learning_rate": rates[deepest], **named}
