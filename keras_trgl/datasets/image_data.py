"""A data set of images: raw arrays, how to normalize and augment them, and its parts."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_trgl.checks import check_choice, check_integer
from keras_trgl.datasets.augmentation import Chain, Normalize, PadCropFlip
from keras_trgl.datasets.batch_stream import BatchStream
from keras_trgl.registration import public

PARTS = ("train", "validation", "test")


@public
@dataclasses.dataclass(frozen=True)
class ImageData:
    """Raw images and labels of a data set, with its published statistics and augmentation.

    Args:
        name: str.
        x_train: uint8 array, `(examples, rows, columns, channels)`; so are the other images.
        y_train: int array, `(examples,)`; so are the other labels.
        x_test: see `x_train`.
        y_test: see `y_train`.
        num_classes: int.
        mean: tuple of float, per channel, of images scaled to [0, 1].
        std: tuple of float, likewise.
        padding: int. Pixels of the random crop; 0 for none. Defaults to `4`.
        flip: bool. Whether mirrored images are images of the same class. Defaults to `True`.
        x_validation: images held out, or `None`. Defaults to `None`.
        y_validation: their labels, or `None`. Defaults to `None`.

    Example:
        >>> from keras_trgl.datasets import load
        >>> data = load("digits").hold_out(fraction=0.1)
        >>> data.input_shape, len(data.x_train), len(data.x_validation), len(data.x_test)
        ((8, 8, 1), 1295, 143, 359)
    """

    name: str
    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int = 4
    flip: bool = True
    x_validation: Any = None
    y_validation: Any = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(rows, columns, channels)`."""
        rows, columns, channels = self.x_train.shape[1:]
        return int(rows), int(columns), int(channels)

    def arrays(self, part: str) -> tuple[Any, Any]:
        """Give normalized images and labels of a part.

        Args:
            part: `"train"`, `"validation"` or `"test"`.

        Returns:
            Array of `floatx`, `(examples, rows, columns, channels)`, and int array.

        Raises:
            ValueError: another part, or no validation part was held out.
        """
        check_choice("part", part, PARTS)
        x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
        if x is None:
            raise ValueError(
                "There is no validation part. Received: part='validation'. "
                "Take one with `data = data.hold_out(fraction=0.1)`."
            )
        return np.asarray(Normalize(self.mean, self.std)(x)), y

    def stream(
        self, batch_size: int = 32, seed: int = 0, augment: bool = True, one_hot: bool = False
    ) -> BatchStream:
        """Give the training part as batches for `GreedyModel.fit`.

        Args:
            batch_size: int > 0. Defaults to `32`.
            seed: int ≥ 0. Seed of order and augmentation. Defaults to `0`.
            augment: bool. Whether to crop and flip; padding is black, on raw images. Defaults
                to `True`.
            one_hot: bool. Whether labels are one-hot, as label smoothing needs. Defaults to
                `False`.

        Returns:
            `BatchStream`.
        """
        transform: Any = Normalize(self.mean, self.std)
        if augment and (self.padding or self.flip):
            transform = Chain(PadCropFlip(self.padding, self.flip), transform)
        y = keras.utils.to_categorical(self.y_train, self.num_classes) if one_hot else self.y_train
        return BatchStream(self.x_train, y, batch_size=batch_size, seed=seed, transform=transform)

    def hold_out(self, fraction: float = 0.1, seed: int = 0) -> "ImageData":
        """Take a validation part out of the training part, the same share of every class.

        Args:
            fraction: float in (0, 1). Defaults to `0.1`.
            seed: int ≥ 0. Defaults to `0`.

        Returns:
            `ImageData` with a smaller training part.

        Raises:
            ValueError: `fraction` is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise ValueError(
                f"`fraction` must lie between 0 and 1. Received: fraction={fraction}. 0.1 holds "
                "out a tenth of the training part."
            )
        rng, held = np.random.default_rng(seed), np.zeros(len(self.y_train), bool)
        for label in np.unique(self.y_train):
            places = np.flatnonzero(self.y_train == label)
            held[rng.permutation(places)[: round(fraction * len(places))]] = True
        return dataclasses.replace(
            self,
            x_train=self.x_train[~held],
            y_train=self.y_train[~held],
            x_validation=self.x_train[held],
            y_validation=self.y_train[held],
        )

    def subset(self, size: int, seed: int = 0) -> "ImageData":
        """Keep some training examples, drawn uniformly without replacement.

        Args:
            size: int, 1 to the size of the training part.
            seed: int ≥ 0. Defaults to `0`.

        Returns:
            `ImageData` with a smaller training part.

        Raises:
            ValueError: `size` is no such number.
        """
        check_integer("size", size, 1)
        if size > len(self.y_train):
            raise ValueError(
                f"`size` must be at most the training part's, {len(self.y_train)}. "
                f"Received: size={size}."
            )
        kept = np.random.default_rng(seed).permutation(len(self.y_train))[:size]
        return dataclasses.replace(self, x_train=self.x_train[kept], y_train=self.y_train[kept])
