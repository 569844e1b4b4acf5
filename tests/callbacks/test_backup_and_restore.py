"""Training that was stopped anywhere goes on bit for bit; what cannot is said."""

import contextlib
import functools
import random
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import FeatureCache, GreedyModel
from keras_trgl.callbacks import BackupAndRestore, MultiplierUpdate
from keras_trgl.heads import LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import TRGL
from keras_trgl.regimes import Buffered, MultiLap, Parallel, Sequential, StopStage

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(44, 6)).astype("float32")
Y = RNG.integers(0, 3, 44)


class Stopped(Exception):
    """Stands for a kill: nothing after it runs."""


class StopAt(keras.callbacks.Callback):
    """Stops training before the next batch, after so many of the whole run."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.training_run.steps_done >= self.steps:
            raise Stopped


class Batches(keras.utils.PyDataset):
    """The arrays, batch by batch."""

    def __init__(self):
        super().__init__()

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return X[part], Y[part]


def pipeline():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(44, seed=3).batch(16)


DATA = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": 16},
    "py_dataset": lambda: {"x": Batches()},
    "tf.data": lambda: {"x": pipeline()},
}


def make(regime=None, seed=0, **options):
    blocks = [
        ResidualBlock(
            [keras.layers.Dense(6, "tanh"), keras.layers.Dropout(0.3)],
            input_shape=(6,) if k == 0 else None,
        )
        for k in range(3)
    ]
    model = GreedyModel.from_blocks(
        blocks, [1, 1, 1], LinearHead(3), method=TRGL(0.5), regime=regime or Parallel(), seed=seed
    )
    model.compile(
        options.pop("optimizer", None) or keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def callbacks(folder=None, save_freq=2, more=()):
    made = [MultiplierUpdate(h=0.1, s=3), *more]
    return made if folder is None else [*made, BackupAndRestore(folder, save_freq)]


def train(model, data, epochs, given):
    return model.fit(
        **data(), epochs=epochs, verbose=0, callbacks=given, validation_data=(X[:20], Y[:20])
    ).history


def stopped(folder, steps, regime, data, epochs, save_freq=2, more=(), **options):
    """Train until a stop, and leave the backup."""
    given = [*callbacks(folder, save_freq, more), StopAt(steps)]
    with pytest.raises(Stopped):
        train(make(regime(), **options), data, epochs, given)


@functools.cache
def unbroken(regime, data, epochs, own, **options):
    """Train to the end; give the model and its history."""
    model = make(regime(), **options)
    return model, train(model, DATA[data], epochs, callbacks(*own))


def goes_on(tmp_path, steps, regime=Parallel, data="arrays", epochs=4, save_freq=2, **options):
    """Hold a run that was stopped against one that was not; give both models."""
    # Whoever saves reads tf.data through an iterator of their own.
    own = (str(tmp_path / "other"), save_freq) if data == "tf.data" else ()
    whole, wanted = unbroken(regime, data, epochs, own, **options)
    data = DATA[data]
    stopped(tmp_path, steps, regime, data, epochs, save_freq, **options)
    # A pipeline is made again with the seed it had; nothing else depends on one.
    keras.utils.set_random_seed(0 if data is DATA["tf.data"] else 99)
    resumed = make(regime(), seed=0, **options)
    for variable in resumed.weights:
        variable.assign(np.zeros_like(variable.numpy()))
    given = callbacks(tmp_path, save_freq)
    history = train(resumed, data, epochs, given)
    assert given[-1].restored_step is not None
    assert steps - given[-1].restored_step <= (3 if save_freq == "epoch" else save_freq)
    for group, variables in whole.state_variables().items():
        others = resumed.state_variables()[group]
        for one, other in zip(variables, others, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=group)
    assert set(history) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(history[name], values, err_msg=name)
    return whole, resumed


@pytest.mark.parametrize("steps", [2, 3, 5, 7])
def test_parallel_goes_on_from_any_step(tmp_path, steps):
    goes_on(tmp_path, steps)


@pytest.mark.long
@pytest.mark.parametrize("data", ["py_dataset", "tf.data"])
def test_the_place_in_other_data_is_restored(tmp_path, data):
    goes_on(tmp_path, 7, data=data)


@pytest.mark.long
@pytest.mark.parametrize(
    ("regime", "steps"),
    [
        (lambda: Sequential(epochs=2), 9),
        (lambda: Sequential(epochs=2, cache="memory"), 8),
        (lambda: Sequential(epochs=2, cache="disk"), 12),
        (lambda: MultiLap(epochs=2, num_laps=2, cache="memory"), 14),
    ],
)
def test_regimes_in_turn_go_on(tmp_path, regime, steps):
    goes_on(tmp_path, steps, regime, epochs=None)


@pytest.mark.long
@pytest.mark.parametrize(
    "regime",
    [
        lambda: Buffered(capacity=3),
        lambda: Buffered(capacity=3, order="random"),
        lambda: Buffered(order="skewed"),
    ],
)
def test_the_stores_of_the_buffered_regime_are_restored(tmp_path, regime):
    goes_on(tmp_path, 7, regime)


@pytest.mark.long
def test_several_steps_per_execution_go_on(tmp_path):
    goes_on(tmp_path, 7, steps_per_execution=2)


@pytest.mark.long
def test_adam_goes_on(tmp_path):
    goes_on(tmp_path, 5, optimizer="adamw")


def test_a_backup_of_an_epochs_end_goes_on_with_the_next(tmp_path):
    goes_on(tmp_path, 7, save_freq="epoch")


def test_the_file_goes_when_training_ends(tmp_path):
    train(make(), DATA["arrays"], 1, callbacks(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_over_is_restored_and_trains_no_more(tmp_path):
    keep = BackupAndRestore(tmp_path, delete_checkpoint=False)
    whole = make()
    train(whole, DATA["arrays"], 2, [keep])
    # Its own seed is drawn, and that of the backup restored: a given one would be compared.
    again = make(seed=None)
    train(again, DATA["arrays"], 2, [BackupAndRestore(tmp_path)])
    for one, other in zip(whole.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.long
def test_python_and_numpy_go_on_in_their_random_rows(tmp_path):
    class Draws(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.drawn = []

        def on_epoch_end(self, epoch, logs=None):
            self.drawn.append((random.random(), np.random.random()))

    whole, first, second = Draws(), Draws(), Draws()
    random.seed(1)
    np.random.seed(1)
    train(make(), DATA["arrays"], 4, callbacks(more=[whole]))
    random.seed(1)
    np.random.seed(1)
    stopped(tmp_path, 8, Parallel, DATA["arrays"], 4, "epoch", [first])
    train(make(), DATA["arrays"], 4, callbacks(tmp_path, "epoch", [second]))
    # What a callback has changed since it began is its state, and comes back too.
    assert second.drawn == whole.drawn


@pytest.mark.long
def test_other_callbacks_go_on_counting(tmp_path):
    def patient():
        return keras.callbacks.EarlyStopping(
            "stage_1_loss", mode="max", patience=3, restore_best_weights=False
        )

    stopped(tmp_path, 7, Parallel, DATA["arrays"], 9, "epoch", [patient()])
    history = train(make(), DATA["arrays"], 9, callbacks(tmp_path, "epoch", [patient()]))
    whole = train(make(), DATA["arrays"], 9, callbacks(more=[patient()]))
    assert len(history["loss"]) == len(whole["loss"]) < 9


@pytest.mark.long
def test_an_interrupted_save_leaves_the_backup_whole_and_its_rest_goes(tmp_path):
    stopped(tmp_path, 5, Parallel, DATA["arrays"], 4)
    left = tmp_path / ".backup.123.aside.npz"
    left.write_bytes(b"half")
    train(make(), DATA["arrays"], 4, callbacks(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_backup_is_refused_and_kept(tmp_path):
    stopped(tmp_path, 5, Parallel, DATA["arrays"], 4)
    path = tmp_path / "backup.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"is damaged, or no backup.*Delete it to start anew"):
        train(make(), DATA["arrays"], 4, callbacks(tmp_path))
    assert path.exists()


def test_a_backup_of_another_model_changes_nothing(tmp_path):
    stopped(tmp_path, 5, Parallel, DATA["arrays"], 4)
    other = GreedyModel(
        [[keras.layers.Dense(6)], [keras.layers.Dense(6)]], [LinearHead(3)] * 2, "vangl", seed=0
    )
    other.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    other.build((None, 6))
    before = [variable.numpy() for variable in other.variables]
    with pytest.raises(
        ValueError, match=r"must be of the same run.*method TRGL in the backup, VanGL now"
    ):
        train(other, DATA["arrays"], 4, [BackupAndRestore(tmp_path)])
    for one, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), value)


def test_a_backup_between_executions_is_refused(tmp_path):
    stopped(tmp_path, 2, Parallel, DATA["arrays"], 4, save_freq=1)
    with pytest.raises(ValueError, match="steps_per_execution=3"):
        train(make(steps_per_execution=3), DATA["arrays"], 4, callbacks(tmp_path))


@pytest.mark.parametrize("kind", ["generator", "random", "python"])
def test_data_whose_place_cannot_be_saved_are_named_at_the_start(tmp_path, kind):
    def generator():
        while True:
            yield X[:16], Y[:16]

    data = {
        "generator": generator,
        "random": lambda: pipeline().map(lambda x, y: (x + tf.random.uniform([]), y)),
        "python": lambda: tf.data.Dataset.from_generator(
            lambda: ((X[:16], Y[:16]) for _ in range(3)),
            output_signature=(tf.TensorSpec([None, 6]), tf.TensorSpec([None], "int64")),
        ).apply(tf.data.experimental.assert_cardinality(3)),
    }[kind]()
    with pytest.warns(UserWarning, match="The place in these data cannot be saved"):
        make().fit(data, steps_per_epoch=3, verbose=0, callbacks=[BackupAndRestore(tmp_path)])


@pytest.mark.long
def test_class_weights_count_where_the_place_is_kept(tmp_path):
    weights = {0: 1.0, 1: 3.0, 2: 0.5}
    plain, kept = make(), make()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    plain.fit(data, class_weight=weights, epochs=2, verbose=0)
    kept.fit(
        data, class_weight=weights, epochs=2, verbose=0, callbacks=[BackupAndRestore(tmp_path)]
    )
    for one, other in zip(plain.weights, kept.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("value", ["batch", 0, 1.5])
def test_save_freq_is_checked(tmp_path, value):
    with pytest.raises((ValueError, TypeError), match="`save_freq`"):
        BackupAndRestore(tmp_path, save_freq=value)


def test_one_backup_at_a_time(tmp_path):
    twice = [BackupAndRestore(tmp_path / "a"), BackupAndRestore(tmp_path / "b")]
    with pytest.raises(ValueError, match=r"may hold one BackupAndRestore. Received: 2"):
        make().fit(X, Y, verbose=0, callbacks=twice)


def ended(folder, callbacks=(), regime=None, epochs=6, **options):
    """Train with a file that stays; give the model, its history and what was restored."""
    model = make(None if regime is None else regime(), run_eagerly=True)
    keep = BackupAndRestore(folder, **{"delete_checkpoint": False, **options})
    history = train(model, DATA["arrays"], epochs, [*callbacks, keep])
    return model, history, keep.restored_step


def stop(patience, **options):
    return keras.callbacks.EarlyStopping("loss", 9.0, patience, **options)


FINISHED = {
    "early stopping": ({"callbacks": lambda: [stop(2)]}, 3),
    "early stopping that puts weights back": (
        {"callbacks": lambda: [stop(2, restore_best_weights=True)]},
        3,
    ),
    "more epochs behind early stopping": ({"callbacks": lambda: [stop(2)], "epochs": 9}, 3),
    "saves between": ({"callbacks": lambda: [stop(2)], "save_freq": 2}, 3),
    "stop stage": (
        {
            "regime": lambda: Sequential(epochs=4, stop=StopStage(1, "loss", min_delta=9.0)),
            "epochs": None,
        },
        6,
    ),
    "all epochs": ({"epochs": 2}, 2),
}


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_stays_finished(tmp_path, name):
    options, epochs = FINISHED[name]
    options = dict(options)
    callbacks = options.pop("callbacks", list)
    more = options.pop("epochs", 6)
    whole, history, _ = ended(tmp_path, callbacks(), epochs=6 if more == 9 else more, **options)
    again, same, restored = ended(tmp_path, callbacks(), epochs=more, **options)
    assert len(history["loss"]) == epochs
    assert repr(same) == repr(history)
    assert restored == 3 * epochs
    for one, other in zip(whole.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize(
    ("callbacks", "epochs", "wanted"),
    [
        (lambda: [stop(4)], 9, 5),
        (list, 5, 5),
        (lambda: [keras.callbacks.EarlyStopping("loss", 0.0, 50)], 5, 5),
    ],
)
def test_a_run_that_early_stopping_ended_goes_on_with_other_settings(
    tmp_path, callbacks, epochs, wanted
):
    _, history, _ = ended(tmp_path, [stop(2)], epochs=9)
    assert len(history["loss"]) == 3
    with contextlib.ExitStack() as told:
        if not callbacks():
            told.enter_context(pytest.warns(UserWarning, match="counters of EarlyStopping"))
        _, history, restored = ended(tmp_path, callbacks(), epochs=epochs)
    assert (len(history["loss"]), restored) == (wanted, 9)


def test_a_full_disk_ends_with_the_backup_that_was_good(tmp_path):
    class Fill(keras.callbacks.Callback):
        """Lets no file grow after the first epoch."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    keep, limits = callbacks(tmp_path, "epoch"), resource.getrlimit(resource.RLIMIT_FSIZE)
    words = r"File too large at step 6. The last good backup, of step 3 stands; training has ended"
    try:
        with pytest.raises(OSError, match=words) as raised:
            train(make(run_eagerly=True), DATA["arrays"], 4, [*keep, Fill()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno is not None
    assert [one.name for one in tmp_path.iterdir()] == ["backup.npz"]
    keep = callbacks(tmp_path, "epoch")
    train(make(run_eagerly=True), DATA["arrays"], 4, keep)
    assert keep[-1].restored_step == 3


def test_a_folder_belongs_to_one_run_and_is_free_when_it_ends(tmp_path):
    class Second(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with pytest.raises(BlockingIOError, match="must belong to one run"):
                make().fit(X, Y, verbose=0, callbacks=[BackupAndRestore(tmp_path)])

    with pytest.raises(ValueError, match="`epochs` must be"):
        train(make(Sequential(epochs=1)), DATA["arrays"], 7, [BackupAndRestore(tmp_path)])
    train(make(), DATA["arrays"], 1, [Second(), BackupAndRestore(tmp_path)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_run_that_is_ended_within_an_epoch_goes_on_there(tmp_path):
    class Leave(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = self.model.training_run.steps_done == 5

    wanted, history, _ = ended(tmp_path / "whole", epochs=4)
    ended(tmp_path / "left", [Leave()], epochs=4)
    model, rows, restored = ended(tmp_path / "left", epochs=4)
    assert restored == 5
    assert rows == history
    for one, other in zip(wanted.variables, model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_py_dataset_that_draws_from_the_global_state_is_named_at_the_start(tmp_path):
    class Draws(Batches):
        def on_epoch_end(self):
            np.random.random()

    with pytest.warns(UserWarning, match="draws from Python's or NumPy's global random state"):
        make().fit(Draws(), verbose=0, callbacks=[BackupAndRestore(tmp_path)])


def test_a_cache_of_a_py_dataset_with_hooks_is_named_at_the_start(tmp_path):
    class Hooked(Batches):
        def on_epoch_end(self):
            pass

    cache = FeatureCache("memory", copies=1)
    with pytest.warns(UserWarning, match="a cache is filled before `on_epoch_end`"):
        make(Sequential(epochs=1, cache=cache)).fit(
            Hooked(), verbose=0, callbacks=[BackupAndRestore(tmp_path)]
        )


def test_endless_pipelines_are_named_at_the_start(tmp_path):
    with pytest.warns(UserWarning, match="later passes come in another order"):
        make().fit(
            pipeline().repeat(),
            steps_per_epoch=3,
            verbose=0,
            callbacks=[BackupAndRestore(tmp_path)],
        )


@pytest.mark.parametrize("data", ["arrays", "py_dataset", "tf.data", "generator", "steps"])
def test_callbacks_are_told_of_the_run_what_keras_tells(data):
    class Told(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.told = dict(self.params)

    def generator():
        while True:
            yield X[:16], Y[:16]

    forms = {
        **DATA,
        "generator": lambda: {"x": generator(), "steps_per_epoch": 2},
        "steps": lambda: {"x": X, "y": Y, "batch_size": 16, "steps_per_epoch": 2},
    }
    plain = keras.Sequential([keras.layers.Dense(3)])
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    told = []
    for model in (plain, make(run_eagerly=True)):
        given = Told()
        model.fit(**forms[data](), epochs=1, verbose=0, shuffle=data == "arrays", callbacks=[given])
        told.append(given.told)
    assert told[0] == told[1]


def test_the_users_own_list_of_callbacks_hears_everything(tmp_path):
    class Loud(keras.callbacks.CallbackList):
        calls = 0

        def on_epoch_end(self, epoch, logs=None):
            type(self).calls += 1
            super().on_epoch_end(epoch, logs)

    heard = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: rows.append(epoch))
    for kind, wanted in ((keras.callbacks.CallbackList, 0), (Loud, 2)):
        rows = []
        model = make(run_eagerly=True)
        history = train(model, DATA["arrays"], 2, kind([heard, BackupAndRestore(tmp_path)]))
        assert (rows, Loud.calls, len(history["loss"])) == ([0, 1], wanted, 2)
