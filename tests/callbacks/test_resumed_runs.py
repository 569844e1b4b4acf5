"""A run that is cut off anywhere and taken up again is the run that was not, whatever it holds."""

import dataclasses
import functools
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_trgl import GreedyModel
from keras_trgl.callbacks import (
    BackupAndRestore,
    MultiplierUpdate,
    WatchStages,
    backup_and_restore,
)
from keras_trgl.callbacks.gated_callbacks import GatedCallbacks
from keras_trgl.heads import LinearHead
from keras_trgl.keeping import callback_state
from keras_trgl.layers import ResidualBlock
from keras_trgl.methods import TRGL
from keras_trgl.regimes import MultiLap, Parallel, Sequential, StopStage
from keras_trgl.training import training_run

pytestmark = pytest.mark.sampled(1)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(44, 6)).astype("float32")
Y = RNG.integers(0, 3, 44)
NO_STATE = ("params", "_model", "min_delta")
"""Attributes that are told, or a setting: Keras negates `min_delta` at an epoch's end."""
SETTINGS = {"validation_data": (X[:20], Y[:20]), "verbose": 0, "epochs": 5, "batch_size": 16}


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


class KillAt(keras.callbacks.Callback):
    """Ends a process at the how-manieth call of a hook; keeps nothing."""

    def __init__(self, hook, count):
        super().__init__()
        self.left = count
        setattr(self, hook, self.count)

    def count(self, *args, **kwargs):
        self.left -= 1
        if not self.left:
            raise Killed

    def get_state(self):
        return {}

    def set_state(self, state):
        raise AssertionError(state)


class Counter(keras.callbacks.Callback):
    """Counts every call of every hook, adds up random draws, and keeps what it was told."""

    HOOKS = (
        *("on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end"),
        *("on_test_begin", "on_test_batch_end", "on_test_end", "on_train_end"),
    )

    def __init__(self):
        super().__init__()
        for hook in self.HOOKS:
            setattr(self, hook, functools.partial(self._called, hook))

    def on_train_begin(self, logs=None):
        self.calls, self.drawn, self.seen, self._mean = {}, 0.0, [], np.zeros(2)

    def _called(self, hook, *args, **kwargs):
        self.calls[hook] = self.calls.get(hook, 0) + 1
        self.drawn += random.random() + np.random.random()
        if "epoch" in hook:
            self.seen.append((hook, args[0]))
        self._mean = self._mean + 0.5


class OwnStop(keras.callbacks.EarlyStopping):
    """A user's subclass with a number of its own."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.asked = getattr(self, "asked", 0) + 1


class Stateful(keras.utils.PyDataset):
    """Takes its examples in an order that it draws anew at every epoch's end."""

    def __init__(self):
        super().__init__()
        self.rng, self.order = np.random.default_rng(5), np.arange(44)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = self.order[16 * index : 16 * index + 16]
        return X[part], Y[part]

    def on_epoch_end(self):
        self.rng.shuffle(self.order)


def pipeline():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(44, seed=3).batch(16)


@dataclasses.dataclass
class Situation:
    """What a run is made of.

    Attributes:
        callbacks: functions that make them.
        data: function that gives arguments of `fit`.
        settings: dict of further arguments of `fit`.
        compiled: dict of arguments of `compile`.
        regime: function that makes one.
    """

    callbacks: tuple[Callable[[], Any], ...] = ()
    data: Callable[[], dict[str, Any]] = lambda: {"x": X, "y": Y}
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    compiled: dict[str, Any] = dataclasses.field(default_factory=dict)
    regime: Callable[[], Any] = Parallel


def sgd(**options):
    return {"optimizer": lambda: keras.optimizers.SGD(0.05, momentum=0.9, **options)}


def of(name, *args, **kwargs):
    return lambda: getattr(keras.callbacks, name)(*args, **kwargs)


