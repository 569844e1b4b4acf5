"""Loaders of the data sets that the papers of this field use."""

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_trgl.datasets.image_data import ImageData
from keras_trgl.datasets.image_folder import FileImages, decoded, image_folder
from keras_trgl.registration import public

CIFAR_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR_STD = (0.24703223, 0.24348513, 0.26158784)
"""Of CIFAR-10; the published code uses them for CIFAR-100 too."""

TINY_MEAN = (0.4802486, 0.44807222, 0.39754647)
TINY_STD = (0.2769859, 0.26906505, 0.2820814)

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CACHED = {
    "mnist": "the file mnist.npz into ~/.keras/datasets",
    "fashion_mnist": f"the files {', '.join(name + '.gz' for name in IDX)} into "
    "~/.keras/datasets/fashion-mnist",
    "cifar10": "the archive cifar-10-python.tar.gz as "
    "~/.keras/datasets/cifar-10-batches-py-target_archive",
    "cifar100": "the archive cifar-100-python.tar.gz as "
    "~/.keras/datasets/cifar-100-python-target_archive",
}
"""What to put where, for the data sets that `keras.datasets` fetches."""

DIGITS_SPLIT_SEED = 0
DIGITS_TEST_SHARE = 0.2


@public
def load(
    name: str,
    data_dir: Any = None,
    image_size: tuple[int, int] | None = None,
    channels: int = 3,
) -> ImageData:
    """Load a data set by name.

    Args:
        name: str. `"digits"` (1,797 images of 8x8 that come with scikit-learn), `"mnist"`,
            `"fashion_mnist"`, `"cifar10"`, `"cifar100"` (fetched by `keras.datasets`),
            `"stl10"` (by tensorflow-datasets, the extra `[data]`), `"tiny_imagenet"` (the
            archive's folder), `"folder"`: images of your own, JPEG, PNG, BMP or GIF, in
            `train/<class>/` and `test/<class>/`, or in `<class>/` alone, where a fifth of every
            class tests.
        data_dir: str or path: the folder of `"tiny_imagenet"` or `"folder"`, or where
            tensorflow-datasets keeps its data. Defaults to `None`.
        image_size: tuple of int `(height, width)`, in pixels, that images of `"folder"` are
            resized to; `None` takes their own, where all have the same. Defaults to `None`.
        channels: int ≥ 1. Channels of images of `"folder"`: 3, or 1 for grey ones. Defaults to `3`.

    Returns:
        `ImageData` with raw uint8 images. Parts of `"folder"` above 2 GiB stay in their files, and
        are decoded batch by batch.

    Raises:
        ValueError: an unknown name, files that are cut short or damaged, or images of several
            sizes without `image_size`.
        FileNotFoundError: the data are not there and cannot be fetched; says what to put where.
        ImportError: a package is missing; says which to install.

    Example:
        >>> from keras_trgl.datasets import load
        >>> load("digits").x_train.shape
        (1438, 8, 8, 1)
    """
    if name == "folder":
        return image_folder(data_dir, image_size, channels)
    names = [*LOADERS, "folder"]
    if name not in names:
        raise ValueError(
            f"`name` must be one of {', '.join(map(repr, names))}. Received: name={name!r}."
        )
    if image_size is not None or channels != 3:
        raise ValueError(
            "`image_size` and `channels` are for images of your own. Received: "
            f"name={name!r}. Use name='folder', or leave them out."
        )
    return LOADERS[name](data_dir)


def _digits(data_dir: Any) -> ImageData:
    del data_dir
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The data set 'digits' comes with scikit-learn. Received: no such package. "
            "Install it with `pip install scikit-learn`."
        ) from error
    images, labels = load_digits(return_X_y=True)
    x = np.round(images.reshape(-1, 8, 8, 1) * (255.0 / 16.0)).astype("uint8")
    y = labels.astype("int64")
    rng, test = np.random.default_rng(DIGITS_SPLIT_SEED), np.zeros(len(y), bool)
    for label in range(10):
        places = np.flatnonzero(y == label)
        test[rng.permutation(places)[: round(DIGITS_TEST_SHARE * len(places))]] = True
    # Digits are centred and have a side: no flip, and a crop of one pixel.
    return ImageData(
        "digits", x[~test], y[~test], x[test], y[test], 10, (0.5,), (0.5,), padding=1, flip=False
    )


