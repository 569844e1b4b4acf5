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


@keras.saving.register_keras_serializable("keras_trgl")
class MultipliedRate(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule's rate, times a factor.

    Args:
        schedule: Keras `LearningRateSchedule`.
        factor: float > 0.
    """

    def __init__(self, schedule: Any, factor: float) -> None:
        self.schedule, self.factor = schedule, factor

    def __call__(self, step: Any) -> Any:
        """Give the rate of a step."""
        return self.schedule(step) * self.factor

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MultipliedRate":
        """Make the schedule from `get_config`'s result."""
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["factor"])


def set_rate(optimizer: Any, rate: Any, factor: float = 1.0) -> None:
    """Set an optimizer's rate to a multiple of a number or of a schedule."""
    if factor != 1.0:
        is_schedule = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
        rate = MultipliedRate(rate, factor) if is_schedule else rate * factor
    optimizer.learning_rate = rate


def rate_of_all(optimizers: Sequence[Any], factors: Sequence[float]) -> Any:
    """Give the last stage's learning rate, whose assignments move every stage's.

    Args:
        optimizers: list of Keras optimizers.
        factors: list of floats, what each one's rate is a multiple of the last one's by.
    """
    rate = optimizers[-1].learning_rate
    if not isinstance(rate, keras.Variable):
        return rate  # A schedule's number of now.

    class RateOfAll(type(rate)):  # type: ignore[misc]
        """The last stage's variable, with the other stages' behind it."""

        def assign(self, value: Any) -> Any:
            for one, factor in zip(optimizers, factors, strict=True):
                set_rate(one, value, factor)
            return rate.value

        def assign_add(self, value: Any) -> Any:
            for one, factor in zip(optimizers, factors, strict=True):
                one.learning_rate = one.learning_rate + factor * value
            return rate.value

        def assign_sub(self, value: Any) -> Any:
            for one, factor in zip(optimizers, factors, strict=True):
                one.learning_rate = one.learning_rate - factor * value
            return rate.value

    shown_as = object.__new__(RateOfAll)
    # It is that variable in all that is read of it.
    shown_as.__dict__ = rate.__dict__
    return shown_as
