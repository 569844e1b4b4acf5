"""What a stage learns from: the seam that every method is written on.

A method is asked three things of each stage: which head it has, which nets of its own it needs, and
what it minimises. It is told the place (`StagePlace`) and, for the last question, one batch
(`StageBatch`); tapes, optimizers, devices and stores are not its business.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras_trgl.recording import Settled
from keras_trgl.types import StagePlace, Tensor


@dataclasses.dataclass(frozen=True)
class StageBatch:
    """One batch, as a stage's loss sees it; what a replica sees, where there are several.

    Attributes:
        stage: the stage's `StagePlace`.
        layers: dict of the method's own layers for this stage.
        inputs: tensor or structure of them, the stage's input, `(batch, …)`.
        features: tensor, the stage's output, `(batch, …)`.
        prediction: tensor, the head's output, `(batch, units)`; `None` where the stage has none.
        labels: targets as `fit` got them, `(batch, …)`.
        sample_weight: tensor `(batch,)` or `None`.
        task_loss: scalar tensor, the compiled loss of the head; with the multiplier scheme in its
            "loss" form, times λ. Zero where the stage predicts nothing.
        layer_losses: dict of scalar tensors that layers added: `"energy"`, the weighted energy,
            where the stage has one, and `"loss_1"`, `"loss_2"`, … for weight decay and users'
            own, in Keras's order.
        sent_data: the network's input where it was sent along, or `None`; read `data`.
        found_energy: the plain energy where it was found, or `None`; read `energy`.
        training: bool. Whether the stage trains. Defaults to `True`.
    """

    stage: StagePlace
    layers: Mapping[str, Any]
    inputs: Tensor
    features: Tensor
    prediction: Tensor
    labels: Any
    sample_weight: Any
    task_loss: Tensor
    layer_losses: Mapping[str, Tensor]
    sent_data: Any = None
    found_energy: Tensor | None = None
    training: bool = True

    @property
    def data(self) -> Any:
        """The network's input, the very batch (same augmented draw) that the features come from.

        Raises:
            ValueError: the method did not ask for it.
        """
        if self.sent_data is None:
            raise ValueError(
                f"Stage {self.stage.depth}: `step.data` is sent along only where a method asks. "
                "Received: a method without it. Set `needs_data = True` in its class."
            )
        return self.sent_data

    @property
    def energy(self) -> Tensor:
        """The plain energy of the stage's residual blocks; zero for a stage without any.

        Raises:
            ValueError: the method did not ask for it.
        """
        if self.found_energy is None:
            raise ValueError(
                f"Stage {self.stage.depth}: `step.energy` is found only where a method asks. "
                'Received: a method without it. Set `needs_energy = "mean"` (or "sum") in its '
                "class."
            )
        return self.found_energy


@dataclasses.dataclass(frozen=True)
class InFlight:
    """What of earlier batches waits at a stage through a step, for predictions of memory.

    Attributes:
        inputs: int ≥ 0, batches of what comes in.
        features: int ≥ 0, gradients for a batch of the stage's features.
        weights: int ≥ 0, gradients of the stage's weights.
    """

    inputs: int = 0
    features: int = 0
    weights: int = 0


class Method(Settled):
    """Says how stages are trained. Members are `LocalMethod` and `EndToEnd`.

    Attributes:
        cuts_gradient: bool. Whether each stage trains by itself. `False` trains all stages as
            one, by the last head.
    """

    cuts_gradient = True

    @property
    def spans_stages(self) -> bool:
        """Whether one pass goes through all stages, so that all activations are there at once.

        Predictions of memory ask.
        """
        return not self.cuts_gradient

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """Make the method from `get_config`'s result."""
        return cls(**config)


class LocalMethod(Method):
    """Each stage minimises a loss of its own; a member fills in what differs from the task loss.

    Attributes:
        needs_data: bool. Whether `step.data`, the network's input, is sent along with the
            features, through stores, caches and devices. Costs the data's bytes wherever features
            are kept.
        needs_energy: `None`, `"mean"` or `"sum"`. Whether residual blocks record their energy, and
            in which reduction (see `regularizers.kinetic_energy`); it is decided in the forward
            pass, so a loss cannot ask afterwards.
        adds_layer_losses: bool. Whether other losses that layers add (weight decay, users' own)
            are part of the objective, as in Keras.
        loss_names: sequence of str, the names that `stage_losses` gives beside `"task"` and
            `"energy"`, or `None` to have them found out by a symbolic run before training.
    """

    needs_data: bool = False
    needs_energy: str | None = None
    adds_layer_losses: bool = True
    loss_names: Sequence[str] | None = None

    def stage_head(self, stage: StagePlace, head: Any) -> Any:
        """Give the head that a stage uses.

        Args:
            stage: `StagePlace`, where the stage stands.
            head: layer, the head that was given.

        Returns:
            Layer, from features to prediction; the one that was given, or an unbuilt one. It is
            what `predict`, `truncate` and exports use.
        """
        del stage
        return head

    def stage_predicts(self, stage: StagePlace) -> bool:
        """Say whether a stage has a head that predicts what `fit` has labels for.

        Where it has none the stage trains by the method's own terms: there is no task loss and no
        metric at this depth, and whoever asks for its prediction gets a sentence. The last stage
        must predict.

        Args:
            stage: `StagePlace`, of which the depth and K alone are known here.

        Returns:
            bool. Defaults to `True`.
        """
        del stage
        return True

    def stage_layers(self, stage: StagePlace) -> Mapping[str, Any]:
        """Give the nets that a stage's loss needs beside its head.

        The stage's optimizer trains them; they live, are saved and freeze with the stage, and are
        in no prediction, truncated model or export.

        Args:
            stage: `StagePlace`, where the stage stands.

        Returns:
            dict of name to unbuilt layer, which is built for the stage's features; or to a pair
            (layer, shape), batch axis included, for one that takes something else.
        """
        del stage
        return {}

    def stage_regularizer(self, stage: StagePlace) -> Any:
        """Give the layer that adds the weighted energy to a stage's losses, or `None`.

        Args:
            stage: `StagePlace`, of which the depth and K alone are known here.

        Returns:
            Layer that takes the list of the blocks' energies, as `KineticEnergy`, or `None`.
        """
        del stage

    def in_flight(self, stage: StagePlace) -> InFlight:
        """Say what of earlier batches waits at a stage, for predictions of memory.

        Args:
            stage: `StagePlace`, of which the depth and K alone are known here.

        Returns:
            `InFlight`. Defaults to nothing.
        """
        del stage
        return InFlight()

    def stage_losses(self, step: StageBatch) -> dict[str, Tensor]:
        """Give the terms of what a stage minimises.

        Args:
            step: `StageBatch`, one batch.

        Returns:
            dict of name to scalar tensor; the stage's objective is their sum, plus what layers
            added by themselves. `"task"` and `"energy"` are logged as ever; every other name is
            logged as `stage_k_<name>`. `"loss"`, `"objective"` and the names of metrics are taken.
        """
        return {"task": step.task_loss}