SITUATIONS = {
    "validation and a rate that is halved": Situation(
        (of("LearningRateScheduler", lambda epoch, rate: rate * 0.5),)
    ),
    "early stopping with best weights": Situation(
        (of("EarlyStopping", "val_loss", 5.0, 3, restore_best_weights=True),)
    ),
    "a subclass of early stopping": Situation((lambda: OwnStop("loss", 0.01, 9),)),
    "plateau at its defaults": Situation((of("ReduceLROnPlateau"),)),
    "plateau that acts": Situation((of("ReduceLROnPlateau", "loss", 0.5, 1, min_delta=0.2),)),
    "stages that are watched": Situation(
        (lambda: WatchStages((X[:20], Y[:20]), every=2), of("EarlyStopping", "loss", patience=9)),
    ),
    "stages that are watched in turn": Situation(
        (lambda: WatchStages((X[:20], Y[:20])),),
        settings={"epochs": None},
        regime=lambda: Sequential(epochs=2),
    ),
    "stop stage": Situation(
        settings={"epochs": None},
        regime=lambda: Sequential(epochs=3, stop=StopStage(1, "val_loss", min_delta=0.5)),
    ),
    "laps with a cache": Situation(
        settings={"epochs": None},
        regime=lambda: MultiLap(epochs=2, num_laps=2, cache="memory"),
    ),
    "multipliers": Situation((lambda: MultiplierUpdate(0.1, 2, record_steps=True),)),
    "moving averages": Situation(
        (of("SwapEMAWeights"),), compiled=sgd(use_ema=True, ema_momentum=0.7)
    ),
    "averages of epochs": Situation(
        (of("SwapEMAWeights", True),), compiled=sgd(use_ema=True, ema_momentum=0.7)
    ),
    "accumulation": Situation(compiled=sgd(gradient_accumulation_steps=2)),
    "two steps per execution": Situation(compiled={"steps_per_execution": 2, "run_eagerly": False}),
    "tf.data": Situation(data=lambda: {"x": pipeline()}, settings={"batch_size": None}),
    "tf.data in calls of two steps": Situation(
        data=lambda: {"x": pipeline()},
        settings={"batch_size": None},
        compiled={"steps_per_execution": 2, "run_eagerly": False},
    ),
    "a PyDataset with a state": Situation(
        data=lambda: {"x": Stateful()}, settings={"batch_size": None, "shuffle": False}
    ),
    "a shuffled PyDataset with a state": Situation(
        data=lambda: {"x": Stateful()}, settings={"batch_size": None}
    ),
    "a stop within an epoch": Situation((lambda: Leave(8),)),
}


class Leave(keras.callbacks.Callback):
    """Lets the run end after some of its batches: in the last but one epoch."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_train_begin(self, logs=None):
        self.done = 0

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        self.model.stop_training = self.done == self.batches


KILLS = (
    ("before the first save", "on_train_batch_begin", 1),
    ("in the first epoch", "on_train_batch_end", 3),
    ("in validation", "on_test_batch_end", 2),
    ("at an epoch's end, before its save", "on_epoch_end", 1),
    ("before the restore", "on_train_begin", 1),
    ("in the restore, at an epoch's begin", "on_epoch_begin", 1),
    ("within an epoch", "on_train_batch_end", 2),
    ("after the last save, before the file goes", "on_train_end", 1),
)
"""Kills of one run, one after the other."""


def make(situation, seed=0):
    blocks = [
        ResidualBlock(
            [keras.layers.Dense(6, "tanh"), keras.layers.Dropout(0.3)],
            input_shape=(6,) if k == 0 else None,
        )
        for k in range(2)
    ]
    model = GreedyModel.from_blocks(
        blocks, [1, 1], LinearHead(3), method=TRGL(0.5), regime=situation.regime(), seed=seed
    )
    compiled = {"run_eagerly": True, **sgd(), **situation.compiled}
    model.compile(
        compiled.pop("optimizer")(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **compiled,
    )
    return model


def train(situation, folder, save_freq, kill=None):
    """Train in what stands for a process of its own; give the model and its callbacks."""
    keras.utils.set_random_seed(7)
    model, callbacks = make(situation), [Counter(), *(make() for make in situation.callbacks)]
    extra = [] if kill is None else [KillAt(*kill)]
    keep = BackupAndRestore(folder, save_freq)
    arguments = {**SETTINGS, **situation.settings, **situation.data()}
    model.fit(callbacks=[*callbacks, *extra, keep], **arguments)
    return model, callbacks


def plain(value):
    """Give what of a callback's attributes can be compared."""
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value if isinstance(value, (bool, int, float, str, type(None))) else None


