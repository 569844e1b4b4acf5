"""Images in folders by class, as users have them: decoded at once, or row by row where many."""

import concurrent.futures
import functools
import hashlib
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_list
from keras_trgl.datasets.image_data import CHUNK, ImageData, stratified

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
OTHERS = (".heic", ".jfif", ".tif", ".tiff", ".webp")
"""Endings of images that TensorFlow does not read."""
TESTS = ("test", "val", "validation")
"""Folders beside `train` that may hold the images of the test part, in this order."""

LAYOUT = (
    "Pass `data_dir`, a folder with train/<class>/* and test/<class>/*, or with <class>/* alone, "
    "of JPEG, PNG, BMP or GIF files."
)
IN_MEMORY = 2**31
"""Bytes of decoded images up to which a part is kept in memory."""

SHARE, SEED = 0.2, 0
"""Of the images that test where there is no folder for them, and the seed they are drawn by."""


class FileImages:
    """Images in files, with the face of an array; rows are decoded when they are read.

    Args:
        paths: list of paths.
        size: tuple of int `(height, width)`, in pixels.
        channels: int, 1 or 3.
        resizes: bool. Whether images of other sizes are resized; they are an error if not.
            Defaults to `True`.
    """

    dtype = np.dtype("uint8")
    ndim = 4

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        size: Sequence[int],
        channels: int,
        resizes: bool = True,
    ) -> None:
        self.paths = list(paths)
        self.resizes = resizes
        self.shape = (len(self.paths), *map(int, size), int(channels))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, places: Any) -> Any:
        """Give rows as a uint8 array; a single place gives one image."""
        chosen = np.arange(len(self))[places]
        if chosen.ndim == 0:
            return self._decoded(self.paths[int(chosen)])
        images = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        # Decoding holds no lock of Python's.
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(self._decoded, [self.paths[place] for place in chosen])
            for row, image in enumerate(made):
                images[row] = image
        return images

    def select(self, places: Any) -> "FileImages":
        """Give some of the images, still in their files.

        Args:
            places: slice, bool array, or array of places.
        """
        chosen = np.arange(len(self))[places]
        paths = [self.paths[place] for place in chosen]
        return FileImages(paths, self.shape[1:3], self.shape[3], self.resizes)

    def _decoded(self, path: pathlib.Path) -> Any:
        image = decoded(path, self.shape[3])
        if image.shape[:2] == self.shape[1:3]:
            return image
        if not self.resizes:
            shown = " and ".join(
                f"{rows}x{columns}" for rows, columns, *_ in (self.shape[1:], image.shape)
            )
            raise ValueError(
                f"Images must have one size. Received: {shown}, that of {path}. Pass "
                "`image_size=(height, width)` to have them resized."
            )
        resized = tf.image.resize(image, self.shape[1:3], antialias=True)
        return np.clip(np.rint(resized.numpy()), 0, 255).astype(self.dtype)


def decoded(path: pathlib.Path, channels: int) -> Any:
    """Give the image in a file, `(height, width, channels)` of uint8.

    Raises:
        ValueError: the file is none, or is cut short.
    """
    try:
        # On the host: a graph of an accelerator has no decoder.
        with tf.device("CPU:0"):
            image = tf.io.decode_image(
                path.read_bytes(), channels=channels, expand_animations=False
            )
        return image.numpy()
    except (OSError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"{path} is missing, cut short or damaged. Received: {str(error).splitlines()[0]}. "
            "Unpack the archive again, or remove the file."
        ) from error


