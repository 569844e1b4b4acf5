"""What the model does with a regime's plan."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead
from keras_trgl.regimes import Regime

X = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 16)


class Only(Regime):
    """A single stage steps."""

    def __init__(self, position):
        self.position = position

    def plan(self, num_stages, epoch=0):
        return (self.position,)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_stages_that_are_not_planned_keep_every_weight(position):
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(
        blocks, [1, 1, 1], LinearHead(3), method="vangl", regime=Only(position), seed=0
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [[v.numpy() for v in (*s.weights, *h.weights)] for s, h in parts(model)]
    history = model.fit(X, Y, epochs=2, verbose=0).history
    for k, (stage, head) in enumerate(parts(model)):
        after = [v.numpy() for v in (*stage.weights, *head.weights)]
        same = all(map(np.array_equal, before[k], after))
        assert same == (k != position)
        assert np.isnan(history[f"stage_{k + 1}_loss"]).all() == (k != position)
    assert history["loss"] == history[f"stage_{position + 1}_loss"]
    assert np.isfinite(list(model.evaluate(X, Y, return_dict=True, verbose=0).values())).all()


def parts(model):
    return list(zip(model.stages, model.heads, strict=True))
