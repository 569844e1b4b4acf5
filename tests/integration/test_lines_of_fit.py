"""Lines that `fit` shows beside its bars: once, and only where it shows anything."""

import keras
import numpy as np
import pytest

import keras_trgl as trgl

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4096, 64)).astype("float32")
Y = RNG.integers(0, 3, 4096)


def make(regime="parallel"):
    blocks = [
        trgl.layers.ResidualBlock([keras.layers.Dense(64)], input_shape=(64,) if not k else None)
        for k in range(2)
    ]
    head = trgl.heads.LinearHead(3)
    model = trgl.GreedyModel.from_blocks(
        blocks, [1, 1], head, method="vangl", regime=regime, seed=0
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    return model


def lines(text, word):
    return [line for line in text.replace("\r", "\n").splitlines() if word in line]


# 4096 rows of 64 numbers of 4 bytes.
CACHED = ["caching features: 1.0 MiB, the input of stage 2"]


@pytest.mark.parametrize(("verbose", "told"), [(0, []), (1, CACHED), (2, CACHED), ("auto", CACHED)])
def test_a_cache_that_is_filled_is_told_of_once(verbose, told, capsys):
    model = make(trgl.regimes.Sequential(epochs=2, cache="memory"))
    model.fit(X, Y, batch_size=2048, verbose=verbose)
    text = capsys.readouterr().out
    assert lines(text, "caching") == told
    assert bool(text) == bool(told)


class Cut(keras.callbacks.Callback):
    """Ends a process after some batches of the whole run."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        if self.model.training_run.steps_done == self.after:
            raise KeyboardInterrupt

    def get_state(self):
        return {}

    def set_state(self, state):
        raise AssertionError(state)


@pytest.mark.parametrize(
    ("save_freq", "after", "verbose", "told"),
    [
        # All batches of the first epoch are done, and its end is not.
        (1, 3, 2, ["resumed at epoch 1, step 2"]),
        (1, 4, 2, ["resumed at epoch 2, step 1"]),
        ("epoch", 4, "auto", ["resumed at epoch 2, step 0"]),
        ("epoch", 1, 2, []),
        (1, 4, 0, []),
    ],
)
def test_a_run_that_goes_on_says_where(save_freq, after, verbose, told, tmp_path, capsys):
    def train(*extra):
        keep = trgl.callbacks.BackupAndRestore(tmp_path, save_freq)
        make().fit(
            X[:48], Y[:48], batch_size=24, epochs=3, verbose=verbose, callbacks=[*extra, keep]
        )

    with pytest.raises(KeyboardInterrupt):
        train(Cut(after))
    assert lines(capsys.readouterr().out, "resumed") == []
    train()
    text = capsys.readouterr().out
    assert lines(text, "resumed") == told
    assert bool(text) == bool(verbose)


def test_a_run_that_is_over_says_so(tmp_path, capsys):
    for _ in range(2):
        keep = trgl.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        make().fit(X[:48], Y[:48], batch_size=24, epochs=1, verbose=2, callbacks=[keep])
    assert lines(capsys.readouterr().out, "resumed") == ["resumed after epoch 1, the last"]
