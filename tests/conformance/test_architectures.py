"""What every architecture gives: one row per function."""

import contextlib

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel, load_model
from keras_trgl.architectures import (
    blockwise_resnet,
    resnet,
    resnet50,
    resnet101,
    resnet152,
    swin_tiny,
    vgg,
    vit,
)
from keras_trgl.heads import ConvHead, DenseHead, LinearHead, NormHead
from keras_trgl.layers.stage import residual_units
from keras_trgl.methods import TRGL
from keras_trgl.splitting import by_memory, published

pytestmark = pytest.mark.sampled(1)


def small_swin(shape):
    return swin_tiny(shape, 2, 4, 8, num_heads=(1, 2, 2, 4))


def small_vit(shape):
    return vit(shape, 4, 8, 4, 2, drop_path=0.1)


ARCHITECTURES = {
    "resnet": lambda shape: resnet(14, shape, widths=(4, 8, 8)),
    "resnet_conv": lambda shape: resnet(14, shape, widths=(4, 8, 8), shortcut="conv"),
    "blockwise_resnet": lambda shape: blockwise_resnet(shape, num_blocks=4, width=8),
    "resnet50": lambda shape: resnet50(shape, "cifar", width=2),
    "resnet50_tiny_imagenet": lambda shape: resnet50(shape, "tiny_imagenet", width=2),
    "resnet50_imagenet": lambda shape: resnet50(shape, width=2),
    "vgg": lambda shape: vgg(11, shape, width=2),
    "swin_tiny": small_swin,
    "vit": small_vit,
    "vit_no_token": lambda shape: vit(shape, 4, 8, 3, 2, class_token=False),
}
NO_RESIDUALS = {"vgg"}
SHAPE = (16, 16, 3)
X = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_a_flat_list_of_unbuilt_blocks_that_know_their_input(name):
    blocks = ARCHITECTURES[name](SHAPE)
    assert all(isinstance(block, keras.layers.Layer) and not block.built for block in blocks)
    assert blocks[0].expected_input_shape == SHAPE
    assert all(getattr(block, "expected_input_shape", None) is None for block in blocks[1:])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_are_told_before_anything_is_built(name):
    shape, x = X.shape, X
    for block in ARCHITECTURES[name](SHAPE):
        shape, x = tuple(block.compute_output_shape(shape)), block(x)
        assert tuple(x.shape) == shape


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in NO_RESIDUALS])
def test_every_block_tells_its_energy(name):
    x = X
    for block in ARCHITECTURES[name](SHAPE):
        units = residual_units(block)
        assert units
        with contextlib.ExitStack() as stack:
            for unit in units:
                stack.enter_context(unit.recording())
            x = block(x, training=True)
            # Stochastic depth may leave a residual out for both examples.
            assert sum(float(unit.energy()) for unit in units) > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_channels_are_last_whatever_keras_says(name):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        blocks, shape = ARCHITECTURES[name](SHAPE), X.shape
        for block in blocks:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        sizes = [2, len(blocks) - 2]
        model = GreedyModel.from_blocks(
            ARCHITECTURES[name](SHAPE), sizes, LinearHead(3), method="vangl"
        )
        kernel = model.heads[-1].layers_in_a_row[-1].kernel
        assert tuple(kernel.shape) == (shape[-1], 3)
        if len(shape) == 4:
            assert {head.data_format for head in model.heads} == {"channels_last"}
    finally:
        keras.config.set_image_data_format(before)


PUBLISHED = {
    "resnet50": (lambda: resnet50((16, 16, 3), "cifar", 2), ConvHead, "trgl_resnet50", 1),
    "resnet101": (lambda: resnet101((16, 16, 3), "cifar", 2), LinearHead, "trgl_resnet101", 1),
    "resnet152": (lambda: resnet152((16, 16, 3), "cifar", 2), LinearHead, "trgl_resnet152", 1),
    "vgg": (lambda: vgg(19, (32, 32, 3), 2), DenseHead, "trgl_vgg19", 0),
    "swin_tiny": (lambda: small_swin((32, 32, 3)), NormHead, "trgl_swin_tiny", 2),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "vgg" else pytest.mark.long) for name in PUBLISHED],
)
def test_it_trains_in_its_published_stages_and_is_saved_loaded_and_cut(name, tmp_path):
    make, head, split, per_block = PUBLISHED[name]
    sizes = published(split, 2 if name in ("resnet101", "resnet152") else 4)
    options = {"hidden": (8,)} if head is DenseHead else {}
    method = TRGL(tau=0.5) if per_block else "vangl"
    model = GreedyModel.from_blocks(make(), sizes, head(3, **options), method=method, seed=0)
    assert [len(stage.residual_units) for stage in model.stages] == [per_block * n for n in sizes]
    trains_and_is_kept(model, tmp_path)


FEW_BLOCKS = {
    "resnet50": (lambda: resnet50((16, 16, 3), "cifar", 2)[:5], lambda: ConvHead(3)),
    "swin_tiny": (
        lambda: swin_tiny((16, 16, 3), 2, 4, 8, depths=(2, 1), num_heads=(1, 2)),
        lambda: NormHead(3),
    ),
    "vit": (lambda: vit((16, 16, 3), 4, 8, 2, 2, drop_path=0.1), lambda: NormHead(3, "first")),
    "vit_mean": (lambda: vit((16, 16, 3), 4, 8, 2, 2, class_token=False), lambda: NormHead(3)),
}


