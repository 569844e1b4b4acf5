"""AugLocal: which blocks are copied, in what shapes, and how many."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet, vit
from keras_trgl.heads import BlocksHead, LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import AugLocal
from keras_trgl.types import StagePlace

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 8, 8, 3)).astype("float32")
Y = RNG.integers(0, 3, 8)


def place(last_block, num_blocks=16, num_stages=13):
    later = (None,) * (num_blocks - 1 - last_block)
    return StagePlace(last_block + 1, num_stages, (), (), (), 3, later, last_block)


@pytest.mark.parametrize(
    ("layer", "picks"),
    [(0, [5, 10, 15]), (5, [8, 12, 15]), (12, [13, 14, 15]), (13, [14, 15])],
)
def test_picks_are_the_published_ones(layer, picks):
    assert AugLocal(3).picks(place(layer)) == picks


def test_a_pyramid_has_the_published_depths():
    method = AugLocal(3, pyramid=True)
    assert [method.stage_depth(k, 13) for k in range(1, 13)] == [3] * 6 + [2] * 6
    assert [AugLocal(3).stage_depth(k, 13) for k in (1, 12)] == [3, 3]
    assert AugLocal(1, pyramid=True).stage_depth(5, 13) == 1
    assert method.stage_depth(1, 2) == 3


def test_stages_are_single_blocks_but_the_last():
    sizes = AugLocal(3).stage_sizes(16)
    assert (len(sizes), sum(sizes), sizes[-1], set(sizes[:-1])) == (13, 16, 4, {1})
    with pytest.raises(ValueError, match="`num_blocks` must be at least 4"):
        AugLocal(3).stage_sizes(3)


def heads_of(depth, **options):
    """Give a ResNet-32's heads, as the paper has it, on images of 32x32."""
    blocks = resnet(32, (32, 32, 3), separate_stem=True, **options)
    method = AugLocal(depth)
    model = GreedyModel.from_blocks(
        blocks, method.stage_sizes(len(blocks)), LinearHead(10), method=method, seed=0
    )
    model.build((None, 32, 32, 3))
    return model


@pytest.mark.parametrize("shortcut", ["pad", "conv"])
def test_copies_have_the_published_shapes(shortcut):
    model = heads_of(3, shortcut=shortcut)
    shapes = []
    for k in (0, 5, 11):
        shape, found = model._network.parts[k].place.feature_shape, []
        for block in model.heads[k].blocks:
            shape = block.compute_output_shape(shape)
            found.append(shape[1:])
        shapes.append(found)
    # Widths of layers 5, 10, 15; 8, 12, 15; 12, 13, 15: stride 2 where they double.
    assert shapes == [
        [(32, 32, 16), (16, 16, 32), (8, 8, 64)],
        [(16, 16, 32), (8, 8, 64), (8, 8, 64)],
        [(8, 8, 64)] * 3,
    ]
    kernels = {id(v) for head in model.heads for v in head.variables}
    assert not kernels & {id(v) for stage in model.stages for v in stage.variables}


@pytest.mark.parametrize(
    ("depth", "sides"), [(1, [16]), (2, [16, 8])], ids=["one change left", "made up for"]
)
def test_a_width_that_is_passed_over_costs_one_stride_a_block(depth, sides):
    blocks = resnet(14, (32, 32, 3), widths=(4, 8, 16))
    sizes = [1] * 6
    model = GreedyModel.from_blocks(blocks, sizes, LinearHead(3), method=AugLocal(depth), seed=0)
    shape, found = (None, 32, 32, 4), []
    for block in model.heads[0].blocks:
        shape = block.compute_output_shape(shape)
        found.append(shape[1])
    assert found == sides
    assert shape[-1] == 16
    assert model.heads[0].normalize == (depth == 1)


def test_copies_start_elsewhere_and_learn():
    blocks = resnet(8, (8, 8, 3), widths=(4, 4, 4))
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(3), method=AugLocal(1), seed=0)
    copy, source = model.heads[0].blocks[0], model.stages[2].blocks[0]
    pairs = list(zip(copy.trainable_variables, source.trainable_variables, strict=True))
    assert [a.shape for a, _ in pairs] == [b.shape for _, b in pairs]
    before = copy.get_weights()
    assert not np.array_equal(before[0], source.get_weights()[0])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, epochs=1, verbose=0)
    assert not np.array_equal(before[0], copy.get_weights()[0])


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: vit((8, 8, 3), 4, 8, 3, 2),
        lambda: [
            ResidualBlock([keras.layers.Conv2D(4, 3, padding="same")], [keras.layers.Conv2D(4, 1)]),
            keras.layers.Conv2D(6, 3, 2, activation="relu"),
            keras.layers.Conv2D(6, 1),
        ],
    ],
    ids=["vit", "stock layers"],
)
def test_blocks_of_any_kind_are_copied(blocks):
    model = GreedyModel.from_blocks(blocks(), [1, 1, 1], LinearHead(3), method=AugLocal(1), seed=0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(X, Y, epochs=1, verbose=0).history
    assert np.isfinite(history["stage_1_loss"]).all()
    assert type(model.heads[0]) is BlocksHead


def functional():
    inputs = x = keras.Input((8, 8, 3))
    for width, stride in ((4, 1), (8, 2), (16, 2)):
        x = keras.layers.Conv2D(width, 3, stride, padding="same", activation="relu")(x)
    return GreedyModel.from_model(
        keras.Model(inputs, x), 3, LinearHead(3), method=AugLocal(1), seed=0
    )


def models_as_blocks():
    def block(shape, width):
        inputs = keras.Input(shape)
        return keras.Model(inputs, keras.layers.Conv2D(width, 3, 2, padding="same")(inputs))

    blocks = [block((8, 8, 3), 4), block((4, 4, 4), 8), block((2, 2, 8), 16)]
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(3), method=AugLocal(1))
    model.build((None, 8, 8, 3))


REFUSED = {
    "depth": (lambda: AugLocal(0), ValueError, r"`depth` must be at least 1.*use `VanGL\(\)`"),
    "type": (lambda: AugLocal(1.5), TypeError, "`depth` must be an integer"),
    "no units": (
        lambda: GreedyModel.from_blocks(
            resnet(8, (8, 8, 3)),
            [1, 1, 1],
            keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]),
            method=AugLocal(1),
        ),
        ValueError,
        "AugLocal makes stage 1 a head with as many units as.*has no `units`. Give one that has",
    ),
    "parts of a functional model": (
        functional,
        ValueError,
        r"AugLocal copies later blocks, which must fit.*of stage 1: part_3 of type Part, which "
        "has weights already, and cannot be made anew from its configuration. Give unbuilt blocks",
    ),
    "models as blocks": (
        models_as_blocks,
        ValueError,
        r"AugLocal copies later blocks, which must fit.*stage 1: .*of type Functional, which takes "
        r"inputs \(None, 2, 2, 8\) alone, not \(None, 4, 4, 4\). Give unbuilt blocks",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_do_is_refused_in_a_sentence(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()
