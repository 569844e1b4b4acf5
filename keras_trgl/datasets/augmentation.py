"""Augmentation as functions of images and seeds.

A `BatchStream` gives one seed per example and epoch, so a run that is replayed sees the same crops.
`keras.layers.RandomCrop` takes one crop for a whole batch and keeps hidden state, hence these.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.recording import short
from keras_trgl.registration import public
from keras_trgl.types import Tensor


@public
class PadCropFlip:
    """Pads each image, crops it back at a random place, and mirrors half of them.

    Args:
        padding: int ≥ 0. Pixels added on every side. Defaults to `4`.
        flip: bool. Whether to mirror left and right with probability 1/2. Defaults to `True`.
        mode: `"constant"`: zeros, so apply it to raw images for a black border. `"reflect"`:
            the image mirrored at its border. Defaults to `"constant"`.

    Raises:
        ValueError: `padding` is below 0, or `mode` is another word; when called, images are too
            small to mirror `padding` pixels.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.datasets import PadCropFlip
        >>> images, seeds = np.zeros((2, 8, 8, 3), "uint8"), np.array([[0, 1], [0, 2]])
        >>> PadCropFlip()(images, seeds).shape
        TensorShape([2, 8, 8, 3])

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2.
    """

    def __init__(self, padding: int = 4, flip: bool = True, mode: str = "constant") -> None:
        check_integer("padding", padding, 0)
        check_choice("mode", mode, ("constant", "reflect"))
        self.padding = int(padding)
        self.flip = bool(flip)
        self.mode = mode

    def __repr__(self) -> str:
        return f"PadCropFlip(padding={self.padding}, flip={self.flip}, mode={self.mode!r})"

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the seeds."""
        return bool(self.padding or self.flip)

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Give the images changed.

        Args:
            images: tensor, `(batch, height, width, channels)`.
            seeds: int32 tensor, `(batch, 2)`.

        Returns:
            Tensor of the type and shape of `images`.
        """
        images, seeds = tf.convert_to_tensor(images), tf.cast(seeds, tf.int32)
        rows, columns = images.shape[1], images.shape[2]
        if self.mode == "reflect" and self.padding >= min(rows, columns):
            raise ValueError(
                "Images must be larger than the `padding` that mirrors their border. Received: "
                f"padding={self.padding}, images of {rows}x{columns}. Pass `mode='constant'`."
            )
        # One draw of three numbers per example: down, right, mirrored.
        draws = tf.map_fn(
            lambda seed: tf.random.stateless_uniform([3], seed),
            seeds,
            fn_output_signature="float32",
        )
        pad = self.padding
        padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]], self.mode.upper())
        # 0 to 2·pad, both included: `floor` of a uniform number below 1.
        shift = tf.cast(tf.floor(draws[:, :2] * (2 * pad + 1)), tf.int32)
        down = shift[:, :1] + tf.range(rows)[None]
        right = shift[:, 1:] + tf.range(columns)[None]
        if self.flip:
            right = tf.where(draws[:, 2:] < 0.5, tf.reverse(right, [1]), right)
        cropped = tf.gather(padded, down, axis=1, batch_dims=1)
        return tf.gather(cropped, right, axis=2, batch_dims=1)


@public
class Normalize:
    """Turns raw images, 0 to 255, into `(x / 255 - mean) / std` in `floatx`.

    Args:
        mean: list of float, per channel, of images scaled to [0, 1].
        std: list of float > 0, likewise.

    Raises:
        ValueError: `mean` and `std` have different lengths, or a `std` is not above 0.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.datasets import Normalize
        >>> float(Normalize([0.5], [0.25])(np.full((1, 1, 1, 1), 255))[0, 0, 0, 0])
        2.0
    """

    is_random = False

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                "`mean` and `std` must be as many, one per channel, and `std` above 0. "
                f"Received: mean={list(mean)}, std={list(std)}."
            )
        self.mean = np.asarray(mean, "float64")
        self.std = np.asarray(std, "float64")

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"

    def __call__(self, images: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Give the images normalized.

        Args:
            images: tensor, `(batch, height, width, channels)`, 0 to 255.
            seeds: tensor, `(batch, 2)`, not used; there so that it can stand in a `Chain`.
                Defaults to `None`.

        Returns:
            Tensor of `floatx`, `(batch, height, width, channels)`.
        """
        del seeds
        dtype = keras.config.floatx()
        scale = tf.constant(1.0 / (255.0 * self.std), dtype)
        offset = tf.constant(-self.mean / self.std, dtype)
        return tf.cast(images, dtype) * scale + offset


@public
class Chain:
    """Applies transforms in a row; each gets the same seeds.

    Args:
        *transforms: functions of `(images, seeds)`.

    Raises:
        TypeError: one of them is no function.

    Example:
        >>> from keras_trgl.datasets import Chain, Normalize, PadCropFlip
        >>> transform = Chain(PadCropFlip(padding=4), Normalize([0.5], [0.5]))
    """

    def __init__(self, *transforms: Any) -> None:
        for transform in transforms:
            if not callable(transform):
                raise TypeError(
                    "`transforms` must be functions of (images, seeds). "
                    f"Received: {transform!r}. Pass them one by one, not as a list."
                )
        self.transforms = transforms

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(short, self.transforms))})"

    @property
    def is_random(self) -> bool:
        """Whether the result may depend on the seeds: a function that does not say may."""
        return any(getattr(one, "is_random", True) for one in self.transforms)

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Give the images after every transform.

        Args:
            images: tensor, `(batch, height, width, channels)`.
            seeds: int32 tensor, `(batch, 2)`.

        Returns:
            Tensor, of the shape and type that the last transform gives: any shape.
        """
        for transform in self.transforms:
            images = transform(images, seeds)
        return images
