"""The seam of local methods: what a method is told, what it may give, what is done with it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_trgl as trgl
from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import LocalMethod

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.integers(0, 3, 32)


@keras.saving.register_keras_serializable("tests")
class Norm(LocalMethod):
    """The task loss and the features' mean square."""

    def stage_losses(self, step):
        return {"task": step.task_loss, "size": 0.1 * ops.mean(ops.square(step.features))}


@keras.saving.register_keras_serializable("tests")
class Rebuilds(LocalMethod):
    """The task loss and the error of a decoder of its own."""

    needs_data = True

    def stage_layers(self, stage):
        return {"decoder": keras.layers.Dense(stage.data_shape[-1], kernel_regularizer="l2")}

    def stage_losses(self, step):
        rebuilt = step.layers["decoder"](step.features)
        return {"task": step.task_loss, "error": ops.mean(ops.square(rebuilt - step.data))}


@keras.saving.register_keras_serializable("tests")
class Wrapper(keras.layers.Layer):
    """A dense layer, then the head that was given."""

    def __init__(self, head=None, **kwargs):
        super().__init__(**kwargs)
        is_config = isinstance(head, dict)
        self.head = keras.saving.deserialize_keras_object(head) if is_config else head
        self.first = keras.layers.Dense(4, "relu")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.head.build((input_shape[0], 4))

    def call(self, features):
        return self.head(self.first(features))

    def compute_output_shape(self, input_shape):
        return self.head.compute_output_shape((input_shape[0], 4))

    def get_config(self):
        head = keras.saving.serialize_keras_object(self.head)
        return {**super().get_config(), "head": head}


@keras.saving.register_keras_serializable("tests")
class Wraps(LocalMethod):
    """Puts a layer before the heads that are given."""

    def stage_head(self, stage, head):
        return Wrapper(head)


@keras.saving.register_keras_serializable("tests")
class Energy(LocalMethod):
    """Weighs the plain energy itself."""

    needs_energy = "sum"

    def stage_losses(self, step):
        return {"task": step.task_loss, "energy": 0.25 * step.energy}


def blocks(count=3):
    return [
        ResidualBlock(
            [keras.layers.Dense(6, "tanh", kernel_regularizer="l2")],
            input_shape=(6,) if k == 0 else None,
        )
        for k in range(count)
    ]


def make(method, optimizer=None, **options):
    model = GreedyModel.from_blocks(
        blocks(), [1, 1, 1], LinearHead(3), method=method, seed=0, **options
    )
    model.compile(
        optimizer or keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def fit(model, **options):
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, **options}
    return model.fit(X, Y, **options).history


def assert_equal(first, second, atol=0.0):
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


class Told(LocalMethod):
    """Keeps what it is told of a stage and of a batch."""

    needs_data = True
    needs_energy = "mean"

    def __init__(self):
        self.places, self.batches = {}, {}

    def stage_head(self, stage, head):
        self.places[stage.depth] = stage
        return head

    def stage_losses(self, step):
        self.batches[step.stage.depth] = step
        return {"task": step.task_loss}


def test_a_method_is_told_the_place_of_a_stage():
    method = Told()
    model = make(method)
    place = method.places[2]
    assert (place.depth, place.num_stages, place.is_last, place.units) == (2, 3, False, 3)
    assert place.data_shape == place.input_shape == place.feature_shape == (None, 6)
    assert place.later_blocks == (model.stages[2].blocks[0],)
    assert [method.places[k].last_block for k in (1, 2, 3)] == [0, 1, 2]
    assert method.places[3].is_last
    assert method.places[3].later_blocks == ()


def test_a_method_is_told_the_values_of_a_batch():
    method = Told()
    model = make(method)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), run_eagerly=True)
    weights = np.linspace(0.5, 2, 32).astype("float32")
    first = model.stages[0].blocks[0](X)
    residual = model.stages[0].blocks[0].branch[0](X)
    prediction = model.heads[0](first)
    model.train_on_batch(X, Y, weights)
    step = method.batches[1]
    np.testing.assert_array_equal(step.data, X)
    np.testing.assert_array_equal(method.batches[3].data, X)
    np.testing.assert_array_equal(step.inputs, X)
    np.testing.assert_allclose(step.features, first, atol=1e-6)
    np.testing.assert_allclose(step.prediction, prediction, atol=1e-6)
    np.testing.assert_array_equal(ops.reshape(step.labels, (-1,)), Y)
    np.testing.assert_array_equal(ops.reshape(step.sample_weight, (-1,)), weights)
    assert float(step.energy) == pytest.approx(float(ops.mean(ops.square(residual))), rel=1e-5)
    assert list(step.layer_losses) == ["loss_1"]
    assert step.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data", r"Stage 1: `step\.data` is sent along only.*`needs_data = True`"),
        ("energy", r"Stage 1: `step\.energy` is found only.*needs_energy = \"mean\""),
    ],
)
def test_what_was_not_asked_for_is_not_there(name, message):
    class Asks(LocalMethod):
        def stage_losses(self, step):
            return {"task": step.task_loss + 0 * ops.mean(getattr(step, name))}

    with pytest.raises(ValueError, match=message):
        fit(make(Asks()))


