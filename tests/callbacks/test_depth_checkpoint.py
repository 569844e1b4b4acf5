"""`DepthCheckpoint`: which depth is kept, what its file holds, and what it refuses."""

import math

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.callbacks import BackupAndRestore, DepthCheckpoint
from keras_trgl.distribute import StageParallelStrategy

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.integers(0, 3, 24)
VALIDATION = (X[:16], Y[::-1][:16].copy())
K = 2


def make(regime="parallel", method="vangl", seed=0, metrics=("accuracy",), eager=True):
    blocks = [
        trgl.layers.ResidualBlock(
            [keras.layers.Dense(6, "tanh")], input_shape=(6,) if not k else None
        )
        for k in range(K)
    ]
    head = trgl.heads.LinearHead(3)
    model = trgl.GreedyModel.from_blocks(
        blocks, [1] * K, head, method=method, regime=regime, seed=seed
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=metrics, run_eagerly=eager)
    return model


def fit(model, *callbacks, **options):
    settings = {"batch_size": 8, "verbose": 0, "validation_data": VALIDATION}
    return model.fit(X, Y, callbacks=list(callbacks), **settings | options).history


class Depths(keras.callbacks.Callback):
    """Every depth's weights at the end of every epoch, and which depths have trained."""

    def __init__(self):
        super().__init__()
        self.weights, self.trained, self._seen = [], [], set()

    def on_epoch_end(self, epoch, logs=None):
        self._seen |= {k + 1 for k in self.model.training_run.position.plan}
        self.trained.append(sorted(self._seen))
        depths = range(1, K + 1)
        self.weights.append({k: self.model.truncate(k).get_weights() for k in depths})


def best_of(history, seen, prefix, name, sign):
    """Give value, epoch and depth of the best: the first of equal ones, and the smallest depth."""
    found = [
        (sign * history[f"{prefix}stage_{k}_{name}"][epoch], epoch, k)
        for epoch, trained in enumerate(seen.trained)
        for k in trained
    ]
    value, epoch, k = min(one for one in found if not math.isnan(one[0]))
    return sign * value, epoch, k


RUNS = {
    "at once": ("parallel", {"epochs": 3}, ("val_", "accuracy", -1)),
    "by the least loss": ("parallel", {"epochs": 3}, ("val_", "loss", 1)),
    "by the training data": ("parallel", {"epochs": 3}, ("", "accuracy", -1)),
    "in turn": (trgl.regimes.Sequential(epochs=2, cache="memory"), {}, ("val_", "loss", 1)),
    "in laps": (trgl.regimes.MultiLap(2, num_laps=2), {}, ("val_", "accuracy", -1)),
    "buffered": (trgl.regimes.Buffered(2), {"epochs": 2}, ("val_", "accuracy", -1)),
}


@pytest.mark.parametrize("row", RUNS)
def test_the_file_has_the_best_depth_of_the_run(row, tmp_path):
    regime, options, (prefix, name, sign) = RUNS[row]
    keep, seen = DepthCheckpoint(tmp_path / "best.keras", prefix + name), Depths()
    history = fit(make(regime), keep, seen, **options)
    value, epoch, depth = best_of(history, seen, prefix, name, sign)
    assert (keep.best, keep.best_depth) == (value, depth)
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    for one, other in zip(loaded.get_weights(), seen.weights[epoch][depth], strict=True):
        np.testing.assert_array_equal(one, other)
    if prefix and name == "accuracy":
        x, y = VALIDATION
        assert (np.argmax(loaded(x), -1) == y).mean() == pytest.approx(value)
    assert [path.name for path in tmp_path.iterdir()] == ["best.keras"]


def test_stages_on_several_devices_are_kept_too(tmp_path):
    with StageParallelStrategy(["CPU:0", "CPU:1"]).scope():
        model = make(eager=False)
    keep, alone = DepthCheckpoint(tmp_path / "a.keras"), DepthCheckpoint(tmp_path / "b.keras")
    fit(model, keep)
    fit(make(eager=False), alone)
    assert (keep.best, keep.best_depth) == (alone.best, alone.best_depth)
    files = (tmp_path / "a.keras", tmp_path / "b.keras")
    first, second = (keras.saving.load_model(path).get_weights() for path in files)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_alone_fit_a_truncated_model_and_folders_are_made(tmp_path):
    path = str(tmp_path / "new" / "{epoch:02d}-{depth}-{val_loss:.2f}.weights.h5")
    keep = DepthCheckpoint(path, "val_loss", save_weights_only=True)
    model = make()
    history = fit(model, keep, epochs=1)
    (file,) = (tmp_path / "new").iterdir()
    assert file.name == f"01-{keep.best_depth}-{history['val_loss'][0]:.2f}.weights.h5"
    other = make(seed=1).truncate(keep.best_depth)
    other.load_weights(file)
    for one, same in zip(
        other.get_weights(), model.truncate(keep.best_depth).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, same)


def test_what_beats_no_threshold_is_not_kept(tmp_path, capsys):
    keep = DepthCheckpoint(tmp_path / "a.keras", verbose=1, initial_value_threshold=1.5)
    fit(make(), keep, epochs=1)
    assert (keep.best, keep.best_depth, list(tmp_path.iterdir())) == (1.5, None, [])
    assert capsys.readouterr().out == "\nEpoch 1: val_accuracy of no depth improved from 1.50000\n"


