"""What a SavedModel gives, holds and refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import THRESHOLDS
from exported import (
    BATCHES,
    NAMES,
    SHAPE,
    TOLERANCE,
    client_rows,
    live,
    network,
    parameters,
    scatter,
    small_network,
    stored,
    words_of,
)

from keras_trgl import GreedyModel
from keras_trgl.datasets import Normalize
from keras_trgl.export import Inputs, Outputs, export_exit, export_serving

NORMALIZE = Normalize([0.5], [0.3])


@pytest.fixture(scope="module")
def served(report):
    return tf.saved_model.load(str(report.path)).signatures


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def assert_close(got, wanted):
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_exit_gives_what_the_live_model_gives(model, served, depth, size):
    rows = client_rows(size)
    wanted = live(model, NORMALIZE(rows))[depth - 1]
    got = served[f"exit_{depth}"](inputs=tf.constant(rows))
    assert_close(got["logits"], wanted)
    assert_close(got["probabilities"], softmax(wanted))
    np.testing.assert_array_equal(got["class_id"], wanted.argmax(-1))
    assert [NAMES[k] for k in wanted.argmax(-1)] == [one.decode() for one in got["label"].numpy()]


@pytest.mark.parametrize("size", BATCHES)
def test_all_exits_and_the_default_are_the_exits(model, served, size):
    rows = client_rows(size)
    wanted = live(model, NORMALIZE(rows))
    got = served["all_exits"](inputs=tf.constant(rows))
    for depth, logits in enumerate(wanted, start=1):
        assert_close(got[f"logits_{depth}"], logits)
        np.testing.assert_array_equal(got[f"class_id_{depth}"], logits.argmax(-1))
    assert_close(served["serving_default"](inputs=tf.constant(rows))["logits"], wanted[1])


def test_row_by_row_equals_the_batch(served):
    rows = client_rows(7)
    for name in set(served) - {"encoded"}:
        batch = served[name](inputs=tf.constant(rows))
        for i in range(len(rows)):
            single = served[name](inputs=tf.constant(rows[i : i + 1]))
            for key, value in single.items():
                if value.dtype == tf.float32:
                    assert_close(value[0], batch[key][i])
                else:
                    assert value[0] == batch[key][i]


@pytest.mark.parametrize("size", BATCHES)
def test_each_row_leaves_at_the_first_depth_that_is_sure(model, served, size):
    rows = client_rows(size)
    logits = np.stack(live(model, NORMALIZE(rows)))
    sure = softmax(logits).max(-1)
    leaves = np.vstack([sure[:-1] >= np.array(THRESHOLDS)[:, None], np.ones((1, size), bool)])
    wanted = leaves.argmax(0)
    got = served["confident_exit"](inputs=tf.constant(rows))
    np.testing.assert_array_equal(got["exit"], wanted + 1)
    assert_close(got["logits"], logits[wanted, np.arange(size)])
    if size == 64:
        assert set(wanted) == {0, 1, 2}


@pytest.mark.parametrize(("threshold", "depth"), [(0.0, 1), (1.01, 3)])
def test_thresholds_at_the_ends_stop_all_or_none(tmp_path, threshold, depth):
    model = scatter(small_network())
    done = export_serving(model, tmp_path, outputs=Outputs(thresholds=threshold))
    run = tf.saved_model.load(str(done.path)).signatures["confident_exit"]
    x = NORMALIZE(client_rows(7))
    got = run(inputs=tf.constant(x))
    assert set(got["exit"].numpy()) == {depth}
    assert_close(got["logits"], live(model, x)[depth - 1])


class FewRows(keras.layers.Layer):
    """Fails on more than eight rows, as many as an export is checked with."""

    def call(self, x):
        with tf.control_dependencies([tf.debugging.assert_less_equal(tf.shape(x)[0], 8)]):
            return tf.identity(x)

    def compute_output_shape(self, input_shape):
        return input_shape


def test_a_row_that_left_costs_no_later_stage(tmp_path):
    plain = scatter(network())
    few = FewRows(name="few")
    few.build((None, 8, 8, 4))
    x = NORMALIZE(client_rows(64))
    sure = np.sort(softmax(live(plain, x)[0]).max(-1))
    stages = [plain.stages[0], [few, *plain.stages[1].blocks], plain.stages[2]]
    heads = plain.heads
    # Layers belong to one living model.
    del plain
    model = GreedyModel(stages, heads)
    done = export_serving(model, tmp_path, outputs=Outputs(thresholds=(float(sure[5]), 2.0)))
    run = tf.saved_model.load(str(done.path)).signatures
    exits = run["confident_exit"](inputs=tf.constant(x))["exit"].numpy()
    assert sorted(set(exits)) == [1, 3]
    assert (exits == 3).sum() in (5, 6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run["exit_2"](inputs=tf.constant(x))


def test_encoded_images_are_decoded_and_resized(model, served):
    rows = client_rows(3)
    large = np.repeat(np.repeat(rows, 3, 1), 3, 2)
    logits = live(model, NORMALIZE(rows))[1]
    same = tf.constant([tf.io.encode_png(one).numpy() for one in rows])
    assert_close(served["encoded"](image_bytes=same)["logits"], logits)
    shrunk = tf.constant([tf.io.encode_png(one).numpy() for one in large])
    wanted = tf.round(tf.image.resize(tf.cast(large, tf.float32), SHAPE[:2], antialias=True))
    assert_close(
        served["encoded"](image_bytes=shrunk)["logits"], live(model, NORMALIZE(wanted.numpy()))[1]
    )


@pytest.mark.parametrize("kind", ["Normalization", "BatchNormalization"])
def test_preprocessing_may_be_a_layer_with_weights_of_its_own(model, tmp_path, kind):
    layer = getattr(keras.layers, kind)()
    if kind == "Normalization":
        layer.adapt(client_rows(64).astype("float32"))
    else:
        layer.build((None, *SHAPE))
        layer.moving_mean.assign([128.0])
        layer.moving_variance.assign([5000.0])
    done = export_exit(model, 1, tmp_path, inputs=Inputs("uint8", layer))
    # An adapted layer keeps its statistics as constants, the other one four weights.
    assert done.numbers == parameters(model, 1) + (4 if kind == "BatchNormalization" else 0)
    rows = client_rows(7)
    got = tf.saved_model.load(str(done.path)).signatures["exit_1"](inputs=tf.constant(rows))
    assert_close(got["logits"], live(model, layer(rows.astype("float32")))[0])


@pytest.mark.parametrize("shape", [SHAPE, (3, *SHAPE[:2]), (2, 8, 9, 1), (2, 2, *SHAPE)])
def test_a_request_of_another_shape_is_an_error_of_its_own(served, shape):
    for name in set(served) - {"encoded"}:
        with pytest.raises(tf.errors.InvalidArgumentError):
            served[name](inputs=tf.zeros(shape, tf.uint8))


def test_weights_are_stored_once(model, report):
    whole = sum(parameters(model, k) for k in (1, 2, 3))
    shared = 2 * sum(one.count_params() for one in model.stages[0].blocks)
    shared += sum(one.count_params() for one in model.stages[1].blocks)
    count = sum(int(np.prod(shape)) for shape in stored(report.path))
    assert count == report.numbers == whole - shared


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_single_exit_holds_only_what_it_needs(model, tmp_path, depth):
    done = export_exit(model, depth, tmp_path, inputs=Inputs("uint8", NORMALIZE))
    count = sum(int(np.prod(shape)) for shape in stored(done.path))
    assert count == done.numbers == parameters(model, depth)
    words = words_of(done.path)
    for other in range(1, 4):
        assert (f"head_{other}".encode() in words) == (other == depth)
        assert (f"stage_{other}".encode() in words) == (other <= depth)
    for block in range(depth + 2, 5):
        assert f"block_{block}".encode() not in words
    rows = client_rows(7)
    got = tf.saved_model.load(str(done.path)).signatures[f"exit_{depth}"](inputs=tf.constant(rows))
    assert_close(got["logits"], live(model, NORMALIZE(rows))[depth - 1])


def test_every_output_has_the_batch_axis(served):
    for name, signature in served.items():
        for key, shape in signature.output_shapes.items():
            assert shape.rank >= 1, (name, key)
            assert shape[0] is None, (name, key)


def test_no_machine_and_no_path_is_in_the_graph(report):
    words = words_of(report.path)
    assert str(report.path.parent).encode() not in words
    assert b"/job:" not in words


@pytest.mark.parametrize("kind", ["one_device", "mirrored"])
def test_a_model_made_under_a_strategy_is_exported_without_its_places(tmp_path, kind):
    if kind == "mirrored":
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = tf.distribute.OneDeviceStrategy("CPU:1")
    with strategy.scope():
        model = scatter(network())
        with pytest.raises(ValueError, match="outside the scope of a strategy"):
            export_serving(model, tmp_path)
    done = export_serving(model, tmp_path, outputs=Outputs(thresholds=0.5))
    assert b"CPU:1" not in words_of(done.path)
    assert done.numbers == sum(one.count_params() for one in layers_of(model))
    x = NORMALIZE(client_rows(7))
    got = tf.saved_model.load(str(done.path)).signatures["exit_3"](inputs=tf.constant(x))
    assert_close(got["logits"], live(model, x)[2])


def layers_of(model):
    return [block for stage in model.stages for block in stage.blocks] + list(model.heads)


@pytest.mark.parametrize("device", ["CPU:1"])
def test_stages_on_several_devices_are_exported_without_their_places(tmp_path, device):
    model = network()
    with tf.device(device):
        placed = scatter(network())
    stages, heads = placed.stages[:2], placed.heads[:2]
    # Layers belong to one living model.
    del placed
    model = GreedyModel(stages, heads)
    model.build((None, *SHAPE))
    done = export_exit(model, 2, tmp_path)
    assert b"CPU:1" not in words_of(done.path)
    x = NORMALIZE(client_rows(7))
    got = tf.saved_model.load(str(done.path)).signatures["exit_2"](inputs=tf.constant(x))
    assert_close(got["logits"], live(model, x)[1])


@pytest.mark.parametrize("regime", ["sequential", "buffered"])
def test_a_trained_model_is_exported_after_any_regime(tmp_path, regime):
    from keras_trgl import regimes

    chosen = regimes.Sequential(1) if regime == "sequential" else regimes.Buffered(2)
    model = small_network(regime=chosen)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    x, y = NORMALIZE(client_rows(16)).numpy(), np.arange(16) % 5
    model.fit(x, y, batch_size=8, verbose=0)
    done = export_serving(model, tmp_path)
    got = tf.saved_model.load(str(done.path)).signatures["all_exits"](inputs=tf.constant(x))
    for depth, wanted in enumerate(live(model, x), start=1):
        assert_close(got[f"logits_{depth}"], wanted)


def test_half_precision_gives_float32_outputs(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = scatter(small_network())
    done = export_serving(model, tmp_path, outputs=Outputs(thresholds=0.5))
    run = tf.saved_model.load(str(done.path)).signatures["exit_1"]
    assert run(inputs=tf.zeros((1, *SHAPE)))["logits"].dtype == tf.float32


def test_a_single_unit_is_a_probability_of_class_one(tmp_path):
    model = scatter(small_network(units=1))
    outputs = Outputs(class_names=["no", "yes"], thresholds=0.8)
    done = export_serving(model, tmp_path, outputs=outputs)
    run = tf.saved_model.load(str(done.path)).signatures
    x = NORMALIZE(client_rows(7))
    got = run["exit_1"](inputs=tf.constant(x))
    wanted = 1 / (1 + np.exp(-live(model, x)[0]))
    assert_close(got["probabilities"], wanted)
    np.testing.assert_array_equal(got["class_id"], wanted[:, 0] >= 0.5)


def test_a_regression_gives_values_alone(tmp_path):
    model = scatter(small_network(units=2))
    done = export_serving(model, tmp_path, outputs=Outputs("values"))
    run = tf.saved_model.load(str(done.path)).signatures["all_exits"]
    assert set(run.structured_outputs) == {"values_1", "values_2", "values_3"}
