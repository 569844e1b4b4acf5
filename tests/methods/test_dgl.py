"""DGL: heads of its own below the last stage, and nothing else."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import ConvHead, DGLHead, LinearHead
from keras_trgl.methods import DGL, VanGL

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 24)


def make(method, head, seed=0):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], head, method=method, seed=seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    return model


@pytest.mark.sampled(1)
@pytest.mark.parametrize("head", [ConvHead, DGLHead])
def test_with_the_head_that_is_given_it_is_vangl_bit_for_bit(head):
    one, other = make(DGL(head(3)), head(3)), make(VanGL(), head(3))
    logs = [m.fit(X, Y, batch_size=8, epochs=2, verbose=0).history for m in (one, other)]
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logs[0] == logs[1]


@pytest.mark.parametrize("kind", ["mlp-sr", "mlp", "cnn"])
def test_heads_have_the_given_one_s_units_and_the_last_is_the_given_one(kind):
    model = make(DGL(kind), ConvHead(3))
    assert [type(head) for head in model.heads] == [DGLHead, DGLHead, ConvHead]
    assert [head.kind for head in model.heads[:2]] == [kind, kind]
    assert [head.units for head in model.heads] == [3, 3, 3]


REFUSED = {
    "word": (lambda: DGL("conv"), ValueError, "`head` must be one of 'mlp-sr', 'mlp', 'cnn', or"),
    "class": (lambda: DGL(ConvHead), TypeError, "`head` must be one of .* or an unbuilt layer"),
    "built": (
        lambda: DGL(make(VanGL(), LinearHead(3)).heads[0]),
        ValueError,
        "`head` is copied for every stage below the last, so it must not be built",
    ),
    "no units": (
        lambda: make(DGL(), keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])),
        ValueError,
        "DGL makes stage 1 a head with as many units as.*which has no `units`. Give one that has",
    ),
    "no prediction": (
        lambda: make(DGL(keras.layers.Conv2D(3, 1)), LinearHead(3)),
        ValueError,
        r"`head` of DGL must give \(batch, units\). Received, at stage 1: .*Flatten or pool in it",
    ),
    "no images": (
        lambda: GreedyModel(
            [[keras.layers.Dense(4)]] * 2, [LinearHead(3)] * 2, method=DGL(), seed=0
        ).build((None, 6)),
        ValueError,
        "Head 1.*does not fit stage 1.*`DGLHead` takes features",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_serve_is_refused_in_a_sentence(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call()
