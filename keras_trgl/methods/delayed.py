"""Methods without heads below the last stage, by gradients from above, most of them late."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_trgl.methods.method import InFlight, LocalMethod
from keras_trgl.types import StagePlace


class FromAbove(NamedTuple):
    """What a stage below the last gets in the labels' place.

    Attributes:
        gradients: structure of the stage's features, each with its gradient of the last head's
            mean loss, as the stage above found it; `None` where it has none.
        labels: the batch's targets, where nothing is late, else `None`.
    """

    gradients: Any
    labels: Any = None


class DelayedMethod(LocalMethod):
    """All stages minimise the last head's loss, each by a gradient that is some steps old.

    A step of its own trains them, under `Parallel()`. What is in flight between stages belongs to
    a run: it crosses epochs, is in its backup, and is dropped at the end of `fit`. Until the first
    gradient has come down to it a stage makes no step: its optimizer counts none, and neither
    momentum nor weight decay act. What layers add by themselves, such as weight decay, is part of
    the objective, as in Keras.

    Attributes:
        replays: bool. Whether stages run forward once more, by what came in and the weights of
            now, when their gradient comes; else gradients of the batch's own weights are kept.
            Where no stage is late all run once more on the same batch, the last first.
    """

    loss_names: Sequence[str] | None = ()
    replays = False

    @property
    def spans_stages(self) -> bool:
        """Whether one pass goes through all stages: where none runs once more by itself."""
        return not self.replays

    def stage_predicts(self, stage: StagePlace) -> bool:
        """Say that the last stage alone has a head."""
        return stage.is_last

    def rate_factor(self, stage: StagePlace) -> float:
        """Give what a stage's learning rate is multiplied by.

        Args:
            stage: `StagePlace`, of which the depth and K count.

        Returns:
            float > 0. Defaults to `1.0`.
        """
        del stage
        return 1.0

    def staleness(self, stage: StagePlace) -> int:
        """Give the steps between a batch's way through a stage and the update by it, Δ_k = K − k.

        Args:
            stage: `StagePlace`, of which the depth and K count.

        Returns:
            int ≥ 0, steps; 0 for the last stage.
        """
        return stage.num_stages - stage.depth

    def in_flight(self, stage: StagePlace) -> InFlight:
        """Say that inputs wait, and gradients for features, or gradients of weights."""
        late = self.staleness(stage)
        if not self.replays:
            # With the one that is taken out, which is there beside the one that is put in.
            return InFlight(weights=late + int(late > 0))
        # Before the last stage trains those for the next step have come to all but the one below.
        return InFlight(inputs=late, features=min(late, 2))
