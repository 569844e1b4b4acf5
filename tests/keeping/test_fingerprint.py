"""The backup of another run is refused by what differs; the same run is known in any process."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.callbacks import BackupAndRestore, backup_and_restore
from keras_trgl.datasets import BatchStream
from keras_trgl.heads import DGLHead, LinearHead
from keras_trgl.keeping.fingerprint import differences, fingerprint, plain
from keras_trgl.keeping.resume import read_state
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import TRGL, VanGL
from keras_trgl.regimes import Buffered, Parallel, Sequential

pytestmark = pytest.mark.sampled(3)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(44, 6)).astype("float32")
Y = RNG.integers(0, 3, 44)


class Cut(Exception):
    """Stands for a kill."""


class CutAt(keras.callbacks.Callback):
    """Ends a run after so many batches."""

    def __init__(self, left):
        super().__init__()
        self.left = left

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise Cut

    def get_state(self):
        return {}

    def set_state(self, state):
        raise AssertionError(state)


def make(optimizer=None, loss=None, width=6, rate=0.3, units=3, compiled=None, **options):
    blocks = [
        ResidualBlock(
            [keras.layers.Dense(width, "tanh"), keras.layers.Dropout(rate)],
            input_shape=(6,) if k == 0 else None,
        )
        for k in range(2)
    ]
    options = {"method": TRGL(0.5), "regime": Parallel(), "seed": 0, **options}
    model = GreedyModel.from_blocks(blocks, [1, 1], LinearHead(units), **options)
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
        **(compiled or {}),
    )
    return model


def fit(model, callbacks=(), **changed):
    options = {"x": X, "y": Y, "batch_size": 16, "epochs": 3, "verbose": 0, **changed}
    return model.fit(callbacks=list(callbacks), **options)


@pytest.fixture(scope="module")
def backup(tmp_path_factory):
    """The file of a run that was cut off within its second epoch."""
    folder = tmp_path_factory.mktemp("backup")
    with pytest.raises(Cut):
        fit(make(), [CutAt(5), BackupAndRestore(folder, 1)])
    return (folder / "backup.npz").read_bytes()


def scaled(predicted, target):
    return tf.reduce_mean(predicted - tf.cast(target, predicted.dtype))


OTHERS = {
    "seed": ({"seed": 9}, {}, "seed 0 in the backup, 9 now"),
    "tau": ({"method": TRGL(50.0)}, {}, "method.tau 0.5 in the backup, 50.0 now"),
    "rule": ({"method": TRGL(0.5, rule="doubled")}, {}, "method.rule constant"),
    "method": ({"method": VanGL()}, {}, "method TRGL in the backup, VanGL now"),
    "regime": (
        {"regime": Sequential(epochs=2)},
        {"epochs": None},
        "regime Parallel in the backup, Sequential now",
    ),
    "buffered": ({"regime": Buffered()}, {}, "regime Parallel in the backup, Buffered now"),
    "rate": ({"optimizer": "sgd"}, {}, "optimizer.learning_rate 0.05 in the backup, 0.01 now"),
    "optimizer": ({"optimizer": "adam"}, {}, "optimizer SGD in the backup, Adam now"),
    "schedule": (
        {"optimizer": keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.05, 9))},
        {},
        "optimizer.learning_rate 0.05 in the backup, CosineDecay now",
    ),
    "clipping": (
        {"optimizer": keras.optimizers.SGD(0.05, momentum=0.9, clipnorm=1.0)},
        {},
        "optimizer.clipnorm null in the backup, 1.0 now",
    ),
    "one stage's rate": (
        {"optimizer": [keras.optimizers.SGD(rate, momentum=0.9) for rate in (0.05, 0.06)]},
        {},
        "optimizer",
    ),
    "loss": (
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=9)},
        {},
        "loss.ignore_class null in the backup, 9 now",
    ),
    "dropout": ({"rate": 0.5}, {}, "stage 1 layers #"),
    "metrics": ({"compiled": {"metrics": ["accuracy"]}}, {}, "metrics"),
    "batch size": ({}, {"batch_size": 5}, "data.batch_size 16 in the backup, 5 now"),
    "shuffle": ({}, {"shuffle": False}, "data.shuffle true in the backup, false now"),
    "half of the data": ({}, {"x": X[:22], "y": Y[:22]}, "data.examples 44 in the backup, 22 now"),
    "types": ({}, {"y": Y.astype("int32")}, "data.batch 2 () int64 in the backup, () int32 now"),
    "weights of classes": ({}, {"class_weight": {0: 2.0}}, "data.class_weight"),
    "steps": ({}, {"steps_per_epoch": 2}, "data.steps_per_epoch 3 in the backup, 2 now"),
    "a pipeline": (
        {},
        {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(16), "y": None, "batch_size": None},
        "data.type arrays in the backup, tf.data now",
    ),
    "an order of one's own": (
        {},
        {"x": BatchStream(X, Y, batch_size=16, seed=4), "y": None, "batch_size": None},
        "data.seed",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_backup_of_another_run_is_refused_by_name_and_nothing_moves(tmp_path, backup, name):
    model, changed, match = OTHERS[name]
    (tmp_path / "backup.npz").write_bytes(backup)
    other = make(**model)
    before = [one.numpy() for one in other.variables]
    with pytest.raises(ValueError, match="must be of the same run") as raised:
        fit(other, [BackupAndRestore(tmp_path)], **changed)
    assert match in str(raised.value)
    assert len(str(raised.value)) < 700
    for one, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), value)
    assert (tmp_path / "backup.npz").read_bytes() == backup
    assert [one.name for one in tmp_path.iterdir()] == ["backup.npz"]


SAME = {
    "more epochs": ({}, {"epochs": 5}),
    "other names": ({"name": "other"}, {}),
    "a seed that is drawn": ({"seed": None}, {}),
    "another progress bar": ({}, {"verbose": 2}),
    "validation": ({}, {"validation_data": (X, Y)}),
    "steps that end with an execution": ({"compiled": {"steps_per_execution": 5}}, {}),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_run_goes_on(tmp_path, backup, name):
    model, changed = SAME[name]
    (tmp_path / "backup.npz").write_bytes(backup)
    for _ in range(3):
        keras.layers.Dense(1), keras.optimizers.SGD()  # Automatic names have gone on.
    keep = BackupAndRestore(tmp_path)
    if "compiled" in model:
        # Four batches are one and a third epochs, the third of which is no execution of five.
        with pytest.raises(ValueError, match="must stand at the end of an execution"):
            fit(make(**model), [keep], **changed)
        return
    fit(make(**model), [keep], **changed)
    assert keep.restored_step == 4


def test_a_drawn_seed_is_restored_so_that_an_unseeded_run_is_the_same_run(tmp_path):
    whole = make(seed=None)
    seed = whole.seed
    start = [one.numpy() for one in whole.variables]
    fit(whole)
    cut = make(seed=None)
    cut.seed = seed
    for one, value in zip(cut.variables, start, strict=True):
        one.assign(value)
    with pytest.raises(Cut):
        fit(cut, [CutAt(5), BackupAndRestore(tmp_path, 1)])
    again = make(seed=None)
    assert again.seed != seed
    fit(again, [BackupAndRestore(tmp_path, 1)])
    assert again.seed == seed
    for one, other in zip(whole.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_rates_that_callbacks_moved_are_not_how_the_model_was_compiled(tmp_path):
    model = make()
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    with pytest.raises(Cut):
        fit(model, [halve, CutAt(5), BackupAndRestore(tmp_path, 1)])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0125)
    keep = BackupAndRestore(tmp_path, 1)
    fit(model, [halve, keep])
    assert keep.restored_step == 4


def test_names_functions_and_seeds_stay_out():
    def named(name, seed, function):
        x = keras.Input((3,), name=f"{name}_in")
        first = keras.layers.Dense(3, function, kernel_initializer="zeros", name=name)(x)
        dropped = keras.layers.Dropout(0.5, seed=seed, name=f"{name}_drop")(first)
        return keras.Model(x, keras.layers.Add(name=f"{name}_add")([first, dropped]))

    one = plain(named("a", 1, lambda x: 2 * x))
    assert one == plain(named("b", 2, lambda x: 3 * x))
    assert one != plain(keras.Sequential([keras.layers.Dense(4)]))
    assert plain(object()) == "object"


def sequence(*layers):
    return keras.Sequential(list(layers))


BUILT = {
    "dense": (lambda: keras.layers.Dense(4), (2, 6)),
    "head": (lambda: LinearHead(3), (2, 6)),
    "head of images": (lambda: DGLHead(3), (2, 8, 8, 2)),
    "layer norm": (lambda: keras.layers.LayerNormalization(), (2, 6)),
    "norm over two axes": (lambda: keras.layers.LayerNormalization((1, 2)), (2, 3, 4)),
    "rms norm": (lambda: keras.layers.RMSNormalization(), (2, 6)),
    "sequential": (lambda: sequence(keras.layers.Dense(4), keras.layers.Dense(3)), (2, 6)),
    "nested": (lambda: sequence(sequence(keras.layers.LayerNormalization())), (2, 6)),
    "block": (lambda: ResidualBlock([keras.layers.LayerNormalization()]), (2, 6)),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_built_layer_is_told_as_before(name):
    make_layer, shape = BUILT[name]
    layer = make_layer()
    unbuilt = plain(layer)
    layer(np.zeros(shape, "float32"))
    assert layer.built
    assert plain(layer) == unbuilt


@pytest.mark.parametrize("rank", [3, 4])
def test_built_attention_is_told_as_before_and_by_its_axes(rank):
    attention = [keras.layers.MultiHeadAttention(1, 2, attention_axes=one) for one in (None, (1,))]
    unbuilt = plain(attention[0])
    features = np.zeros((1, *(2,) * (rank - 1)), "float32")
    for one in attention:
        one(features, features)
    assert plain(attention[0]) == unbuilt
    # Of a sequence, the first axis is all that there are.
    assert (plain(attention[1]) == unbuilt) is (rank == 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LinearHead(3), LinearHead(4)),
        (LinearHead(3), LinearHead(3, data_format="channels_first")),
        (keras.layers.LayerNormalization(-1), keras.layers.LayerNormalization(1)),
        (keras.layers.LayerNormalization(1), keras.layers.LayerNormalization((1, 2))),
        (sequence(keras.layers.Dense(4)), sequence(keras.layers.Dense(5))),
        (sequence(keras.layers.Dense(4)), sequence(keras.layers.Dense(4), keras.layers.ReLU())),
    ],
)
@pytest.mark.parametrize("built", [False, True])
def test_layers_that_differ_are_told_apart_built_or_not(one, other, built):
    if built:
        other(np.zeros((2, 3, 4), "float32"))
    assert plain(one) != plain(other)


@pytest.mark.parametrize("units", [3, 4])
@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False)])
def test_a_run_goes_on_whichever_of_its_models_was_built(tmp_path, first, second, units):
    def open_model(built, units):
        layers = [keras.layers.Dense(6), sequence(keras.layers.LayerNormalization())]
        model = GreedyModel.from_blocks(layers, [1, 1], LinearHead(units), method="vangl", seed=0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, run_eagerly=True)
        if built:
            model.build((None, 6))
        return model

    with pytest.raises(Cut):
        fit(open_model(first, 3), [CutAt(5), BackupAndRestore(tmp_path, 1)])
    again, keep = open_model(second, units), BackupAndRestore(tmp_path, 1)
    if units == 3:
        fit(again, [keep])
        assert keep.restored_step == 4
        return
    with pytest.raises(ValueError, match=r"another: head 1 layers #.*; head 2 layers #"):
        fit(again, [keep])


@pytest.mark.parametrize(
    ("saved", "now", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 1.0}, ["a 1 in the backup, 1.0 now"]),
        ({"a": True}, {"a": 1}, ["a true in the backup, 1 now"]),
        ({"a": float("nan")}, {"a": float("nan")}, []),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a 2 2 in the backup, 3 now"]),
        ({"a": None}, {"a": None, "b": {"c": 2}}, ['b null in the backup, {"c": 2} now']),
        ({"a": {"is": "A", "b": 1}}, {"a": {"is": "B"}}, ["a A in the backup, B now"]),
    ],
)
def test_differences_are_told_by_place_and_type(saved, now, said):
    assert differences(saved, now) == said


@pytest.mark.parametrize(
    ("field", "name"),
    [
        *(("method", "tau"), ("regime", "buffered"), ("optimizer", "rate"), ("loss", "loss")),
        *(("stage", "dropout"), ("data", "batch size"), ("data", "half of the data")),
    ],
)
def test_a_mutant_without_a_field_takes_what_is_refused(tmp_path, backup, monkeypatch, field, name):
    """Each row of the table above is refused for its field alone."""

    def cut(*args):
        held = fingerprint(*args)
        return {**held, field: saved[field]}

    (tmp_path / "backup.npz").write_bytes(backup)
    saved = read_state(tmp_path / "backup.npz").numbers["fingerprint"]
    monkeypatch.setattr(backup_and_restore, "fingerprint", cut)
    model, changed, match = OTHERS[name]
    try:
        fit(make(**model), [BackupAndRestore(tmp_path)], **changed)
    except ValueError as error:
        assert match not in str(error)  # noqa: PT017
