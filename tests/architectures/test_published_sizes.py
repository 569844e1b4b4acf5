"""Architectures of the papers: stages and heads against the published parameters and shapes.

Variables get no values: networks of 60 million parameters take a moment.
"""

import math

import keras
import pytest

from keras_trgl.architectures import resnet50, resnet101, resnet152, swin_tiny, vgg, vit
from keras_trgl.heads import ConvHead, DenseHead, NormHead
from keras_trgl.splitting import published


def trainable(layer):
    return sum(math.prod(v.shape) for v in layer.trainable_variables)


def counted(blocks, sizes, heads, shape):
    """Give parameters of the stages, of their heads, and the stages' output shapes."""
    blocks, shape = iter(blocks), (None, *shape)
    stages, ends, shapes = [], [], []
    with keras.StatelessScope(initialize_variables=False):
        for size, head in zip(sizes, heads, strict=True):
            stages.append(0)
            for _ in range(size):
                block = next(blocks)
                block.build(shape)
                stages[-1] += trainable(block)
                shape = tuple(block.compute_output_shape(shape))
            head.build(shape)
            ends.append(trainable(head))
            shapes.append(shape[1:])
    assert not list(blocks)
    return stages, ends, shapes


# methods.md 4.2: stage outputs and heads with their pools.
Z, A, B = ((32, 32, 256), 795336), ((16, 16, 512), 2770120), ((8, 8, 1024), 9644232)
# With the pool of 4 that the published code forgets for 50 and 101.
C = ((4, 4, 2048), 38162632)


@pytest.mark.parametrize(
    ("make", "name", "stages", "ends"),
    [
        (resnet50, "trgl_resnet50", [225344, 1219584, 7098368, 14964736], [Z, A, B, C]),
        (resnet101, "trgl_resnet101", [1444928, 10449920, 10054656, 20550656], [A, B, B, C]),
        (resnet152, "trgl_resnet152", [2565184, 14918656, 14523392, 26136576], [A, B, B, C]),
    ],
)
def test_bottlenecks_on_tiny_imagenet(make, name, stages, ends):
    heads = [ConvHead(200) for _ in range(4)]
    blocks = make((64, 64, 3), "tiny_imagenet")
    found = counted(blocks, published(name, 4), heads, (64, 64, 3))
    assert found == (stages, [head for _, head in ends], [shape for shape, _ in ends])


@pytest.mark.parametrize(
    ("make", "name", "stages"),
    [
        (resnet101, "trgl_resnet101", [13004352, 29488128]),
        (resnet152, "trgl_resnet152", [18593344, 39542784]),
    ],
)
def test_bottlenecks_on_cifar100(make, name, stages):
    heads = [ConvHead(100) for _ in range(2)]
    found = counted(make((32, 32, 3), "cifar"), published(name, 2), heads, (32, 32, 3))
    assert found == (stages, [9541732, 37957732], [(8, 8, 1024), (4, 4, 2048)])


@pytest.mark.parametrize(
    ("bias", "stages"),
    [
        (False, [260544, 2066432, 8261632, 9441280]),
        (True, [260928, 2067456, 8263680, 9443328]),
    ],
)
def test_vgg_19_on_tiny_imagenet(bias, stages):
    heads = [*(ConvHead(200) for _ in range(3)), DenseHead(200, pool=2)]
    blocks = vgg(19, (64, 64, 3), bias=bias)
    found = counted(blocks, published("trgl_vgg19", 4), heads, (64, 64, 3))
    # The last is the classifier of Pyeon et al.; of the open 1CNN there it would be 2462920.
    ends = [250312, 795336, 2462920, 25993416]
    shapes = [(32, 32, 128), (16, 16, 256), (8, 8, 512), (4, 4, 512)]
    assert found == (stages, ends, shapes)


def test_pools_of_vgg_are_at_the_start_of_the_unit_that_follows_them():
    blocks = vgg(19, (64, 64, 3))
    pooled = [isinstance(block.layers[0], keras.layers.MaxPooling2D) for block in blocks]
    assert [unit for unit, pool in enumerate(pooled, start=1) if pool] == [3, 5, 9, 13]


def test_units_of_vgg_that_keep_their_shape_are_those_whose_distance_counts():
    # methods.md 2: T(x) − x where shapes agree, in 13 after the pool.
    shape, kept = (None, 64, 64, 3), []
    for number, block in enumerate(vgg(19, (64, 64, 3)), start=1):
        *pool, conv, _, _ = block.layers
        before = pool[0].compute_output_shape(shape) if pool else shape
        shape = conv.compute_output_shape(before)
        kept += [number] if shape == before else []
    assert kept == [2, 4, 6, 7, 8, *range(10, 17)]


@pytest.mark.parametrize(("depth", "units"), [(11, 8), (13, 10), (16, 13), (19, 16)])
def test_vgg_has_a_block_per_convolution(depth, units):
    assert len(vgg(depth, (32, 32, 3))) == units


# methods.md 4.5. A grid no larger than its window has a table of its own size.
SWIN = [
    (96, 4, 6, [303798, 1187628, 11838216, 14176944]),
    (32, 2, 4, [299910, 1186764, 11833032, 14176176]),
    (32, 4, 8, [304422, 1186764, 11830152, 14175792]),
]
# After each stage: how often its grid was halved, and its channels.
MERGED = [(1, 192), (2, 384), (3, 768), (3, 768)]


@pytest.mark.parametrize(("side", "patch_size", "window", "stages"), SWIN)
def test_swin_tiny_in_its_four_stages(side, patch_size, window, stages):
    shape = (side, side, 3)
    blocks = swin_tiny(shape, patch_size, window)
    heads = [NormHead(10) for _ in range(4)]
    found = counted(blocks, published("trgl_swin_tiny", 4), heads, shape)
    grid = side // patch_size
    shapes = [(grid // 2**k, grid // 2**k, width) for k, width in MERGED]
    assert found == (stages, [2314, 4618, 9226, 9226], shapes)


@pytest.mark.parametrize(
    ("make", "head", "total"),
    [
        # Of Microsoft's and Google's published classifiers of 1000 classes, as timm counts them.
        (lambda: swin_tiny((224, 224, 3)), NormHead(1000), 28288354),
        (lambda: vit((224, 224, 3)), NormHead(1000, "first"), 86567656),
        (lambda: vit((224, 224, 3), 16, 384, 12, 6), NormHead(1000, "first"), 22050664),
        (lambda: vit((224, 224, 3), 16, 192, 12, 3), NormHead(1000, "first"), 5717416),
    ],
    ids=["swin_tiny", "vit_base", "vit_small", "vit_tiny"],
)
def test_transformers_on_imagenet_have_the_published_parameters(make, head, total):
    stages, heads, _ = counted(make(), [12], [head], (224, 224, 3))
    assert stages[0] + heads[0] == total