def test_a_better_depth_is_told_of(tmp_path, capsys):
    keep = DepthCheckpoint(tmp_path / "a.keras", "val_loss", verbose=1)
    fit(make(), keep, epochs=1)
    k = keep.best_depth
    assert capsys.readouterr().out == (
        f"\nEpoch 1: val_loss of depth {k} improved from None to {keep.best:.5f}, saving "
        f"F_{k}∘G_{k} to {tmp_path / 'a.keras'}\n"
    )


@pytest.mark.parametrize(("save_freq", "compared"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6])])
def test_batches_are_counted_over_epochs(save_freq, compared, tmp_path, monkeypatch):
    keep, seen = DepthCheckpoint(tmp_path / "a.keras", "loss", save_freq=save_freq), []
    compare = keep._compare

    def watched(epoch, logs):
        seen.append(keep.model.training_run.steps_done)
        compare(epoch, logs)

    monkeypatch.setattr(keep, "_compare", watched)
    fit(make(), keep, epochs=2)
    assert seen == compared
    assert keep.best_depth in (1, 2)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("save_freq", "monitor"), [("epoch", "val_loss"), (2, "loss")])
def test_a_run_that_goes_on_knows_its_best(save_freq, monitor, tmp_path):
    def train(folder, *extra):
        # Losses fall: the largest is the first, which a run that forgot it would write over.
        keep = DepthCheckpoint(
            tmp_path / folder / "a.keras", monitor, save_freq=save_freq, mode="max"
        )
        fit(make(), keep, *extra, BackupAndRestore(tmp_path / folder / "b", 1), epochs=3)
        return keep

    class Cut(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.training_run.steps_done == 5:
                raise KeyboardInterrupt

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("cut", Cut())
    resumed = train("cut")
    assert resumed.get_state() == whole.get_state()
    first, second = (
        keras.saving.load_model(tmp_path / name / "a.keras").get_weights()
        for name in ("whole", "cut")
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_epochs_without_validation_are_passed_over(tmp_path):
    keep = DepthCheckpoint(tmp_path / "a.keras")
    history = fit(make(), keep, epochs=2, validation_freq=2)
    best = max(history[f"val_stage_{k}_accuracy"][0] for k in (1, 2))
    assert keep.best == best


def keep_in_fit(folder, monitor="val_accuracy", file="a.keras", validation=VALIDATION, **options):
    fit(make(**options), DepthCheckpoint(folder / file, monitor), validation_data=validation)


class Odd(keras.metrics.Mean):
    """A metric that does not tell what is best."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_pred)


def watched_oddly(folder):
    keep_in_fit(folder, "val_odd", metrics=[Odd(name="odd")])


MISTAKES = {
    "no path": (lambda f: DepthCheckpoint(None), "`filepath` must be a path. Received: filepath=N"),
    "no name": (lambda f: DepthCheckpoint("a.keras", None), "must name an entry.*monitor=None"),
    "a threshold in words": (
        lambda f: DepthCheckpoint("a.keras", initial_value_threshold="0.9"),
        "must be a number or None. Received: initial_value_threshold='0.9'",
    ),
    "no ending": (lambda f: DepthCheckpoint("a.h5"), r"must end in '\.keras'. Received: .*a\.h5"),
    "weights in a model's file": (
        lambda f: DepthCheckpoint("a.keras", save_weights_only=True),
        r"must end in '\.weights\.h5'.*save_weights_only=True",
    ),
    "another mode": (lambda f: DepthCheckpoint("a.keras", mode="most"), "`mode` must be one of"),
    "one depth's entry": (
        lambda f: DepthCheckpoint("a.keras", "val_stage_2_accuracy"),
        "must name what every depth has.*Use 'val_accuracy'",
    ),
    "validation between batches": (
        lambda f: DepthCheckpoint("a.keras", save_freq=5),
        "`save_freq` must be 'epoch', or a number of batches.*save_freq=5",
    ),
    "no batches": (lambda f: DepthCheckpoint("a.keras", "loss", save_freq=0), "at least 1"),
    "a plain model": (
        lambda f: DepthCheckpoint("a.keras").set_model(keras.Sequential()),
        "`DepthCheckpoint` compares depths. Received.*Train a `GreedyModel`",
    ),
    "no validation data": (
        lambda f: keep_in_fit(f, validation=None),
        "`DepthCheckpoint` watches 'val_accuracy'.*or watch 'accuracy'",
    ),
    "no such entry": (
        lambda f: keep_in_fit(f, "val_recall"),
        "must be one of 'accuracy', 'loss', .*'val_accuracy', 'val_loss'. Received: "
        "monitor='val_recall'",
    ),
    "late gradients": (
        lambda f: keep_in_fit(f, "val_loss", method="ddg", metrics=None),
        r"two at least must predict. Received: DDG\(\), which trains no head at depth 1. Use",
    ),
    "braces of nothing": (
        lambda f: keep_in_fit(f, file="{best}.keras"),
        r"may have \{depth\}, \{epoch\} and names of the logs in braces.*KeyError: 'best'",
    ),
    "no direction": (watched_oddly, "`mode='auto'` must know.*'val_odd'.*Pass `mode='max'`"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_the_way_out(mistake, tmp_path):
    call, said = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=said) as told:
        call(tmp_path)
    assert len(str(told.value)) <= 5 * 100
