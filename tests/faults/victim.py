"""One small training run in a process of its own, which `kill.py` starts, kills and starts again.

`python tests/faults/victim.py REGIME OUT.npz [BACKUP_DIR SAVE_FREQ]` trains to the end and writes
everything that training has changed to OUT.npz, with what every callback counted. On standard
output come `begin 0` before anything is restored, `restored N` once, N being the batches of the
whole run that the backup had done (0 without one), `step N` after each batch's update, before a
save that is due then, `validation N` when N batches of the run were done, and `end N` between the
last save and the removal of the file. A process whose reader is gone ends by itself, as it can
write no more.
"""

import os
import random
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SEED = 0
BATCH = 8
STEPS_PER_EPOCH = 23
"""Odd, and the last batch is not full: saves fall on every place of an epoch."""
EPOCHS = 6
REGIMES = (
    *("parallel", "sequential", "multi_lap", "buffered_random", "skewed"),
    *("executions", "pipeline"),
)
"""Regimes, and two more situations of the parallel one: calls of several steps, and `tf.data`."""
NO_STATE = ("params", "min_delta")
"""Attributes that are told, or a setting: Keras negates `min_delta` at an epoch's end."""
EXECUTION = {"executions": 4}
"""Steps per call, where they are several."""


def make_regime(name):
    """Give a regime of `EPOCHS` epochs for three stages."""
    from keras_trgl import regimes

    return {
        "parallel": regimes.Parallel,
        "executions": regimes.Parallel,
        "pipeline": regimes.Parallel,
        "sequential": lambda: regimes.Sequential(
            epochs=3, cache="memory", stop=regimes.StopStage(1, "val_loss", min_delta=0.1)
        ),
        "multi_lap": lambda: regimes.MultiLap(epochs=2, num_laps=2),
        "buffered_random": lambda: regimes.Buffered(capacity=3, order="random"),
        "skewed": lambda: regimes.Buffered(capacity=1, order="skewed"),
    }[name]()


def make_model(name):
    """Give three stages with dropout, and one head large enough for saves to take a while."""
    import keras

    from keras_trgl import GreedyModel
    from keras_trgl.heads import LinearHead
    from keras_trgl.layers import BatchNormalization, ResidualBlock
    from keras_trgl.methods import TRGL

    def convolution():
        return keras.layers.Conv2D(8, 3, padding="same", use_bias=False)

    blocks = [
        ResidualBlock(
            [
                convolution(),
                BatchNormalization(),
                keras.layers.ReLU(),
                keras.layers.Dropout(0.3),
                convolution(),
                BatchNormalization(),
            ],
            entry=convolution() if position == 0 else None,
            activation="relu",
            input_shape=(8, 8, 3) if position == 0 else None,
        )
        for position in range(3)
    ]
    dense = [keras.layers.Dense(1024, activation="relu"), keras.layers.Dense(5)]
    heads = [keras.Sequential([keras.layers.Flatten(), *dense]), LinearHead(5), LinearHead(5)]
    model = GreedyModel.from_blocks(
        blocks, [1, 1, 1], heads, method=TRGL(tau=0.5), regime=make_regime(name), seed=SEED
    )
    model.compile(
        make_optimizer(name),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=EXECUTION.get(name, 1),
    )
    return model


def make_optimizer(name):
    """Give an optimizer: each regime has another kind of state."""
    from keras import optimizers

    rate = optimizers.schedules.CosineDecay(0.02, STEPS_PER_EPOCH * EPOCHS)
    return {
        "parallel": lambda: optimizers.SGD(0.02, momentum=0.9, use_ema=True, ema_momentum=0.9),
        "sequential": lambda: optimizers.Adam(0.002),
        "multi_lap": lambda: optimizers.SGD(rate, momentum=0.9),
        "buffered_random": lambda: optimizers.Adam(0.002, gradient_accumulation_steps=3),
        "skewed": lambda: optimizers.SGD(rate, momentum=0.9),
        "executions": lambda: optimizers.Adam(0.002),
        "pipeline": lambda: optimizers.AdamW(0.002),
    }[name]()