def test_a_method_s_energy_is_trgl_s():
    own, trgls = make(Energy()), make(trgl.methods.TRGL(tau=2.0, reduction="sum"))
    logs = fit(own), fit(trgls)
    for mine, theirs in zip(own.get_weights()[:9], trgls.get_weights()[:9], strict=False):
        if mine.shape == theirs.shape and mine.ndim == 2:
            np.testing.assert_allclose(mine, theirs, atol=1e-6)
    np.testing.assert_allclose(logs[0]["stage_2_energy"], logs[1]["stage_2_energy"], rtol=1e-5)
    np.testing.assert_allclose(
        logs[0]["stage_2_objective"], logs[1]["stage_2_objective"], rtol=1e-5
    )


def test_an_energy_without_residual_blocks_is_zero_and_not_logged():
    model = GreedyModel([[keras.layers.Dense(4)]], [LinearHead(3)], method=Energy(), seed=0)
    model.build((None, 6))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    history = fit(model)
    assert history["stage_1_energy"] == [0.0, 0.0]
    assert history["stage_1_objective"] == history["stage_1_loss"]


def test_two_reductions_at_once_are_refused():
    class Both(trgl.methods.TRGL):
        needs_energy = "sum"

    with pytest.raises(ValueError, match=r"`needs_energy` must be the reduction.*'mean'.*'sum'"):
        make(Both(1.0))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({}, r"`stage_losses` of Odd, stage 1, must give a dict.*Received: \{\}"),
        ([1.0], r"`stage_losses` of Odd, stage 1, must give a dict of name to scalar"),
        ({"loss": 1.0}, r"stage 1, must leave the names loss, objective.*Received: 'loss'"),
        ({"objective": 1.0}, r"must leave the names.*Received: 'objective'"),
        ({"accuracy": 1.0}, r"stage 1, must leave the names of metrics to them.*accuracy"),
        ({"rows": tf.ones([3])}, r"stage 1, must give scalars.*'rows' of shape \(3,\)"),
        ({"word": "1"}, r"stage 1, must give scalars.*'word'"),
    ],
)
def test_what_is_no_dict_of_scalars_is_refused_by_method_and_stage(losses, message):
    class Odd(LocalMethod):
        def stage_losses(self, step):
            return losses

    with pytest.raises(ValueError, match=message):
        fit(make(Odd()))


def test_further_terms_are_logged_by_their_names():
    history = fit(make(Norm()), validation_data=(X, Y))
    for k in (1, 2, 3):
        assert np.isfinite(history[f"stage_{k}_size"]).all()
        assert f"val_stage_{k}_size" not in history
        assert f"stage_{k}_energy" not in history


@pytest.mark.parametrize("adds", [True, False])
def test_layer_losses_are_added_as_in_keras_unless_the_method_says_no(adds):
    class Maybe(LocalMethod):
        adds_layer_losses = adds

    stages = [[keras.layers.Dense(5, "tanh", kernel_regularizer="l2")]]
    model = GreedyModel(stages, [keras.layers.Dense(3)], method=Maybe(), seed=0)
    model.build((None, 6))
    regularizer = "l2" if adds else None
    plain = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, "tanh", kernel_regularizer=regularizer),
            keras.layers.Dense(3),
        ]
    )
    plain.set_weights(model.get_weights())
    for one in (model, plain):
        one.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(True))
        one.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    assert_equal(model, plain, atol=1e-6)


@pytest.mark.multi_device
@pytest.mark.parametrize("method", [Norm, Rebuilds, Energy])
def test_two_replicas_equal_one(method):
    models, logs = [], []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        # Not by collectives: their keys start anew with every strategy, and TensorFlow remembers
        # the shapes that another model reduced under the same key.
        by_copies = tf.distribute.ReductionToOneDevice()
        with tf.distribute.MirroredStrategy(devices, cross_device_ops=by_copies).scope():
            models.append(make(method()))
        logs.append(fit(models[-1]))
    assert_equal(*models, atol=1e-6)
    for key, values in logs[0].items():
        np.testing.assert_allclose(values, logs[1][key], rtol=1e-4, err_msg=key)


REGIMES = {
    "buffered": trgl.regimes.Buffered(capacity=1),
    "skewed": trgl.regimes.Buffered(order="skewed"),
}


@pytest.mark.parametrize("name", REGIMES)
def test_data_go_along_through_stores(name):
    same, stored = make(Rebuilds()), make(Rebuilds(), regime=REGIMES[name])
    fit(same)
    fit(stored)
    assert_equal(same, stored)


