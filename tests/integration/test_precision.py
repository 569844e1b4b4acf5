"""Mixed precision: one loss scale per stage, energy in full precision."""

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import LinearHead

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 3, 16)


def make(policy, optimizer=None):
    keras.config.set_dtype_policy(policy)
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    model = GreedyModel.from_blocks(blocks, [1, 1, 1], LinearHead(3), seed=0)
    model.compile(
        optimizer or keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def test_every_stage_has_a_loss_scale_of_its_own():
    first = [2.0**15, 2.0**120, 2.0**15]  # The second overflows when it scales the loss.
    model = make(
        "mixed_float16",
        [
            keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD(0.05), initial_scale=scale, name=f"stage_{k}"
            )
            for k, scale in enumerate(first)
        ],
    )
    scales = model.optimizer.optimizers
    assert all(isinstance(one, keras.optimizers.LossScaleOptimizer) for one in scales)
    assert len({one.name for one in scales}) == 3
    before = model.stages[1].blocks[0].branch[-1].gamma.numpy()
    model.train_on_batch(X, Y)
    scale = [float(one.dynamic_scale.numpy()) for one in scales]
    assert scale == [first[0], first[1] / 2, first[2]]
    np.testing.assert_array_equal(before, model.stages[1].blocks[0].branch[-1].gamma.numpy())
    assert [int(one.iterations.numpy()) for one in scales] == [1, 0, 1]


def test_every_copy_is_wrapped_once():
    inner = make("mixed_float16").optimizer.optimizers
    assert all(isinstance(one, keras.optimizers.LossScaleOptimizer) for one in inner)
    assert all(type(one.inner_optimizer) is keras.optimizers.SGD for one in inner)
    assert [one.name for one in inner] == ["stage_1", "stage_2", "stage_3"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_training_stays_near_full_precision(policy, tmp_path):
    model = make(policy)
    history = model.fit(X, Y, batch_size=8, epochs=1, verbose=0).history
    keras.config.set_dtype_policy("float32")
    wanted = make("float32").fit(X, Y, batch_size=8, epochs=1, verbose=0).history
    for name, values in wanted.items():
        if "accuracy" not in name:
            np.testing.assert_allclose(history[name], values, rtol=0.05, err_msg=name)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [type(one) for one in loaded.optimizer.optimizers] == [
        type(one) for one in model.optimizer.optimizers
    ]


def test_float64_trains_in_float64():
    keras.config.set_floatx("float64")
    model = make("float64")
    model.fit(X.astype("float64"), Y, epochs=1, verbose=0)
    assert {str(v.dtype) for v in model.trainable_variables} == {"float64"}
