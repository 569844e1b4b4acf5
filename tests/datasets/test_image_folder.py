"""Images of one's own, in folders by class."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.datasets import image_folder as module
from keras_trgl.datasets import load

RNG = np.random.default_rng(0)
NAMES = ("cat", "dog", "owl")


def write(path, size=(8, 6), channels=3, form="png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = RNG.integers(0, 256, (*size, channels), "uint8")
    encode = tf.io.encode_png if form == "png" else tf.io.encode_jpeg
    path.write_bytes(encode(image).numpy())
    return image


def fill(root, count=6, **options):
    return {
        (name, k): write(root / name / f"{k}.png", **options)
        for name in NAMES
        for k in range(count)
    }


def test_images_are_read_with_the_classes_in_order(tmp_path):
    train, test = fill(tmp_path / "train"), fill(tmp_path / "test", 2)
    data = load("folder", tmp_path)
    assert (data.name, data.num_classes, data.class_names) == (tmp_path.name, 3, NAMES)
    assert data.input_shape == (8, 6, 3)
    np.testing.assert_array_equal(data.x_train, list(train.values()))
    np.testing.assert_array_equal(data.y_train, np.repeat([0, 1, 2], 6))
    np.testing.assert_array_equal(data.x_test, list(test.values()))
    scaled = np.array(list(train.values())) / 255.0
    np.testing.assert_allclose(data.mean, scaled.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(data.std, scaled.std((0, 1, 2)), rtol=1e-9)


def test_without_a_test_folder_a_fifth_of_every_class_tests(tmp_path):
    fill(tmp_path, 10)
    (tmp_path / ".git").mkdir()
    data = load("folder", tmp_path)
    assert np.bincount(data.y_test).tolist() == [2, 2, 2]
    assert len(data.y_train) == 24
    again = load("folder", tmp_path)
    np.testing.assert_array_equal(again.x_test, data.x_test)


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_forms_and_channels(tmp_path, ending, channels):
    form = "png" if ending == "png" else "jpeg"
    for k, size in enumerate([(8, 6), (20, 12), (5, 5)]):
        for name in NAMES:
            write(tmp_path / "train" / name / "images" / f"{k}.{ending}", size, form=form)
            write(tmp_path / "val" / name / f"{k}.{ending}", size, 1, form)
    data = load("folder", tmp_path, image_size=(8, 6), channels=channels)
    assert data.x_train.shape == (9, 8, 6, channels)
    assert data.x_test.shape == (9, 8, 6, channels)


def test_many_images_stay_in_their_files_and_train_the_same(tmp_path, monkeypatch):
    fill(tmp_path / "train")
    fill(tmp_path / "test", 2)
    weights = []
    for limit in (module.IN_MEMORY, 0):
        monkeypatch.setattr(module, "IN_MEMORY", limit)
        data = load("folder", tmp_path).hold_out(0.2).subset(12)
        assert isinstance(data.x_train, np.ndarray) == bool(limit)
        blocks = trgl.architectures.resnet(8, data.input_shape, widths=(2, 2, 2))
        model = trgl.GreedyModel.from_blocks(blocks, [2, 1], trgl.heads.LinearHead(3), seed=0)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x, y = data.arrays("validation")
        model.fit(data.stream(batch_size=4), epochs=2, validation_data=(x, y), verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def damage(root):
    (root / "train" / "cat" / "0.png").write_bytes(b"\x89PNG no image")


BAD = {
    "no folder": (lambda root: None, {"data_dir": "nowhere"}, FileNotFoundError, "from a folder"),
    "nothing given": (lambda root: None, {"data_dir": None}, FileNotFoundError, "from a folder"),
    "no image": (
        lambda root: (root / "empty" / "cat").mkdir(parents=True),
        {"data_dir": "empty"},
        FileNotFoundError,
        "no image",
    ),
    "sizes": (
        lambda root: write(root / "train" / "cat" / "9.png", (9, 9)),
        {},
        ValueError,
        r"8x6 and 9x9, that of .*9.png. Pass `image_size",
    ),
    "a class of the test part": (
        lambda root: write(root / "test" / "bee" / "0.png"),
        {},
        ValueError,
        "Received: bee",
    ),
    "damaged": (damage, {"image_size": (8, 6)}, ValueError, "cut short or damaged"),
    "size of three": (lambda root: None, {"image_size": (8, 6, 3)}, ValueError, "height, width"),
    "channels": (lambda root: None, {"channels": 4}, ValueError, "`channels` must be 1 or 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_gets_one_sentence(tmp_path, name):
    prepare, options, kind, said = BAD[name]
    fill(tmp_path / "train")
    fill(tmp_path / "test", 1)
    prepare(tmp_path)
    data_dir = options.get("data_dir", ".")
    options = {**options, "data_dir": None if data_dir is None else tmp_path / data_dir}
    with pytest.raises(kind, match=said) as told:
        load("folder", **options)
    assert len(str(told.value).splitlines()) <= 5


def test_other_data_sets_take_no_size():
    with pytest.raises(ValueError, match="are for images of your own"):
        load("digits", image_size=(4, 4))