def augment(x, seeds):
    noise = tf.map_fn(lambda s: tf.random.stateless_normal([6], s), seeds, tf.float32)
    return x + noise


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("source", ["arrays", "augmented", "batches"])
def test_data_go_along_through_caches_as_the_same_draw(kind, source):
    given = {
        "arrays": lambda: trgl.datasets.BatchStream(X, Y, batch_size=8, seed=0),
        "augmented": lambda: trgl.datasets.BatchStream(
            X, Y, batch_size=8, seed=0, transform=augment
        ),
        "batches": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(8),
    }[source]
    cache = trgl.FeatureCache(kind, copies=None if source == "arrays" else 1)
    seen = []

    class Sees(Rebuilds):
        def stage_losses(self, step):
            if step.stage.depth == 2:
                # Stage 1 is frozen, so its features tell whether the data are those they came of.
                seen.append((step.inputs, step.data))
            return super().stage_losses(step)

    model = make(Sees(), regime=trgl.regimes.Sequential(1, cache=cache))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), run_eagerly=True)
    model.fit(given(), verbose=0)
    pairs = [(np.asarray(i), np.asarray(d)) for i, d in seen if hasattr(i, "numpy")]
    assert len(pairs) == 4
    for inputs, data in pairs:
        np.testing.assert_allclose(model.stages[0](data), inputs, atol=1e-6)


@pytest.mark.multi_device
def test_data_go_along_to_other_devices():
    plain = make(Rebuilds())
    fit(plain)
    with trgl.distribute.StageParallelStrategy(["CPU:0", "CPU:1"]).scope():
        placed = make(Rebuilds())
    fit(placed)
    assert_equal(plain, placed)


def test_layers_of_a_method_freeze_with_their_stage():
    model = make(Rebuilds())
    model.stages[0].trainable = False
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    decoders = [part.layers["decoder"] for part in model._network.parts]
    before = [decoder.kernel.numpy() for decoder in decoders]
    fit(model)
    np.testing.assert_array_equal(decoders[0].kernel.numpy(), before[0])
    assert not np.array_equal(decoders[1].kernel.numpy(), before[1])


def test_a_run_with_layers_and_terms_of_a_method_is_resumed_bit_for_bit(tmp_path):
    class Cut(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.training_run.steps_done == 6:
                raise RuntimeError("cut")

    def backup():
        return trgl.callbacks.BackupAndRestore(tmp_path, save_freq=1)

    whole = make(Rebuilds(), keras.optimizers.Adam(0.01))
    logs = fit(whole)
    with pytest.raises(RuntimeError, match="cut"):
        fit(make(Rebuilds(), keras.optimizers.Adam(0.01)), callbacks=[Cut(), backup()])
    resumed = make(Rebuilds(), keras.optimizers.Adam(0.01))
    again = fit(resumed, callbacks=[backup()])
    assert_equal(whole, resumed)
    assert logs["stage_2_error"] == again["stage_2_error"]


@pytest.mark.parametrize("method", [Wraps, Rebuilds, Norm])
def test_a_model_is_saved_with_the_heads_that_were_given(method, tmp_path):
    model = make(method())
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = trgl.load_model(tmp_path / "model.keras")
    said = [[], []]
    model.summary(print_fn=said[0].append)
    loaded.summary(print_fn=said[1].append)
    assert said[0] == said[1]
    assert_equal(model, loaded)
    np.testing.assert_array_equal(model.predict(X, verbose=0), loaded.predict(X, verbose=0))
    fit(model)
    fit(loaded)
    assert_equal(model, loaded)


def test_a_wrapped_head_is_what_predictions_and_exports_use(tmp_path):
    model = make(Wraps())
    fit(model)
    assert all(type(head) is Wrapper for head in model.heads)
    exits = model.predict_exits(X, verbose=0)
    for depth, found in enumerate(exits, start=1):
        np.testing.assert_allclose(model.truncate(depth).predict(X, verbose=0), found, atol=1e-6)
        np.testing.assert_allclose(model(X, exits=depth), found, atol=1e-6)
    model.export(tmp_path / "served", verbose=False)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([keras.layers.Dense(2)], r"`stage_layers` of Odd must give a dict of name to layer"),
        ({"net": "dense"}, r"must be made of Keras layers.*'dense'"),
    ],
)
def test_layers_that_are_no_dict_of_layers_are_refused(layers, message):
    class Odd(LocalMethod):
        def stage_layers(self, stage):
            return layers

    with pytest.raises(TypeError, match=message):
        make(Odd())


def test_a_metric_may_be_called_energy():
    model = make(trgl.methods.TRGL(1.0))
    metric = keras.metrics.SparseCategoricalAccuracy(name="energy")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), metrics=[metric])
    history = fit(model)
    assert history["energy"] == history["stage_3_energy"]
    assert max(history["energy"]) <= 1.0
    assert min(history["stage_3_kinetic_energy"]) > 0
