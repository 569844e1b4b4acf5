"""InfoPro: keep what rebuilds the image, and what tells the classes."""

import dataclasses
import functools
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.heads.infopro import InfoProHead
from keras_trgl.losses.supervised_contrastive import SupervisedContrastive
from keras_trgl.methods.decoder import WIDTH, Decoder
from keras_trgl.methods.depth_weights import (
    as_weight,
    at_depth,
    check_rebuilds,
    check_something_left,
    ends,
)
from keras_trgl.methods.head_choice import check_head, head_config, head_of, make_head
from keras_trgl.methods.method import LocalMethod, StageBatch
from keras_trgl.methods.unit_images import unit_images
from keras_trgl.registration import public
from keras_trgl.types import StagePlace, Tensor

IMAGES = {4: "(batch, height, width, channels)"}
VARIANTS = ("softmax", "contrast")
HEADS = {
    f"{c}c{f}f": functools.partial(InfoProHead, convolutions=c, dense=f)
    for c, f in ((0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (2, 2))
}


@public
class InfoPro(LocalMethod):
    """Below the last stage k minimises λ1·reconstruction + λ2·label loss; the last, the task loss.

    The reconstruction is the binary cross-entropy, mean over all numbers, of a small decoder's
    image and the batch's own, augmented one, mapped back to [0, 1] as `x * std + mean`. The label
    loss is the task loss of a head of the paper's (`"softmax"`), or supervised contrast of 128
    numbers in the head's place (`"contrast"`): then depths below the last predict nothing, have
    no metrics, and are refused in a sentence. Both weights run linearly over depth, from stage 1
    to stage K − 1. The last stage keeps the given head, whose `units` are those of the others.
    Pairs are compared within a batch, a replica's share of one, or a micro-batch; sample weights
    weigh the task loss alone. Logged as `stage_k_reconstruction` and `stage_k_contrast`, weighted.

    Args:
        variant: `"softmax"` or `"contrast"`. Defaults to `"softmax"`.
        reconstruction_weight: float ≥ 0 or pair of them. λ1 of stages 1 and K − 1; at 0 a stage
            has no decoder. Defaults to `1.0`.
        label_weight: float ≥ 0 or pair of them. λ2, likewise. Defaults to `1.0`.
        head: `"0c1f"`, `"0c2f"`, `"1c1f"`, `"1c2f"`, `"1c3f"` or `"2c2f"`, numbers of
            convolutions and dense layers of `heads.InfoProHead`; or an unbuilt layer, copied for
            every stage below the last. Defaults to `"1c2f"`.
        temperature: float > 0. Of the contrast. Defaults to `0.07`.
        embedding: int ≥ 1. Numbers that are contrasted. Defaults to `128`.
        mean: float or list of them, one per channel. What was taken off the images. Defaults to
            `0.0`.
        std: float > 0 or list of them, one per channel. What they were divided by. Defaults to
            `1.0`.

    Raises:
        ValueError: another word for `variant` or `head`; a weight below 0, or both 0 at one end;
            at build, data or features that are no images of known size while there is something
            to rebuild, `mean` or `std` for another number of channels, or a head that gives no
            `(batch, units)`; in training, images that lie outside 0 to 1 once `mean` and `std` are
            taken back.
        TypeError: a weight, `mean` or `std` is no number.

    Example:
        >>> from keras_trgl.methods import InfoPro
        >>> method = InfoPro("contrast", reconstruction_weight=(20, 5), label_weight=(0.2, 2))
        >>> [method.stage_weights(k, num_stages=4) for k in (1, 2, 3)]
        [(20.0, 0.2), (12.5, 1.1), (5.0, 2.0)]

    Reference:
        Wang et al., "Revisiting Locally Supervised Learning: an Alternative to End-to-end
        Training", ICLR 2021, equation 5.
    """

    always_shown = ("variant",)

    def __init__(
        self,
        variant: str = "softmax",
        reconstruction_weight: float | Sequence[float] = 1.0,
        label_weight: float | Sequence[float] = 1.0,
        head: Any = "1c2f",
        temperature: float = 0.07,
        embedding: int = 128,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        check_choice("variant", variant, VARIANTS)
        check_head(head, HEADS)
        check_integer("embedding", embedding, 1)
        self.variant = variant
        self.reconstruction_weight = as_weight("reconstruction_weight", reconstruction_weight)
        self.label_weight = as_weight("label_weight", label_weight)
        check_something_left(self.reconstruction_weight, self.label_weight)
        self.head = head
        self.temperature = temperature
        self.embedding = int(embedding)
        self.mean = _numbers("mean", mean)
        self.std = _numbers("std", std)
        if not np.all(np.asarray(self.std) > 0):
            raise ValueError(f"`std` must be above 0. Received: std={std}.")
        self.needs_data = any(ends(self.reconstruction_weight))
        self._contrast = SupervisedContrastive(temperature)

    def stage_weights(self, depth: int, num_stages: int) -> tuple[float, float]:
        """Give λ1 and λ2 of a stage below the last.

        Args:
            depth: int, k = 1…K − 1.
            num_stages: int ≥ 2, K.

        Returns:
            Tuple of two floats ≥ 0.
        """
        return (
            at_depth(self.reconstruction_weight, depth, num_stages),
            at_depth(self.label_weight, depth, num_stages),
        )

    def stage_predicts(self, stage: StagePlace) -> bool:
        """Say that contrast leaves a head to the last stage alone."""
        return stage.is_last or self.variant == "softmax"

    def stage_head(self, stage: StagePlace, head: Any) -> Any:
        """Give the paper's head below the last stage, and there the given one."""
        return head if stage.is_last else make_head(self.head, HEADS, stage, self, head)

    def stage_layers(self, stage: StagePlace) -> dict[str, Any]:
        """Give the decoder, and the net before the contrast, where their weights are not zero."""
        layers: dict[str, Any] = {}
        if stage.is_last:
            return layers
        rebuilding, label = self.stage_weights(stage.depth, stage.num_stages)
        if self.variant == "contrast" and label:
            # The net ends in `embedding` numbers where a head would have `units`.
            place = dataclasses.replace(stage, units=self.embedding)
            layers["contrast"] = make_head(self.head, HEADS, place, self, None)
        if rebuilding:
            check_rebuilds(self, stage, stage.data_shape, "images", IMAGES)
            self._check_channels(stage)
            layers["decoder"] = Decoder(stage.data_shape[1:], WIDTH)
        return layers

    def _check_channels(self, stage: StagePlace) -> None:
        for name, value in (("mean", self.mean), ("std", self.std)):
            counts = {1, *(stage.data_shape[axis] for axis in (1, -1))}
            if isinstance(value, list) and len(value) not in counts:
                raise ValueError(
                    f"`{name}` must have a number per channel. Received: {name}={value}, images "
                    f"{stage.data_shape}. Give as many numbers as channels, or one."
                )

    def stage_losses(self, step: StageBatch) -> dict[str, Tensor]:
        """Give the weighted terms."""
        if step.stage.is_last:
            return {"task": step.task_loss}
        rebuilding, label = self.stage_weights(step.stage.depth, step.stage.num_stages)
        losses: dict[str, Tensor] = {}
        if self.variant == "softmax":
            losses["task"] = label * step.task_loss
        elif label:
            embedded = step.layers["contrast"](step.features, training=step.training)
            losses["contrast"] = label * self._contrast(step.labels, embedded)
        if rebuilding:
            losses["reconstruction"] = rebuilding * self._rebuilding(step)
        return losses

    def _unit(self, image: Tensor, channel_axis: int) -> Tensor:
        """Give the images as they were before `mean` and `std`, from 0 to 1."""
        shape = [1] * len(image.shape)
        shape[channel_axis] = -1
        mean, std = (
            ops.convert_to_tensor(np.reshape(one, shape), dtype=image.dtype)
            for one in (self.mean, self.std)
        )
        return image * std + mean

    def _rebuilding(self, step: StageBatch) -> Tensor:
        decoder, floatx = step.layers["decoder"], keras.config.floatx()
        rebuilt = ops.cast(decoder(step.features, training=step.training), floatx)
        image = ops.cast(step.data, floatx)
        image = unit_images(self._unit(image, decoder.channel_axis), step.stage.depth)
        return ops.mean(ops.binary_crossentropy(image, rebuilt, from_logits=True))

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {
            "variant": self.variant,
            "reconstruction_weight": self.reconstruction_weight,
            "label_weight": self.label_weight,
            "head": head_config(self.head),
            "temperature": self.temperature,
            "embedding": self.embedding,
            "mean": self.mean,
            "std": self.std,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "InfoPro":
        """Make the method from `get_config`'s result."""
        return cls(**{**config, "head": head_of(config["head"])})


def _numbers(name: str, value: float | Sequence[float]) -> Any:
    """Give a number, or a list of them, one per channel.

    Raises:
        TypeError: it is something else.
    """
    many = isinstance(value, (list, tuple))
    listed: list[Any] = list(value) if many else [value]  # type: ignore[arg-type]
    if not listed or any(isinstance(one, bool) or not isinstance(one, Real) for one in listed):
        raise TypeError(
            f"`{name}` must be a number, or a list of one per channel. Received: {name}={value!r}. "
            "Leave it out where images come in [0, 1]."
        )
    return [float(one) for one in listed] if many else float(listed[0])
