"""How often things are traced: stages in turn trace what they need, once."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_trgl as trgl
from keras_trgl.training.stage_step import StageStep
from keras_trgl.training.update import apply_gradients

STAGES = 3


@pytest.fixture
def counted(monkeypatch):
    """Counts runs of Python code that makes a graph, and results of metrics."""
    counts = collections.Counter()

    def watch(owner, name, key):
        plain = getattr(owner, name)

        def watched(self, *args, **kwargs):
            counts[key(self)] += 1
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(StageStep, "_update", lambda step: f"step {step.depth}")
    watch(StageStep, "_features", lambda step: f"pass {step.depth}")
    watch(keras.metrics.Mean, "result", lambda metric: "results")
    return counts


@pytest.mark.parametrize("cache", ["memory", None])
def test_stages_in_turn_are_traced_once_and_tell_only_of_themselves(counted, cache):
    blocks = trgl.architectures.resnet(8, (8, 8, 1), widths=(2, 2, 2))
    model = trgl.GreedyModel.from_blocks(
        *(blocks, [1] * STAGES, trgl.heads.LinearHead(3)),
        regime=trgl.regimes.Sequential(epochs=2, cache=cache),
        seed=0,
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.ones((8, 8, 8, 1), "float32"), np.arange(8) % 3
    logs = model.fit(x, y, batch_size=4, verbose=0).history
    steps = {f"step {k}": 1 for k in range(1, STAGES + 1)}
    # The last stage hands its features to nobody.
    passes = {f"pass {k}": 1 for k in range(1, STAGES)}
    told = counted.pop("results")
    assert dict(counted) == {**steps, **passes}
    # Of a stage: loss, objective and energy. In a trace and at two epochs' ends, for the stage that
    # trains alone, without a prefix once more, and once more for its names.
    assert told <= STAGES * 3 * 8
    assert np.isnan(logs["stage_3_loss"][0])
    assert np.isfinite(logs["stage_3_loss"][-1])
    counted.clear()
    model.fit(x, y, batch_size=4, verbose=0)
    assert set(counted) == {"results"}


def test_the_check_for_finite_numbers_is_one_condition():
    model = trgl.GreedyModel.from_blocks(
        trgl.architectures.resnet(8, (8, 8, 1), widths=(2, 2, 2)), [3], trgl.heads.LinearHead(3)
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    step = model._trainer.steps.steps[0]
    model.optimizer.build([])

    @tf.function(autograph=False)
    def update(x, y):
        return step._update((x, y, None, None), speaks=True)[2]

    graph = update.get_concrete_function(tf.ones((2, 8, 8, 1)), tf.zeros((2,), "int64")).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("If") + kinds.count("StatelessIf") == 1
    assert "Assert" not in kinds


def test_an_update_waits_for_its_gradients():
    variable = keras.Variable(np.zeros((3, 5), "float32"))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([variable])

    @tf.function(autograph=False)
    def update(gradient):
        apply_gradients(optimizer, [gradient], [variable])

    graph = update.get_concrete_function(tf.TensorSpec((3, 5))).graph
    products = [op for op in graph.get_operations() if op.type == "Mul"]
    # Made before, they would lie there through the backward pass.
    assert products
    assert all(_waits_for(op, "IdentityN") for op in products)


def _waits_for(op, kind):
    before = [*op.control_inputs, *(one.op for one in op.inputs)]
    return op.type == kind or any(_waits_for(one, kind) for one in before)