def make_data():
    """Give images whose labels can be learnt, the same in every process."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    y = rng.integers(0, 5, STEPS_PER_EPOCH * BATCH - 3)
    x = rng.normal(size=(len(y), 8, 8, 3)) + 0.3 * rng.normal(size=(5, 8, 8, 3))[y]
    return x.astype("float32"), y


def make_callbacks(name, backup_dir, save_freq):
    """Give the callbacks, first a witness that tells progress and counts every call."""
    import keras
    import numpy as np

    import keras_trgl as trgl

    class Witness(keras.callbacks.Callback):
        """Says each step that is done, counts hooks, and adds up draws from the random states."""

        def on_train_begin(self, logs=None):
            self.drawn, self.calls, self.epochs = 0.0, {}, []
            say("begin", 0)

        def on_epoch_begin(self, epoch, logs=None):
            self.count("epoch_begin")
            self.epochs.append(epoch)

        def on_epoch_end(self, epoch, logs=None):
            self.count("epoch_end")

        def on_train_batch_begin(self, batch, logs=None):
            self.count("batch_begin")

        def on_train_batch_end(self, batch, logs=None):
            self.count("batch_end")
            self.drawn += np.random.random() + random.random()
            say("step", self.model.training_run.steps_done)

        def on_test_begin(self, logs=None):
            self.count("test_begin")
            say("validation", self.model.training_run.steps_done)

        def on_test_batch_end(self, batch, logs=None):
            self.count("test_batch_end")

        def on_train_end(self, logs=None):
            self.count("train_end")
            say("end", self.model.training_run.steps_done)

        def count(self, hook):
            self.calls[hook] = self.calls.get(hook, 0) + 1

    class Teller(keras.callbacks.Callback):
        """Says what was restored, before the first batch."""

        def on_train_begin(self, logs=None):
            self.model.told = False

        def on_train_batch_begin(self, batch, logs=None):
            if not self.model.told:
                self.model.told = True
                say("restored", 0 if backup is None else backup.restored_step or 0)

        def on_train_end(self, logs=None):
            self.on_train_batch_begin(0)

    class Linger(keras.callbacks.Callback):
        """Leaves time to be killed in between the last save and the removal of the file."""

        def on_train_end(self, logs=None):
            time.sleep(0.3)

    of, backup = keras.callbacks, None
    if backup_dir:
        freq = save_freq if save_freq == "epoch" else int(save_freq)
        backup = trgl.callbacks.BackupAndRestore(backup_dir, save_freq=freq)
    stop = of.EarlyStopping("val_loss", 0.01, EPOCHS, restore_best_weights=True)
    more = {
        "parallel": lambda: [
            trgl.callbacks.MultiplierUpdate(h=0.1, s=3),
            of.LearningRateScheduler(lambda epoch, rate: rate * 0.8),
            stop,
        ],
        "executions": lambda: [of.ReduceLROnPlateau(), of.ReduceLROnPlateau("loss", patience=1)],
        "pipeline": lambda: [stop, of.ReduceLROnPlateau(patience=2)],
        "buffered_random": lambda: [stop],
    }.get(name, list)()
    return [Teller(), Witness(), *([backup] if backup else []), *more, Linger()]


def say(word, number):
    sys.stdout.write(f"{word} {number}\n")
    sys.stdout.flush()


def all_state(model, history, callbacks):
    """Give everything that training has changed, and what callbacks hold, as arrays by name."""
    import numpy as np

    groups = {"weight": model.weights, "variable": model.variables}
    groups["optimizer"] = model.optimizer.variables
    arrays = {
        f"{group}/{place}/{variable.path}": np.asarray(variable)
        for group, variables in groups.items()
        for place, variable in enumerate(variables)
    }
    arrays.update({f"history/{key}": np.asarray(row) for key, row in history.history.items()})
    arrays["history_epochs"] = np.asarray(history.epoch)
    for one in callbacks:
        kind = type(one).__name__
        if kind == "BackupAndRestore":
            continue
        for name, value in vars(one).items():
            if isinstance(value, (bool, int, float, list, dict)) and name not in NO_STATE:
                arrays[f"{kind}/{name}"] = np.frombuffer(repr(value).encode(), np.uint8)
    arrays["random/numpy"] = np.random.get_state()[1]
    arrays["random/numpy_place"] = np.asarray(np.random.get_state()[2])
    arrays["random/python"] = np.asarray(random.getstate()[1])
    return arrays


def main(name, out, backup_dir="", save_freq="4"):
    import keras
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(SEED)
    model = make_model(name)
    x, y = make_data()
    callbacks = make_callbacks(name, backup_dir, save_freq)
    has_epochs = name in ("sequential", "multi_lap")
    data = {"x": x, "y": y, "batch_size": BATCH}
    if name == "pipeline":
        data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y), seed=SEED)
        data = {"x": data.batch(BATCH)}
    history = model.fit(
        **data,
        epochs=None if has_epochs else EPOCHS,
        verbose=0,
        callbacks=callbacks,
        validation_data=(x[:20], y[:20]),
    )
    np.savez(out, **all_state(model, history, callbacks))


if __name__ == "__main__":
    main(*sys.argv[1:])
