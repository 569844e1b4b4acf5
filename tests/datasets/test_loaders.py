"""Loaders on small files of the same formats."""

import gzip
import struct
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl.datasets import load
from keras_trgl.datasets.loaders import IDX

RNG = np.random.default_rng(0)


def idx_file(path, array):
    """Write an IDX file, the format of MNIST and Fashion-MNIST."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype("uint8").tobytes())


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """Four small files, where `keras.utils.get_file` finds them."""
    arrays = {}
    for name, size in zip(IDX, (7, 7, 3, 3), strict=True):
        shape = (size, 28, 28) if "images" in name else (size,)
        arrays[name] = RNG.integers(0, 10, shape)
        idx_file(tmp_path / f"{name}.gz", arrays[name])
    module = sys.modules[keras.datasets.fashion_mnist.load_data.__module__]
    monkeypatch.setattr(module, "get_file", lambda name, **options: str(tmp_path / name))
    return tmp_path, arrays


def test_fashion_mnist_is_read_from_its_four_files(fashion):
    _, arrays = fashion
    data = load("fashion_mnist")
    np.testing.assert_array_equal(data.x_train[..., 0], arrays[IDX[0]])
    np.testing.assert_array_equal(data.y_train, arrays[IDX[1]])
    np.testing.assert_array_equal(data.x_test[..., 0], arrays[IDX[2]])
    assert data.input_shape == (28, 28, 1)
    assert data.num_classes == 10


@pytest.mark.parametrize("damage", [lambda b: b[:200], lambda b: b"no gzip" + b])
def test_a_damaged_file_says_what_to_put_where(fashion, damage):
    folder, _ = fashion
    path = folder / f"{IDX[0]}.gz"
    content = path.read_bytes()
    path.write_bytes(damage(content))
    with pytest.raises(ValueError, match=r"cut short or damaged.*train-images-idx3-ubyte.gz"):
        load("fashion_mnist")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "mnist.npz"),
        ("fashion_mnist", "t10k-labels-idx1-ubyte.gz"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
    ],
)
def test_without_network_the_files_to_put_are_named(name, file, monkeypatch):
    def offline(*args, **options):
        raise Exception("URL fetch failure: no route to host")  # As `get_file` raises it.

    module = sys.modules[getattr(keras.datasets, name).load_data.__module__]
    monkeypatch.setattr(module, "get_file", offline)
    with pytest.raises(FileNotFoundError, match=f"could not be fetched.*{file}"):
        load(name)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_is_taken_from_keras(name, classes, monkeypatch):
    x, y = RNG.integers(0, 255, (5, 32, 32, 3)).astype("uint8"), np.arange(5)[:, None]
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: ((x, y), (x, y)))
    data = load(name)
    assert data.num_classes == classes
    np.testing.assert_array_equal(data.y_train, np.arange(5))
    assert data.mean == pytest.approx((0.49139968, 0.48215841, 0.44653091))


def test_stl10_is_taken_from_tensorflow_datasets(monkeypatch):
    x, y = RNG.integers(0, 255, (4, 96, 96, 3)).astype("uint8"), np.arange(4)
    stub = types.ModuleType("tensorflow_datasets")
    stub.load = lambda name, **options: {"image": x, "label": y}
    stub.as_numpy = lambda part: part
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stub)
    data = load("stl10")
    assert data.input_shape == (96, 96, 3)
    np.testing.assert_array_equal(data.y_test, y)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install keras_trgl\[data\]"):
        load("stl10")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        load("digits")


@pytest.fixture
def tiny(tmp_path):
    """A TinyImageNet folder of two classes, one image of them grey."""
    (tmp_path / "wnids.txt").write_text("n02\nn01\n")
    images = {}
    for wnid in ("n01", "n02"):
        folder = tmp_path / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for k in range(2):
            channels = 1 if (wnid, k) == ("n01", 0) else 3
            image = np.full((64, 64, channels), 40 * k + 10 * int(wnid[-1]), "uint8")
            images[wnid, k] = image
            content = tf.io.encode_jpeg(image, quality=100).numpy()
            (folder / f"{wnid}_{k}.JPEG").write_bytes(content)
    folder = tmp_path / "val" / "images"
    folder.mkdir(parents=True)
    (folder / "val_0.JPEG").write_bytes(tf.io.encode_jpeg(images["n01", 1]).numpy())
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t9\t9\n")
    return tmp_path


def test_tiny_imagenet_is_read_from_its_folder(tiny):
    data = load("tiny_imagenet", data_dir=tiny)
    assert data.x_train.shape == (4, 64, 64, 3)
    np.testing.assert_array_equal(data.y_train, [0, 0, 1, 1])
    np.testing.assert_allclose(data.x_train[:, 0, 0, 2], [20, 60, 10, 50], atol=2)
    np.testing.assert_array_equal(data.y_test, [1])


def test_a_damaged_image_is_named(tiny):
    path = tiny / "train" / "n01" / "images" / "n01_1.JPEG"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ValueError, match=r"n01_1.JPEG is missing, cut short or damaged"):
        load("tiny_imagenet", data_dir=tiny)


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_a_missing_folder_says_what_it_must_hold(folder):
    with pytest.raises(FileNotFoundError, match=r"Pass `data_dir`.*wnids.txt"):
        load("tiny_imagenet", data_dir=folder)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "wnids.txt").write_text("n01\n")
    with pytest.raises(FileNotFoundError, match="Received: 0 and 0"):
        load("tiny_imagenet", data_dir=tmp_path)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"`name` must be one of 'digits', 'mnist'.*'imagenet'"):
        load("imagenet")


def test_digits_split_is_fixed_and_stratified():
    first, second = load("digits"), load("digits")
    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert len(first.y_test) + len(first.y_train) == 1797
    assert np.bincount(first.y_test).min() >= 34
