"""Learning rates of several optimizers that Keras and its callbacks see as one's."""

from collections.abc import Sequence
from typing import Any

import keras


def inside_loss_scale(optimizer: Any) -> Any:
    """Give the optimizer that a `LossScaleOptimizer` wraps, or the optimizer itself."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def plain_rate(optimizer: Any) -> float | None:
    """Give an optimizer's rate, or `None` where it is a schedule's."""
    rate = inside_loss_scale(optimizer).learning_rate
    return float(rate.numpy()) if isinstance(rate, keras.Variable) else None


def rate_of_all(optimizers: Sequence[Any]) -> Any:
    """Give the last stage's learning rate, whose assignments move every stage's.

    Args:
        optimizers: list of Keras optimizers.
    """
    rate = optimizers[-1].learning_rate
    if not isinstance(rate, keras.Variable):
        return rate  # A schedule's number of now.

    class RateOfAll(type(rate)):  # type: ignore[misc]
        """The last stage's variable, with the other stages' behind it."""

        def assign(self, value: Any) -> Any:
            for one in optimizers:
                one.learning_rate = value
            return rate.value

        def assign_add(self, value: Any) -> Any:
            for one in optimizers:
                one.learning_rate = one.learning_rate + value
            return rate.value

        def assign_sub(self, value: Any) -> Any:
            for one in optimizers:
                one.learning_rate = one.learning_rate - value
            return rate.value

    shown_as = object.__new__(RateOfAll)
    # It is that variable in all that is read of it.
    shown_as.__dict__ = rate.__dict__
    return shown_as
