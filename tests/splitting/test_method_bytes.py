"""Bytes of what methods have beside the blocks: heads, nets, and what is in flight."""

import math

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.methods import (
    DDG,
    DGL,
    DNI,
    AugLocal,
    EndToEnd,
    FeaturesReplay,
    InfoPro,
    InfoProL,
    PredSim,
    VanGL,
)
from keras_trgl.splitting.network_bytes import (
    VARIABLES_ROOM,
    NetworkBytes,
    WayToTrain,
    side_by_side,
)
from keras_trgl.splitting.traced_bytes import BlockBytes

SHAPE, BATCH, WIDTHS = (8, 8, 1), 16, (4, 8, 8)
FEATURES = [BATCH * 8 * 8 * 4 * 4, BATCH * 4 * 4 * 8 * 4]
"""Bytes of what crosses the two cuts of three stages."""

DATA = BATCH * 8 * 8 * 4
WAY = WayToTrain((1, 1, 1))
METHODS = {
    "dgl": DGL(),
    "pred_sim": PredSim(),
    "info_pro": InfoPro(),
    "info_pro_contrast": InfoPro("contrast"),
    "info_pro_l": InfoProL(),
    "aug_local": AugLocal(1),
    "ddg": DDG(),
    "features_replay": FeaturesReplay(),
    "dni": DNI(8),
    "end_to_end": EndToEnd(),
}


def counted(method, in_turn=False):
    blocks = resnet(8, SHAPE, widths=WIDTHS)
    options = blocks, LinearHead(3), SHAPE, BATCH, keras.optimizers.SGD(), None
    return NetworkBytes(*options, in_turn=in_turn, method=method)


def model_of(method, stage_sizes=(1, 1, 1)):
    blocks = resnet(8, SHAPE, widths=WIDTHS)
    model = trgl.GreedyModel.from_blocks(blocks, list(stage_sizes), LinearHead(3), method=method)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.build((None, *SHAPE))
    return model


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", METHODS)
def test_a_plan_and_its_model_count_the_same(name):
    # The plan makes heads and nets from the blocks alone; the model has them.
    _, standing, peak = model_of(METHODS[name]).count_bytes(BATCH)
    found = counted(METHODS[name])
    assert found.total(WAY) == peak
    assert found.standing(WAY) == standing


@pytest.mark.parametrize("name", ["dgl", "info_pro", "pred_sim", "aug_local"])
def test_what_stands_is_every_weight_and_the_batch(name):
    # Plain SGD has no slots.
    model = model_of(METHODS[name])
    weights = sum(math.prod(v.shape) * np.dtype(str(v.dtype)).itemsize for v in model.weights)
    assert model.count_bytes(BATCH)[1] == pytest.approx(weights + DATA, abs=64)


def test_a_net_beside_the_head_keeps_what_it_needs_through_the_backward_pass():
    plain, more = counted(VanGL()).stages(WAY), counted(PredSim()).stages(WAY)
    kernels = [9 * channels**2 * 4 for channels in (4, 8, 8)]
    for before, after, features, kernel in zip(plain, more, [*FEATURES, 0], kernels, strict=True):
        # Its output, and the gradients of features and kernel, wait for those of the stage.
        assert after - before >= features
        assert after - before <= 3 * max(features, FEATURES[1]) + 2 * kernel


def test_what_waits_is_what_the_method_says():
    replay, late = counted(FeaturesReplay()), counted(DDG())
    # Δ_k inputs, of data at the first; two gradients for features, and one where Δ is 1.
    assert replay.in_flight(WAY) == 2 * DATA + FEATURES[0] + 2 * FEATURES[0] + FEATURES[1]
    # Δ_k + 1 gradients of weights, and none at the last.
    trained = [block.trained for block in late.blocks]
    assert late.in_flight(WAY) == 3 * trained[0] + 2 * trained[1]
    assert [counted(one).in_flight(WAY) for one in (VanGL(), EndToEnd())] == [0, 0]
    # On its way down; that of the stage in training, and the data, are counted in any case.
    assert counted(DNI(8)).in_flight(WAY) == FEATURES[0]


def test_a_pass_through_all_stages_holds_them_all():
    whole, late = counted(EndToEnd()), counted(DDG())
    one = WayToTrain((3,))
    assert whole.total(WAY) == whole.total(one)
    assert late.stages(WAY) == whole.stages(one) * 3
    # Above end to end's by what waits, with what the allocator takes more.
    more = VARIABLES_ROOM * late.in_flight(WAY)
    assert late.total(WAY) - whole.total(one) == pytest.approx(more, abs=2)
    assert counted(FeaturesReplay()).total(WAY) < late.total(WAY)


def net(**changes):
    plain = {"kept": 10, "input": 4, "reads_input": True, "output": 1, "reads_output": False}
    return BlockBytes(**{**plain, "forward": 14, "backward": 20, "gradients": 2, **changes})


def test_nets_side_by_side():
    assert side_by_side([]) == []
    alone = net()
    assert side_by_side([alone]) == [alone]
    (both,) = side_by_side([alone, net(forward=9, backward=25, reads_input=False)])
    assert (both.kept, both.gradients, both.reads_input) == (2 * (10 + 1), 4, True)
    # Backward the second net runs first, while the first waits; then a gradient waits for it.
    assert both.forward == 11 + 9
    assert both.backward == max(11 + 25, 20 + 10 + 4)


def test_stages_by_memory_of_a_model_count_the_method():
    inputs = x = keras.Input((8, 8, 4))
    for _ in range(4):
        x = keras.layers.Add()([x, keras.layers.Conv2D(4, 3, padding="same")(x)])
    model = keras.Model(inputs, x)
    plain = trgl.splitting.by_memory(model, 2, LinearHead(3))
    # The decoder of the first stage is large: it gets fewer blocks.
    decoded = trgl.splitting.by_memory(model, 2, LinearHead(3), method=InfoPro())
    assert sum(plain) == sum(decoded) == 4
    assert decoded[0] < plain[0]
