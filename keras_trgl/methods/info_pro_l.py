"""InfoProL: keep what rebuilds the stage's own input, and what tells the classes."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_trgl.methods.decoder import WIDTH, Decoder
from keras_trgl.methods.depth_weights import (
    as_weight,
    at_depth,
    check_rebuilds,
    check_something_left,
)
from keras_trgl.methods.method import LocalMethod, StageBatch
from keras_trgl.registration import public
from keras_trgl.types import StagePlace, Tensor

RANKS = {3: "(batch, tokens, channels)", 4: "(batch, height, width, channels)"}


@public
class InfoProL(LocalMethod):
    """Below the last stage k minimises λ1·reconstruction + λ2·task loss; the last, the task loss.

    For transformers: `InfoPro` whose decoder rebuilds what the stage got, the features x_{k−1} (at
    stage 1 the data), so that it stays on the grid of tokens. The reconstruction is the mean
    squared error over all numbers to the input, which gets no gradient. There is no public code:
    the decoder is InfoPro's two convolutions, heads are those that are given. Tokens
    `(batch, tokens, channels)` are taken as the square grid that they are, else as a row. Logged
    as `stage_k_reconstruction`, weighted.

    Args:
        reconstruction_weight: float ≥ 0 or pair of them. λ1 of all stages, or of stages 1 and
            K − 1, linear between; at 0 a stage has no decoder. Defaults to `1.0`.
        label_weight: float ≥ 0 or pair of them. λ2, likewise. Defaults to `1.0`.

    Raises:
        ValueError: a weight below 0, or both 0 at one end; at build, a stage whose input or
            features are neither images nor tokens of known size.
        TypeError: a weight is no number.

    Example:
        >>> from keras_trgl.methods import InfoProL
        >>> InfoProL(reconstruction_weight=0.5).get_config()
        {'reconstruction_weight': 0.5, 'label_weight': 1.0}

    Reference:
        Pathak et al., "Local Learning on Transformers via Feature Reconstruction", 2022, section 3.
    """

    def __init__(
        self,
        reconstruction_weight: float | Sequence[float] = 1.0,
        label_weight: float | Sequence[float] = 1.0,
    ) -> None:
        self.reconstruction_weight = as_weight("reconstruction_weight", reconstruction_weight)
        self.label_weight = as_weight("label_weight", label_weight)
        check_something_left(self.reconstruction_weight, self.label_weight)

    def stage_layers(self, stage: StagePlace) -> dict[str, Any]:
        """Give the decoder, where its weight is not zero."""
        if not self._rebuilds(stage):
            return {}
        check_rebuilds(self, stage, stage.input_shape, "inputs", RANKS)
        return {"decoder": Decoder(stage.input_shape[1:], WIDTH)}

    def stage_losses(self, step: StageBatch) -> dict[str, Tensor]:
        """Give the weighted terms."""
        stage = step.stage
        if stage.is_last:
            return {"task": step.task_loss}
        label = at_depth(self.label_weight, stage.depth, stage.num_stages)
        losses = {"task": label * step.task_loss}
        weight = self._rebuilds(stage)
        if weight:
            floatx = keras.config.floatx()
            rebuilt = step.layers["decoder"](step.features, training=step.training)
            wanted = ops.stop_gradient(ops.cast(step.inputs, floatx))
            error = ops.mean(ops.square(ops.cast(rebuilt, floatx) - wanted))
            losses["reconstruction"] = weight * error
        return losses

    def _rebuilds(self, stage: StagePlace) -> float:
        """Give the weight of the reconstruction, 0 for none."""
        if stage.is_last:
            return 0.0
        return at_depth(self.reconstruction_weight, stage.depth, stage.num_stages)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            "reconstruction_weight": self.reconstruction_weight,
            "label_weight": self.label_weight,
        }
