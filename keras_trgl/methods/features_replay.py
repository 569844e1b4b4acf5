"""Features Replay: late gradients, through the weights of now."""

from typing import Any

import keras
from keras import ops

from keras_trgl.methods.delayed import DelayedMethod
from keras_trgl.methods.method import StageBatch
from keras_trgl.registration import public
from keras_trgl.types import StagePlace, Tensor


@public
class FeaturesReplay(DelayedMethod):
    """Stage k replays the input of an old batch, and takes the gradient that has come down to it.

    With Δ_k = K − k, h_k^b the input of stage k on batch b, as the weights of step b made it, and
    δ_k^b the gradient for its output, which stage k + 1 found at the step before::

        b = t − Δ_k,    w_k^(t+1) = w_k^t − γ ∂⟨T_k(h_k^b; w_k), δ_k^b⟩/∂w_k (w_k^t),
        δ_(k−1)^b = ∂⟨T_k(h; w_k^t), δ_k^b⟩/∂h (h_k^b),    no step while b < 0.

    The last stage has Δ = 0 and trains as ever. A step runs stages k < K twice. The first pass
    hands on and moves statistics; the second has the batch's own dropout masks and moves nothing
    (the published code moves statistics in both). While a step runs, Δ_k + 1 inputs are kept at
    stage k, K(K+1)/2 together, and between steps one less at each; activations are those of one
    stage, of one batch. Logged as `stage_k_staleness`, for k < K.

    Args:
        doubles_first_rate: bool. Whether the first of several stages learns at twice the rate, as
            in the published code; a list of optimizers has its own rates. Defaults to `False`.

    Example:
        >>> from keras_trgl.methods import FeaturesReplay
        >>> FeaturesReplay(doubles_first_rate=True)
        FeaturesReplay(doubles_first_rate=True)

    Reference:
        Huo, Gu and Huang, "Training Neural Networks Using Features Replay", NeurIPS 2018,
        section 3, algorithm 1.
    """

    replays = True

    def __init__(self, doubles_first_rate: bool = False) -> None:
        self.doubles_first_rate = bool(doubles_first_rate)

    def rate_factor(self, stage: StagePlace) -> float:
        """Give 2 for the first of several stages, where that was asked for."""
        is_first = stage.depth == 1 and not stage.is_last
        return 2.0 if self.doubles_first_rate and is_first else 1.0

    def stage_losses(self, step: StageBatch) -> dict[str, Tensor]:
        """Give the task loss, or below the last stage ⟨features, δ⟩, with δ in the labels' place.

        Args:
            step: `StageBatch`. Where the stage is not the last `labels` is a `FromAbove`.
        """
        if step.stage.is_last:
            return {"task": step.task_loss}
        features, gradients = step.features, step.labels.gradients
        pairs = zip(keras.tree.flatten(features), keras.tree.flatten(gradients), strict=True)
        found = [ops.sum(ops.cast(h, d.dtype) * d) for h, d in pairs if d is not None]
        return {"task": sum(found[1:], found[0])}

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {"doubles_first_rate": self.doubles_first_rate}