def image_folder(
    data_dir: Any, image_size: Sequence[int] | None = None, channels: int = 3
) -> ImageData:
    """Give the images of a folder, their labels numbered by the classes' names in order.

    Args:
        data_dir: str or path: `train/<class>/*` and `test/<class>/*` (`val` or `validation` will
            do), or `<class>/*`: then a fifth of every class, drawn by a fixed seed, tests.
        image_size: tuple of int `(height, width)`, in pixels, that images are resized to. `None`
            takes the images' own, where all have the same. Defaults to `None`.
        channels: int ≥ 1. Channels of the images: 3, or 1 for grey ones. Defaults to `3`.

    Returns:
        `ImageData`, with mean and standard deviation of its training images. Parts above 2 GiB
        stay in their files, and are decoded batch by batch.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: images of several sizes without `image_size`; classes that only the test part
            has; a damaged file.
    """
    root = pathlib.Path(data_dir) if data_dir is not None else None
    if root is None or not root.is_dir():
        raise FileNotFoundError(
            f"Images are read from a folder. Received: data_dir={data_dir}. {LAYOUT}"
        )
    if channels not in (1, 3):
        raise ValueError(f"`channels` must be 1 or 3. Received: channels={channels}.")
    train = root / "train" if (root / "train").is_dir() else root
    names = sorted(one.name for one in train.iterdir() if one.is_dir() and not _hidden(one))
    if train is root:
        names = [name for name in names if name not in TESTS]
    paths, labels = _listed(train, names)
    if not paths:
        raise FileNotFoundError(f"There is no image. Received: {train}. {LAYOUT}")
    empty = [name for k, name in enumerate(names) if not (labels == k).any()]
    if empty:
        raise ValueError(
            "Every class must have an image to train on. Received: none in "
            f"{', '.join(empty[:5])} of {train}. Add images, or remove the folder."
        )
    tests = next((root / name for name in TESTS if (root / name).is_dir()), None)
    if tests is None:
        drawn = stratified(labels, SHARE, SEED)
        places = np.flatnonzero(drawn)
        test_paths, test_labels = [paths[place] for place in places], labels[drawn]
        paths, labels = [paths[place] for place in np.flatnonzero(~drawn)], labels[~drawn]
    else:
        _check_classes(tests, names)
        test_paths, test_labels = _listed(tests, names)
    if not test_paths:
        raise FileNotFoundError(f"There is no image to test on. Received: {tests}. {LAYOUT}")
    size = decoded(paths[0], channels).shape[:2] if image_size is None else _size(image_size)
    resizes = image_size is not None
    x, x_test = (_kept(FileImages(some, size, channels, resizes)) for some in (paths, test_paths))
    mean, std = _statistics(x)
    return ImageData(
        root.name, x, labels, x_test, test_labels, len(names), mean, std, class_names=tuple(names)
    )


@functools.cache
def mark_of_folder(data_dir: str) -> str:
    """Give what names the images of a folder: others in their place are other data.

    They are told apart by name, size and time of change, as reading all would take too long. What
    else lies in the folder, such as results, does not count.

    Args:
        data_dir: str, as in `image_folder`.
    """
    root, told = pathlib.Path(data_dir), hashlib.sha256()
    parts = [root / name for name in ("train", *TESTS) if (root / name).is_dir()] or [root]
    for path in sorted(path for part in parts for path in part.rglob("*")):
        if path.suffix.lower() in ENDINGS and not _hidden(path):
            state = path.stat()
            place = path.relative_to(root).as_posix()
            told.update(f"{place} {state.st_size} {state.st_mtime_ns}\n".encode())
    return told.hexdigest()


def _hidden(path: pathlib.Path) -> bool:
    return path.name.startswith((".", "__"))


def _listed(folder: pathlib.Path, names: Sequence[str]) -> tuple[list[pathlib.Path], Any]:
    """Give the image files of all classes in a fixed order, and their labels."""
    there = [
        (path, label)
        for label, name in enumerate(names)
        # Anywhere below: some archives have train/<class>/images/*.
        for path in sorted((folder / name).rglob("*"))
        if not _hidden(path)
    ]
    left_out = [path for path, _ in there if path.suffix.lower() in OTHERS]
    if left_out:
        warnings.warn(
            f"Images must be JPEG, PNG, BMP or GIF. Received: {len(left_out)} others in {folder}, "
            f"{left_out[0].name} among them, which are left out. Convert them.",
            stacklevel=4,
        )
    found = [(path, label) for path, label in there if path.suffix.lower() in ENDINGS]
    return [path for path, _ in found], np.array([label for _, label in found], "int64")


def _check_classes(tests: pathlib.Path, names: Sequence[str]) -> None:
    extra = sorted({one.name for one in tests.iterdir() if one.is_dir()} - set(names))
    if extra:
        raise ValueError(
            "Every class of the test part must be one of the training part. Received: "
            f"{', '.join(extra[:5])} in {tests} alone. Add training images, or remove them."
        )


def _size(image_size: Sequence[int]) -> Sequence[int]:
    """Give the size that images are to have, or raise."""
    check_list("image_size", image_size, "two ints", "Give pixels, `(height, width)`.")
    if len(image_size) != 2 or any(side < 1 for side in image_size):
        raise ValueError(
            f"`image_size` must be (height, width), in pixels. Received: image_size={image_size}."
        )
    return tuple(image_size)


def _kept(images: FileImages) -> Any:
    """Give the images as an array where they fit, else as they are."""
    return images[:] if int(np.prod(images.shape)) <= IN_MEMORY else images


def _statistics(images: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and standard deviation per channel of images scaled to [0, 1]."""
    total, squares = np.zeros(images.shape[3]), np.zeros(images.shape[3])
    for start in range(0, len(images), CHUNK):
        rows = images[start : start + CHUNK].astype("float64") / 255.0
        total += rows.sum((0, 1, 2))
        squares += np.square(rows).sum((0, 1, 2))
    count = int(np.prod(images.shape[:3]))
    mean = total / count
    # Images of one colour have no deviation to divide by.
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 1e-12))
    return tuple(map(float, mean)), tuple(map(float, std))
