"""PredSim: predict the labels, and match their similarity."""

from typing import Any

import keras
from keras import ops

from keras_trgl.losses.similarity_matching import SimilarityMatching
from keras_trgl.methods.method import LocalMethod, StageBatch
from keras_trgl.registration import public
from keras_trgl.types import StagePlace, Tensor


@public
class PredSim(LocalMethod):
    """Stage k minimises (1 − β)·task loss + β·similarity matching of its features and the labels.

    The features go through one 3×3 convolution (a dense layer, where they have no positions)
    without bias that keeps their channels, and then into `losses.SimilarityMatching`; sample
    weights weigh the task loss alone. Logged as `stage_k_similarity`, weighted by β.

    Args:
        beta: float, 0 to 1. Share of the similarity loss; `0.0` is `VanGL`. Defaults to `0.99`.
        plain_last: bool. Whether the last stage has the task loss alone, as Sedona's runs of this
            method have. Defaults to `False`.

    Raises:
        ValueError: `beta` is not 0 to 1.
        TypeError: `beta` is no number.

    Example:
        >>> from keras_trgl.methods import PredSim
        >>> PredSim(beta=0.5).get_config()
        {'beta': 0.5, 'plain_last': False}

    Reference:
        Nøkland and Eidnes, "Training Neural Networks with Local Error Signals", 2019, section 2.
    """

    def __init__(self, beta: float = 0.99, plain_last: bool = False) -> None:
        if isinstance(beta, bool) or not isinstance(beta, (int, float)):
            raise TypeError(f"`beta` must be a number, 0 to 1. Received: beta={beta!r}.")
        if not 0 <= beta <= 1:
            raise ValueError(
                f"`beta` must be 0 to 1, a share of the objective. Received: beta={beta}. "
                "For the task loss alone use `VanGL()`."
            )
        self.beta = float(beta)
        self.plain_last = bool(plain_last)
        self._matching = SimilarityMatching()

    def stage_layers(self, stage: StagePlace) -> dict[str, Any]:
        """Give the convolution that features go through; at β = 0 nothing is needed."""
        channels = stage.feature_shape[-1]
        if not self._matches(stage):
            return {}
        if len(stage.feature_shape) == 4:
            return {"similarity": keras.layers.Conv2D(channels, 3, padding="same", use_bias=False)}
        return {"similarity": keras.layers.Dense(channels, use_bias=False)}

    def stage_losses(self, step: StageBatch) -> dict[str, Tensor]:
        """Give the two terms, weighted."""
        if not self._matches(step.stage):
            return {"task": step.task_loss}
        labels, units = step.labels, step.prediction.shape[-1]
        if len(labels.shape) < 2 or labels.shape[-1] != units:
            labels = ops.one_hot(ops.reshape(labels, (-1,)), units)
        alike = self._matching(labels, step.layers["similarity"](step.features))
        return {"task": (1.0 - self.beta) * step.task_loss, "similarity": self.beta * alike}

    def _matches(self, stage: StagePlace) -> bool:
        return self.beta > 0 and not (self.plain_last and stage.is_last)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {"beta": self.beta, "plain_last": self.plain_last}
