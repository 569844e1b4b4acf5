"""Counters are kept and settings are not; callbacks are paired by what they are."""

import inspect

import keras
import numpy as np
import pytest

from keras_trgl.keeping.callback_state import (
    CallbackCounters,
    counters_of_keras,
    decoded,
    encoded,
    names_of,
    stops_by,
    tell_left_over,
)

ARGUMENTS = {
    "ModelCheckpoint": ("m.weights.h5",),
    "OrbaxCheckpoint": ("folder",),
    "BackupAndRestore": ("folder",),
    "CSVLogger": ("log.csv",),
}


@pytest.mark.parametrize("kind", counters_of_keras(), ids=lambda kind: kind.__name__)
def test_keras_still_has_each_counter_that_the_table_names(kind):
    """Names of Keras that are private stand in one table; this fails when one of them moves."""
    code = "".join(inspect.getsource(base) for base in kind.__mro__[:-1])
    for name in counters_of_keras()[kind]:
        assert f"self.{name} = " in code, f"{kind.__name__}.{name}"


def test_min_delta_is_still_negated_by_monitor_op_alone():
    stop = keras.callbacks.EarlyStopping("loss", min_delta=0.5)
    stop.set_model(keras.Model())
    stop.on_train_begin()
    stop.on_epoch_end(0, {"loss": 1.0})
    assert stop.min_delta == -0.5
    assert stops_by([stop])["EarlyStopping('loss')"]["min_delta"] == 0.5


VALUES = [
    *(None, True, 3, 2.5, float("inf"), "text", [1, (2, "a")], {"a": {1: 2}, (1, 2): None}, {1, 2}),
    *(np.arange(3, dtype="int16"), np.float32(0.1), [np.zeros(2), np.ones((1, 2), "bool")]),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_in_their_types(value):
    arrays = []
    back = decoded(encoded(value, arrays), arrays)
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    # Named by hand: an address in a name would differ between workers.
    "value",
    [object(), [print], np.array([{}]), keras.Variable(1.0)],
    ids=["object", "function", "array_of_objects", "variable"],
)
def test_other_values_are_refused(value):
    with pytest.raises(TypeError, match="is no number, text, array, list or dict of these"):
        encoded(value, [])


@pytest.mark.parametrize(
    "value", [{"other": 1}, {"array": "a"}, {"list": 3}, {"a": 1, "b": 2}, [1]]
)
def test_other_texts_are_no_state(value):
    with pytest.raises(ValueError, match="is no state of a callback"):
        decoded(value, [])


class Counts(keras.callbacks.Callback):
    """Has settings, a counter, rows, a private one, an array, and what is none of these."""

    def __init__(self, every=2):
        super().__init__()
        self.every, self.lock = every, object()

    def on_train_begin(self, logs=None):
        self.count, self.rows, self._last, self.sum = 0, [], None, np.zeros(2)

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1
        self.rows.append((epoch, logs))
        self._last, self.sum = epoch, self.sum + 1
        self.open = print


class Own(Counts):
    """Tells its state itself."""

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


def begun(*callbacks):
    counters = CallbackCounters(list(callbacks))
    for one in callbacks:
        one.on_train_begin()
    counters.begin()
    return counters


def moved(before, *callbacks):
    """Give counters of new callbacks that have what others counted, and the names left over."""
    counters = begun(*callbacks)
    pairs, left = counters.paired(*before.get_state(), [])
    counters.set_state(pairs)
    return left


def test_what_changed_since_the_begin_is_kept_and_settings_are_not():
    first, second = Counts(every=2), Counts(every=3)
    before = begun(first)
    first.on_epoch_end(0, {"loss": 0.5})
    assert moved(before, second) == []
    assert (second.count, second.rows, second._last) == (1, [(0, {"loss": 0.5})], 0)
    assert (second.every, second.sum.tolist(), hasattr(second, "open")) == (3, [1.0, 1.0], False)


def test_what_a_begin_hook_did_in_the_new_process_is_undone():
    first, second = Counts(), Counts()
    before, counters = begun(first), begun(second)
    second.on_epoch_end(3)
    counters.set_state(counters.paired(*before.get_state(), [])[0])
    assert (second.count, second.rows, second._last) == (0, [], None)


def test_a_callback_with_a_protocol_is_asked():
    first, second = Own(), Own()
    before = begun(first)
    first.on_epoch_end(0)
    assert moved(before, second) == []
    assert (second.count, second.rows) == (1, [])


def test_a_protocol_that_gives_what_cannot_be_kept_is_named():
    own = Own()
    own.get_state = lambda: {"file": print}
    with pytest.raises(TypeError, match="`get_state` of Own must give a dict of numbers"):
        begun(own).get_state()


STOP = keras.callbacks.EarlyStopping


def test_callbacks_are_paired_by_class_monitor_and_occurrence():
    callbacks = [STOP("loss"), Counts(), STOP("val_loss"), Counts(), STOP("loss")]
    assert names_of(callbacks) == [
        *("EarlyStopping('loss')", "Counts", "EarlyStopping('val_loss')", "Counts#2"),
        "EarlyStopping('loss')#2",
    ]


def test_new_settings_win_and_what_has_no_partner_is_told():
    old = [STOP("loss", 0.5, 2), STOP("accuracy", mode="max"), Counts()]
    before = begun(*old)
    for one in old:
        one.set_model(keras.Model())
        one.on_epoch_end(0, {"loss": 1.0, "accuracy": 0.1})
    new = [Own(), STOP("loss", 0.1, 9)]
    left = moved(before, *new)
    assert left == ["EarlyStopping('accuracy')", "Counts"]
    assert (new[1].best, new[1].patience, new[1].min_delta, new[1].wait) == (1.0, 9, 0.1, 0)
    with pytest.warns(UserWarning, match=r"counters of EarlyStopping\('accuracy'\), Counts, which"):
        tell_left_over(left, "backup.npz")


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"wait": "two"}, "wait of EarlyStopping"),
        ({"wait": 1.5}, "no whole number"),
        ({"best": [1]}, "best of EarlyStopping"),
        ({"best_weights": [np.zeros(3)]}, "best weights of EarlyStopping.*of another model"),
        ({1: 2}, "names that are no texts"),
    ],
)
def test_a_state_that_cannot_be_its_callbacks_is_refused_before_it_is_set(state, match):
    stop = STOP("loss")
    counters, arrays = begun(stop), []
    before = dict(vars(stop))
    with pytest.raises(ValueError, match=match):
        counters.paired([["EarlyStopping('loss')", encoded(state, arrays)]], arrays, [])
    assert vars(stop) == before
