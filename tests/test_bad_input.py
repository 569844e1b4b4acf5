"""Bad input is met at the door, and the message says the way out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel, callbacks, diagnostics, export
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.methods import TRGL, VanGL


def weights(model):
    return [variable.numpy() for variable in model.variables]


def assert_same(before, model):
    for one, other in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_stages_and_heads_must_be_as_many(tiny_blocks):
    with pytest.raises(ValueError, match="Received: 2 stages, 1 heads"):
        GreedyModel([tiny_blocks[:2], tiny_blocks[2:]], [LinearHead(3)])


def test_stage_sizes_must_sum_to_the_blocks(tiny_blocks):
    with pytest.raises(
        ValueError, match=r"which sum to 5. To split evenly use `splitting.by_depth"
    ):
        GreedyModel.from_blocks(tiny_blocks, [2, 3], LinearHead(3))


def test_stages_must_not_be_empty(tiny_blocks):
    with pytest.raises(ValueError, match="`stage_sizes` must be at least 1"):
        GreedyModel.from_blocks(tiny_blocks, [4, 0], LinearHead(3))


def test_a_head_that_does_not_fit_is_named_with_its_stage(tiny_blocks):
    with pytest.raises(ValueError, match=r"does not fit stage 1, whose features are .*8, 8, 4"):
        GreedyModel.from_blocks(tiny_blocks, [2, 2], ConvHead(3, pool=3))


def test_a_stage_of_no_layers_is_refused():
    with pytest.raises(TypeError, match="must be made of Keras layers"):
        GreedyModel([["conv"]], [LinearHead(3)])


def test_a_built_head_cannot_be_copied(tiny_blocks):
    head = LinearHead(3)
    head.build((None, 8, 8, 4))
    with pytest.raises(ValueError, match="so it must not be built"):
        GreedyModel.from_blocks(tiny_blocks, [2, 2], head)


def test_a_built_layer_cannot_stand_in_two_stages():
    dense = keras.layers.Dense(4, name="shared")
    dense.build((None, 4))
    with pytest.raises(ValueError, match="Received twice: shared"):
        GreedyModel([dense, dense], [LinearHead(3)] * 2)


def test_names_of_methods_and_regimes_are_listed(tiny_blocks):
    with pytest.raises(ValueError, match="`method` must be one of 'trgl', 'vangl', 'end_to_end'"):
        GreedyModel.from_blocks(tiny_blocks, [4], LinearHead(3), method="tgrl")
    with pytest.raises(ValueError, match="`regime` must be one of 'parallel'"):
        GreedyModel.from_blocks(tiny_blocks, [4], LinearHead(3), regime="serial")
    with pytest.raises(TypeError, match="Did you pass a class instead of an object"):
        GreedyModel.from_blocks(tiny_blocks, [4], LinearHead(3), method=VanGL)


@pytest.mark.parametrize("tau", [0.0, -1.0, [1.0, 0.0]])
def test_tau_must_be_above_zero(tau):
    with pytest.raises(ValueError, match=r"`tau` must be above 0 and finite.*use `VanGL"):
        TRGL(tau=tau)


def test_a_list_of_tau_has_one_value_per_stage(tiny_blocks):
    with pytest.raises(ValueError, match="one value per stage, 2"):
        GreedyModel.from_blocks(tiny_blocks, [2, 2], LinearHead(3), method=TRGL([1.0] * 3))


@pytest.mark.parametrize("seed", [-1])
def test_a_negative_seed_is_refused(tiny_blocks, seed):
    with pytest.raises(ValueError, match="`seed` must be at least 0"):
        GreedyModel.from_blocks(tiny_blocks, [4], LinearHead(3), seed=seed)


def test_labels_out_of_range_are_met_before_training(tiny_model, gaussian_batch):
    x, y = gaussian_batch
    before = weights(tiny_model)
    with pytest.raises(ValueError, match=r"class indices 0 to 2.*Received: y with values 0 to 3"):
        tiny_model.fit(x, np.append(y[:-1], 3), verbose=0)
    with pytest.raises(ValueError, match="Received: validation labels"):
        tiny_model.fit(x, y, validation_data=(x, y - 1), verbose=0)
    with pytest.raises(ValueError, match="class indices 0 to 2"):
        tiny_model.evaluate(x, y + 5, verbose=0)
    assert_same(before, tiny_model)


def test_labels_out_of_range_in_a_pipeline_are_met_in_the_step(tiny_model, gaussian_batch):
    x, y = gaussian_batch
    data = tf.data.Dataset.from_tensor_slices((x, y + 1)).batch(16)
    before = weights(tiny_model)
    with pytest.raises(ValueError, match="The labels are out of range: they must be 0 to 2"):
        tiny_model.fit(data, verbose=0)
    assert_same(before, tiny_model)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("stage", [1, 2])
def test_nan_names_the_stage_and_reaches_no_weight(tiny_model, gaussian_batch, stage, eager):
    tiny_model.run_eagerly = eager
    bias = tiny_model.heads[stage - 1].layers_in_a_row[-1].bias
    bias.assign(np.full(3, np.nan))
    own = [v for v in tiny_model._trainer.steps.trainable_variables(stage - 1) if v is not bias]
    before = [v.numpy() for v in own]
    with pytest.raises(ValueError, match=f"Stage {stage}: the task loss is not finite.*Lower the"):
        tiny_model.fit(*gaussian_batch, verbose=0)
    for variable, value in zip(own, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_fit_before_compile_says_so(tiny_blocks, gaussian_batch):
    model = GreedyModel.from_blocks(tiny_blocks, [4], LinearHead(3))
    with pytest.raises(ValueError, match="must be compiled before it is trained"):
        model.fit(*gaussian_batch)
    with pytest.raises(ValueError, match="must be compiled before it is trained"):
        model.evaluate(*gaussian_batch)


def test_a_model_without_a_loss_says_so(tiny_model, gaussian_batch):
    tiny_model.compile("sgd")
    with pytest.raises(ValueError, match="Every head needs a loss"):
        tiny_model.fit(*gaussian_batch)


@pytest.mark.parametrize("depth", [0, 3, -1])
def test_depths_outside_the_model_are_refused(tiny_model, depth):
    with pytest.raises(ValueError, match="A depth must be 1 to 2"):
        tiny_model.truncate(depth)


def test_a_depth_of_another_type_is_refused(tiny_model, gaussian_batch):
    with pytest.raises(TypeError, match="A depth must be an int"):
        tiny_model(gaussian_batch[0], exits="last")


def test_an_unbuilt_model_cannot_be_truncated():
    model = GreedyModel([[keras.layers.Dense(4)]], [keras.layers.Dense(3)])
    for call in (lambda: model.truncate(1), lambda: model.predict_exits(None)):
        with pytest.raises(ValueError, match="once the model is built"):
            call()


PATHS = {
    "backup_dir": lambda model, data: callbacks.BackupAndRestore(None),
    "filepath": lambda model, data: callbacks.DepthCheckpoint(None),
    "base_dir": lambda model, data: export.export_serving(model, None),
    "path": lambda model, data: export.export_litert(model, 1, None),
    "folder": lambda model, data: diagnostics.report(model, data, None),
}


@pytest.mark.parametrize("name", PATHS)
def test_what_is_no_path_is_told_by_its_name(tiny_model, gaussian_batch, name):
    with pytest.raises(TypeError, match=f"`{name}` must be a path. Received: {name}=None. Pass a"):
        PATHS[name](tiny_model, gaussian_batch)


@pytest.mark.parametrize("fraction", [1.0, 1.5])
def test_a_validation_split_that_leaves_nothing_is_refused(tiny_model, gaussian_batch, fraction):
    with pytest.raises(ValueError, match="must leave examples on both sides"):
        tiny_model.fit(*gaussian_batch, validation_split=fraction)


def test_a_validation_split_needs_arrays(tiny_model, gaussian_batch):
    data = tf.data.Dataset.from_tensor_slices(gaussian_batch).batch(8)
    with pytest.raises(ValueError, match="`validation_split` needs arrays"):
        tiny_model.fit(data, validation_split=0.5)
