"""Images: normalization, augmentation, parts."""

import numpy as np
import pytest

from keras_trgl.datasets import Chain, ImageData, Normalize, PadCropFlip, load

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(1, 255, (6, 5, 5, 2)).astype("uint8")
SEEDS = np.stack([np.full(6, 7), np.arange(6)], axis=1)


def every_crop(image, padding):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    rows, columns = image.shape[:2]
    for down in range(2 * padding + 1):
        for right in range(2 * padding + 1):
            yield padded[down : down + rows, right : right + columns]


@pytest.mark.parametrize("flip", [True, False])
def test_each_image_becomes_one_of_its_crops(flip):
    for image, crop in zip(IMAGES, np.asarray(PadCropFlip(2, flip)(IMAGES, SEEDS)), strict=True):
        crops = list(every_crop(image, 2))
        crops += [crop[:, ::-1] for crop in crops] if flip else []
        assert any(np.array_equal(crop, one) for one in crops)


def test_crops_and_flips_are_spread_evenly():
    images = np.repeat(np.arange(9, dtype="uint8").reshape(1, 3, 3, 1) + 1, 3000, axis=0)
    seeds = np.stack([np.zeros(3000), np.arange(3000)], axis=1)
    out = np.asarray(PadCropFlip(1)(images, seeds))
    _, counts = np.unique(out.reshape(3000, -1), axis=0, return_counts=True)
    assert len(counts) == 18
    assert counts.min() > 100


def test_padding_reflects_if_asked():
    out = np.asarray(PadCropFlip(2, mode="reflect")(IMAGES, SEEDS))
    assert out.min() > 0


def test_no_padding_and_no_flip_change_nothing():
    np.testing.assert_array_equal(PadCropFlip(0, flip=False)(IMAGES, SEEDS), IMAGES)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="`mode` must be one of 'constant', 'reflect'"):
        PadCropFlip(mode="wrap")


def test_normalize_is_the_formula():
    got = Normalize([0.5, 0.25], [0.5, 2.0])(IMAGES)
    wanted = (IMAGES / 255.0 - [0.5, 0.25]) / [0.5, 2.0]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_normalize_needs_as_many_means_as_deviations():
    with pytest.raises(ValueError, match="`mean` and `std` must be as many"):
        Normalize([0.5], [0.5, 0.5])
    with pytest.raises(ValueError, match="`std` above 0"):
        Normalize([0.5], [0.0])


def test_the_border_is_black_before_normalization():
    white = np.full((6, 5, 5, 1), 255, "uint8")
    out = np.asarray(Chain(PadCropFlip(4), Normalize([0.5], [0.25]))(white, SEEDS))
    assert set(np.unique(out)) == {-2.0, 2.0}


def test_holding_out_is_stratified_and_disjoint():
    data = load("digits")
    held = data.hold_out(0.2, seed=1)
    counts = np.bincount(held.y_validation) / np.bincount(data.y_train)
    np.testing.assert_allclose(counts, 0.2, atol=0.01)
    assert len(held.y_train) + len(held.y_validation) == len(data.y_train)
    assert held.x_test is data.x_test


def test_a_subset_is_drawn_without_replacement():
    x, y = np.arange(200).reshape(200, 1, 1, 1), np.zeros(200)
    data = ImageData("a", x, y, x, y, 1, (0.5,), (0.5,))
    first, second = data.subset(100, seed=1), data.subset(100, seed=2)
    assert len(np.unique(first.x_train)) == 100
    assert set(first.x_train.ravel()) != set(second.x_train.ravel())


def test_reflected_padding_must_fit():
    with pytest.raises(ValueError, match="Images must be larger than the `padding`"):
        PadCropFlip(5, mode="reflect")(IMAGES, SEEDS)


def test_a_stream_of_one_hot_labels_is_the_training_part():
    stream = load("digits").stream(batch_size=100, one_hot=True)
    x, y = next(iter(stream.from_step().as_numpy_iterator()))
    assert x.shape == (100, 8, 8, 1)
    assert x.dtype == np.float32
    assert y.shape == (100, 10)
    assert stream.num_samples == 1438


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_fraction_outside_0_and_1_is_refused(fraction):
    with pytest.raises(ValueError, match="`fraction` must lie between 0 and 1"):
        load("digits").hold_out(fraction)


def test_a_subset_larger_than_the_part_is_refused():
    with pytest.raises(ValueError, match="`size` must be at most the training part's, 1438"):
        load("digits").subset(5000)


def test_a_validation_part_must_be_held_out_first():
    with pytest.raises(ValueError, match="Take one with"):
        load("digits").arrays("validation")


def test_the_parts_have_names():
    with pytest.raises(ValueError, match="`part` must be one of"):
        load("digits").arrays("all")


def test_image_data_has_an_input_shape():
    data = ImageData("a", IMAGES, np.zeros(6), IMAGES, np.zeros(6), 1, (0.5,) * 2, (0.5,) * 2)
    assert data.input_shape == (5, 5, 2)