def all_state(model, callbacks):
    """Give everything that a run came to."""
    groups = model.state_variables()
    state = {
        f"{group}/{place}": np.asarray(one).tolist()
        for group, variables in groups.items()
        for place, one in enumerate(variables)
    }
    state["history"], state["epochs"] = model.history.history, model.history.epoch
    state["random"] = random.getstate(), np.random.get_state()[1].tolist()
    for one in callbacks:
        state[type(one).__name__] = plain(
            {key: value for key, value in vars(one).items() if key not in NO_STATE}
        )
    return state


def differing(one, other):
    return [key for key in {**one, **other} if repr(one.get(key)) != repr(other.get(key))]


def killed(situation, folder, save_freq, kills=KILLS):
    """Train and be killed, again and again; give what the last process came to, and the kills."""
    fell = []
    for what, *kill in kills:
        try:
            return all_state(*train(situation, folder, save_freq, kill)), fell
        except Killed:
            fell.append(what)
    return all_state(*train(situation, folder, save_freq)), fell


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_run_killed_at_every_moment_is_the_whole_run(tmp_path, name):
    is_the_whole_run(tmp_path, SITUATIONS[name], 1)


@pytest.mark.long
@pytest.mark.parametrize("name", SITUATIONS)
def test_a_run_saved_once_an_epoch_is_the_whole_run_too(tmp_path, name):
    is_the_whole_run(tmp_path, SITUATIONS[name], "epoch")


def is_the_whole_run(tmp_path, situation, save_freq):
    whole = all_state(*train(situation, tmp_path / "whole", save_freq))
    resumed, fell = killed(situation, tmp_path / "killed", save_freq)
    assert differing(whole, resumed) == []
    assert {"in validation", "before the restore"} <= set(fell)
    assert list((tmp_path / "killed").iterdir()) == []


def begin_twice(self, epoch, logs=None):
    """Restore before the begin-hooks within an epoch too."""
    step = self._backup.step_of_epoch
    self._backup.restore()
    self.model.training_run.begin_epoch(epoch, step)
    keras.callbacks.CallbackList.on_epoch_begin(self, epoch, logs)


def without(name):
    """Give the table of counters without one."""
    known = callback_state.counters_of_keras()
    cut = {kind: tuple(one for one in names if one != name) for kind, names in known.items()}
    return lambda: cut


def nothing(*args, **kwargs):
    return None


HALVED, STOPPED = "validation and a rate that is halved", "early stopping with best weights"
PLATEAU = "plateau that acts"
MUTANTS = {
    "patience": (STOPPED, callback_state, "counters_of_keras", lambda: without("wait")),
    "best weights": (STOPPED, callback_state, "counters_of_keras", lambda: without("best_weights")),
    "best of a plateau": (PLATEAU, callback_state, "counters_of_keras", lambda: without("best")),
    "own counters": (HALVED, callback_state, "_changed", lambda: lambda *_, **__: {}),
    "a rate at a begin": (HALVED, GatedCallbacks, "on_epoch_begin", lambda: begin_twice),
    "batches": (HALVED, training_run.TrainingRun, "passes_by", lambda: False),
    "random states": (HALVED, backup_and_restore, "restore_random", lambda: nothing),
    "hooks of data": ("a PyDataset with a state", training_run, "replay", lambda: nothing),
    "passes": ("tf.data", training_run.Feed, "_begin_pass", lambda: begin_first_pass),
}
"""What must be noticed: a situation, and what is put in place of what."""


def begin_first_pass(self, epoch, skipped):
    """Draw no orders of passes before."""
    self._pass = iter(self._data.passes)
    for _ in range(skipped):
        next(self._pass)


@functools.cache
def whole_state(name, folder):
    return all_state(*train(SITUATIONS[name], folder, 1))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(tmp_path, tmp_path_factory, monkeypatch, mutant):
    name, where, what, put = MUTANTS[mutant]
    whole = whole_state(name, tmp_path_factory.getbasetemp() / "whole")
    monkeypatch.setattr(where, what, put())
    kills = [("within an epoch", "on_train_batch_end", 11 if name in (PLATEAU, "tf.data") else 8)]
    resumed, fell = killed(SITUATIONS[name], tmp_path, 1, kills)
    assert fell, "the run ended before the kill"
    assert differing(whole, resumed), "nobody noticed"
