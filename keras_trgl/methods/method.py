"""What a stage learns from: the abstract method."""

from typing import Any

from keras_trgl.recording import Recorded
from keras_trgl.types import Tensor


class Method(Recorded):
    """Says how stages are trained. Members are `LocalMethod` and `EndToEnd`.

    Attributes:
        cuts_gradient: bool. Whether each stage trains by itself. `False` trains all stages as
            one, by the last head.
    """

    cuts_gradient = True

    def make_regularizer(self, stage: int, num_stages: int) -> Any:
        """Give the layer that adds the energy's loss to a stage, or `None`.

        Args:
            stage: int. Position of the stage, from 0.
            num_stages: int. Stages there are.
        """
        del stage, num_stages

    def objective(self, task_loss: Tensor, stage_losses: list[Tensor]) -> Tensor:
        """Give what a stage minimises.

        Args:
            task_loss: scalar tensor, the compiled loss of the stage's head.
            stage_losses: list of scalar tensors, all that the stage's and the head's layers
                added: energy, weight decay, a user's own.

        Returns:
            Scalar tensor.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """Make the method from `get_config`'s result."""
        return cls(**config)


class LocalMethod(Method):
    """Each stage minimises a loss of its own; a member may change `objective`."""

    def objective(self, task_loss: Tensor, stage_losses: list[Tensor]) -> Tensor:
        """Give the task loss plus all that the stage's layers added."""
        total = task_loss
        for loss in stage_losses:
            total = total + loss
        return total