@pytest.mark.parametrize("name", FEW_BLOCKS)
def test_a_few_of_its_blocks_train_and_are_saved_loaded_and_cut(name, tmp_path):
    make, head = FEW_BLOCKS[name]
    blocks = make()
    units = [len(residual_units(block)) for block in blocks]
    cut = len(blocks) // 2
    sizes = [cut, len(blocks) - cut]
    model = GreedyModel.from_blocks(blocks, sizes, head(), method="trgl", seed=0)
    found = [len(stage.residual_units) for stage in model.stages]
    assert found == [sum(units[:cut]), sum(units[cut:])]
    trains_and_is_kept(model, tmp_path)


@pytest.mark.parametrize("name", ["swin_tiny", "vit"])
def test_a_few_of_its_blocks_train_in_half_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    make, head = FEW_BLOCKS[name]
    blocks = make()
    cut = len(blocks) // 2
    model = GreedyModel.from_blocks(blocks, [cut, len(blocks) - cut], head(), seed=0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logs = model.train_on_batch(X, np.array([0, 1]), return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    assert logs["stage_2_energy"] > 0


def trains_and_is_kept(model, tmp_path):
    x = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype("float32")
    y = np.array([0, 1, 2, 0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    before = [np.array(v) for v in model.trainable_variables]
    logs = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    for depth, stage in enumerate(model.stages, start=1):
        if stage.residual_units:
            assert logs[f"stage_{depth}_energy"] > 0
    moved = [
        np.any(a != np.asarray(b)) for a, b in zip(before, model.trainable_variables, strict=True)
    ]
    assert np.mean(moved) > 0.9
    wanted = model.predict_exits(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    for found, exit_ in zip(loaded.predict_exits(x, verbose=0), wanted, strict=True):
        np.testing.assert_allclose(found, exit_, rtol=1e-4, atol=1e-5)
    model.truncate(1).save(tmp_path / "depth_1.keras")
    cut = keras.saving.load_model(tmp_path / "depth_1.keras")
    np.testing.assert_allclose(cut(x), wanted[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "vgg", "swin_tiny"])
def test_it_is_split_by_memory(name):
    make, *_ = PUBLISHED[name]
    blocks = make()
    sizes = by_memory(blocks, 4)
    assert sum(sizes) == len(blocks)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("name", ["swin_tiny", "vit", "vgg"])
def test_the_same_seed_gives_the_same_start_and_no_two_kernels_alike(name):
    def weights(seed):
        blocks = ARCHITECTURES[name](SHAPE)
        model = GreedyModel.from_blocks(
            blocks, [2, len(blocks) - 2], LinearHead(3), method="vangl", seed=seed
        )
        return {v.path: np.array(v) for v in model.trainable_variables if len(v.shape) > 1}

    first, again, other = (list(weights(seed).values()) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    drawn = [k for k, one in enumerate(first) if np.ptp(one) > 0]
    assert not any(np.array_equal(first[k], other[k]) for k in drawn)
    starts = [tuple(first[k].ravel()[:4]) for k in drawn]
    assert len(set(starts)) == len(starts)


def test_rates_of_stochastic_depth_rise_to_the_last_block():
    blocks = swin_tiny((32, 32, 3), 2, 4, drop_path=0.11)
    rates = [
        [
            layer.rate
            for unit in residual_units(block)
            for layer in unit.branch[-1:]
            if isinstance(layer, keras.layers.Dropout)
        ]
        for block in blocks
    ]
    np.testing.assert_allclose([(row or [0.0])[0] for row in rates], np.linspace(0, 0.11, 12))
    assert all(len(set(row)) <= 1 for row in rates)


def test_every_second_block_of_swin_shifts_its_windows_by_half():
    blocks = swin_tiny((224, 224, 3))
    shifts = [residual_units(block)[0].branch[1].shift for block in blocks]
    assert shifts == [0, 3] * 6


REFUSED = {
    "depth of vgg": (lambda: vgg(18, SHAPE), "`depth` must be one of 11, 13, 16, 19"),
    "stem": (lambda: resnet50(SHAPE, "stl10"), "`stem` must be one of 'imagenet'"),
    "width": (lambda: resnet101(SHAPE, width=0), "`width` must be at least 1"),
    "patch": (lambda: swin_tiny((30, 32, 3)), "`patch_size` must divide the images' sides"),
    "window": (lambda: swin_tiny((96, 96, 3)), "grids of side 24, 12, 6, 3. Use window=6"),
    "grid": (lambda: swin_tiny((48, 48, 3)), "halve the grid of patches 3 times.* 12x12"),
    "layers": (lambda: swin_tiny((32, 32, 3), depths=(2, 2)), "of one length"),
    "heads": (lambda: swin_tiny((224, 224, 3), num_heads=(5, 6, 12, 24)), "5 heads for 96"),
    "rate": (lambda: vit(SHAPE, drop_path=1.0), "`drop_path` must be at least 0 and below 1"),
    "patch of vit": (lambda: vit((20, 20, 3)), "`patch_size` must divide the images' sides"),
    "heads of vit": (lambda: vit(SHAPE, num_heads=7), "`num_heads` must divide `width`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_sizes_that_do_not_fit_are_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert len(str(error.value)) < 400
