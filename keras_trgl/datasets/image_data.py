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

CHUNK = 1024
"""Images normalized at a time, so that no second copy of all of them is made."""


@public
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """Raw images and labels of a data set, with its published statistics and augmentation.

    Args:
        name: str. What the data set is called.
        x_train: uint8 array, `(examples, height, width, channels)`; so are the other images.
        y_train: int array, `(examples,)`; so are the other labels.
        x_test: uint8 array, as `x_train`.
        y_test: int array, as `y_train`: class indices.
        num_classes: int ≥ 1. Classes.
        mean: tuple of float, per channel, of images scaled to [0, 1].
        std: tuple of float > 0, likewise.
        padding: int ≥ 0. Pixels of the random crop; 0 for none. Defaults to `4`.
        flip: bool. Whether mirrored images are images of the same class. Defaults to `True`.
        x_validation: uint8 array like `x_train`, `(examples, height, width, channels)`: images
            held out, or `None`. Defaults to `None`.
        y_validation: int array, `(examples,)`: their labels, or `None`. Defaults to `None`.
        class_names: tuple of str, one per class, or `None`. Defaults to `None`.

    Images may be what has an array's `shape`, `ndim`, `dtype` and indexing and a `select(places)`,
    as those of a large folder, which stay in their files.

    Raises:
        ValueError: images of another rank or with other channels than `mean` and `std`, not as
            many labels as images, or labels outside 0 to `num_classes - 1`.

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
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if x is not None:
                self._check(part, x, y)

    def _check(self, part: str, x: Any, y: Any) -> None:
        if x.ndim != 4 or not x.shape[-1] == len(self.mean) == len(self.std):
            raise ValueError(
                f"`x_{part}` must be (examples, height, width, channels), with a `mean` and a "
                f"`std` per channel. Received: shape {x.shape}, mean={self.mean}, std={self.std}."
            )
        if y is None or y.shape != (len(x),) or not len(x):
            raise ValueError(
                f"`x_{part}` and `y_{part}` must have as many examples, at least one. Received: "
                f"shapes {x.shape} and {getattr(y, 'shape', None)}. Labels are (examples,)."
            )
        if y.min() < 0 or y.max() >= self.num_classes:
            raise ValueError(
                f"`y_{part}` must be class indices 0 to {self.num_classes - 1}. "
                f"Received: values {y.min()} to {y.max()}. Renumber the classes."
            )

    def __repr__(self) -> str:
        parts = [part for part in PARTS if getattr(self, f"x_{part}") is not None]
        counts = ", ".join(f"{part}={len(getattr(self, f'y_{part}'))}" for part in parts)
        return (
            f"ImageData({self.name!r}, input_shape={self.input_shape}, "
            f"num_classes={self.num_classes}, {counts})"
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        rows, columns, channels = self.x_train.shape[1:]
        return int(rows), int(columns), int(channels)

    def arrays(self, part: str) -> tuple[Any, Any]:
        """Give normalized images and labels of a part.

        Args:
            part: `"train"`, `"validation"` or `"test"`.

        Returns:
            Array of `floatx`, `(examples, height, width, channels)`, and int array `(examples,)`.

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
        normalize = Normalize(self.mean, self.std)
        images = np.empty(x.shape, keras.config.floatx())
        for start in range(0, len(x), CHUNK):
            images[start : start + CHUNK] = normalize(x[start : start + CHUNK])
        return images, y

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
            ValueError: `fraction` is not between 0 and 1, or so small that nothing is held out,
                or a validation part is there already.
        """
        if not 0 < fraction < 1:
            raise ValueError(
                f"`fraction` must lie between 0 and 1. Received: fraction={fraction}. 0.1 holds "
                "out a tenth of the training part."
            )
        if self.x_validation is not None:
            raise ValueError(
                "A validation part can be held out once. Received: data with "
                f"{len(self.y_validation)} validation images. Hold out from the data as loaded."
            )
        held = stratified(self.y_train, fraction, seed)
        if not held.any():
            raise ValueError(
                "`fraction` must hold out at least one image of a class. Received: "
                f"fraction={fraction} of {len(held)} images. Take a larger one."
            )
        return dataclasses.replace(
            self,
            x_train=rows_of(self.x_train, ~held),
            y_train=self.y_train[~held],
            x_validation=rows_of(self.x_train, held),
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
        x = rows_of(self.x_train, kept)
        return dataclasses.replace(self, x_train=x, y_train=self.y_train[kept])


def rows_of(images: Any, places: Any) -> Any:
    """Give some of the images: an array of an array, images in files of images in files."""
    return images.select(places) if hasattr(images, "select") else images[places]


def stratified(labels: Any, fraction: float, seed: int, least: int = 0) -> Any:
    """Draw the same share of every class, and leave at least one example of each.

    Args:
        labels: int array, `(examples,)`.
        fraction: float in (0, 1).
        seed: int ≥ 0.
        least: int ≥ 0. Examples to draw of every class that has more. Defaults to `0`.

    Returns:
        bool array, `(examples,)`: which are drawn.
    """
    rng, drawn = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        # One stays at least: a class without training images could not be learnt.
        count = min(max(round(fraction * len(places)), least), len(places) - 1)
        drawn[rng.permutation(places)[:count]] = True
    return drawn
