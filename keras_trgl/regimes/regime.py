"""When stages train: the abstract regime."""

import dataclasses
from typing import Any

from keras_trgl.recording import Settled


@dataclasses.dataclass(frozen=True)
class Visit:
    """A stretch of epochs in which the same stages step.

    Attributes:
        plan: positions, from 0, of the stages that step.
        lap: int ≥ 1. Which pass over all stages it belongs to.
        epochs: int ≥ 1. Epochs of the whole data.
    """

    plan: tuple[int, ...]
    lap: int
    epochs: int


class Regime(Settled):
    """Says which stages step, epoch by epoch. It never sees a tensor.

    Attributes:
        frozen: `"inference"` or `"train"`. Mode of the stages before the ones that step.
        cache: `FeatureCache` or `None`. Where the inputs of the stage in training are kept.
        stop: `StopStage` or `None`. When a visit ends before its epochs are over.
        idle_device: str or `None`. Where stages that do not step keep their variables.
    """

    frozen: str = "inference"
    cache: Any = None
    stop: Any = None
    idle_device: str | None = None

    def visits(self, num_stages: int) -> tuple[Visit, ...]:
        """Give the visits in order; none where every epoch is alike, however many there are.

        Args:
            num_stages: int ≥ 1. Stages there are.

        Returns:
            Tuple of `Visit`, whose epochs sum to those of the run.
        """
        del num_stages
        return ()

    def plan(self, num_stages: int, epoch: int = 0) -> tuple[int, ...]:
        """Give the positions, from 0, of the stages that step in an epoch, in order.

        Args:
            num_stages: int ≥ 1. Stages there are.
            epoch: int ≥ 0. Epoch of the whole run. Defaults to `0`.

        Returns:
            Tuple of ints, positions from 0.

        Raises:
            NotImplementedError: the visits are over, or there are none.
        """
        for visit in self.visits(num_stages):
            if epoch < visit.epochs:
                return visit.plan
            epoch -= visit.epochs
        raise NotImplementedError(
            "A regime has a `plan` for every epoch of its `visits`. Received: none for this one."
        )

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Regime":
        """Make the regime from `get_config`'s result."""
        return cls(**config)