def _from_keras(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], **options: Any
) -> Callable[[Any], ImageData]:
    def loader(data_dir: Any) -> ImageData:
        del data_dir
        try:
            (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
        # Keras raises a bare `Exception` without network, and a damaged file any kind.
        except Exception as error:
            if "fetch failure" in str(error):
                raise FileNotFoundError(
                    f"{name} is not on this machine and could not be fetched. Received: {error}. "
                    f"Put {CACHED[name]} (or under $KERAS_HOME, if that is set)."
                ) from error
            raise ValueError(
                f"The files of {name} are cut short or damaged. Received: {error!r}. Delete them "
                f"and put {CACHED[name]} (or under $KERAS_HOME, if that is set) again."
            ) from error
        images = [part if part.ndim == 4 else part[..., None] for part in (x, x_test)]
        labels = [part.reshape(-1).astype("int64") for part in (y, y_test)]
        classes = 100 if name == "cifar100" else 10
        return ImageData(
            name, images[0], labels[0], images[1], labels[1], classes, mean, std, **options
        )

    return loader


def _stl10(data_dir: Any) -> ImageData:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "The data set 'stl10' is read by tensorflow-datasets. Received: no such package. "
            "Install it with `pip install keras_trgl[data]`."
        ) from error
    try:
        parts = [
            tfds.as_numpy(
                tfds.load("stl10", split=split, batch_size=-1, data_dir=data_dir, download=True)
            )
            for split in ("train", "test")
        ]
    except Exception as error:
        raise FileNotFoundError(
            f"stl10 is not on this machine and could not be fetched. Received: {error}. Prepare "
            "it once with network access by `tfds.load('stl10')`, and pass its `data_dir`."
        ) from error
    (x, y), (x_test, y_test) = ((part["image"], part["label"]) for part in parts)
    half = (0.5, 0.5, 0.5)
    return ImageData("stl10", x, y.astype("int64"), x_test, y_test.astype("int64"), 10, half, half)


def _tiny_imagenet(data_dir: Any) -> ImageData:
    layout = (
        "Pass `data_dir`, the unpacked folder tiny-imagenet-200 with wnids.txt, "
        "train/<class>/images/*.JPEG, val/val_annotations.txt and val/images/*.JPEG."
    )
    folder = pathlib.Path(data_dir) if data_dir is not None else None
    if folder is None or not (folder / "wnids.txt").is_file():
        raise FileNotFoundError(
            f"tiny_imagenet is read from a folder. Received: data_dir={data_dir}. {layout}"
        )
    classes = {wnid: k for k, wnid in enumerate((folder / "wnids.txt").read_text().split())}
    train = [
        (path, label)
        for wnid, label in classes.items()
        for path in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
    ]
    notes = folder / "val" / "val_annotations.txt"
    lines = notes.read_text().splitlines() if notes.is_file() else []
    # The labels of the test images were never published: the validation images test.
    test = [
        (folder / "val" / "images" / fields[0], classes[fields[1]])
        for fields in (line.split() for line in lines)
        if len(fields) > 1 and fields[1] in classes
    ]
    if not train or not test:
        raise FileNotFoundError(
            f"tiny_imagenet must hold training and validation images. Received: {len(train)} and "
            f"{len(test)} in {folder}. {layout}"
        )
    (x, y), (x_test, y_test) = _read(train), _read(test)
    return ImageData("tiny_imagenet", x, y, x_test, y_test, len(classes), TINY_MEAN, TINY_STD)


def _read(files: list[tuple[pathlib.Path, int]]) -> tuple[Any, Any]:
    paths = [path for path, _ in files]
    # Grey images become RGB.
    images = FileImages(paths, decoded(paths[0], 3).shape[:2], 3, resizes=False)
    return images[:], np.array([label for _, label in files], "int64")


LOADERS: dict[str, Callable[[Any], ImageData]] = {
    "digits": _digits,
    "mnist": _from_keras("mnist", (0.13066,), (0.30811,), flip=False),
    "fashion_mnist": _from_keras("fashion_mnist", (0.2860,), (0.3530,)),
    "cifar10": _from_keras("cifar10", CIFAR_MEAN, CIFAR_STD),
    "cifar100": _from_keras("cifar100", CIFAR_MEAN, CIFAR_STD),
    "stl10": _stl10,
    "tiny_imagenet": _tiny_imagenet,
}
