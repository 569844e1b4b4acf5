"""One small training run in a process of its own, which `kill.py` starts, kills and starts again.

`python tests/faults/victim.py REGIME OUT.npz [BACKUP_DIR SAVE_FREQ]` trains to the end and writes
everything that training has changed to OUT.npz. On standard output come `restored N` once, N being
the batches of the whole run that the backup had done (0 without one), then `step N` after each
batch's update, before a save that is due then. A process whose reader is gone ends by itself, as
it can write no more.
"""

import os
import random
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SEED = 0
BATCH = 8
STEPS_PER_EPOCH = 23
"""Odd, and the last batch is not full: saves fall on every place of an epoch."""
EPOCHS = 6
REGIMES = ("parallel", "sequential", "multi_lap", "buffered_random", "skewed")


def make_regime(name):
    """Give a regime of `EPOCHS` epochs for three stages."""
    from keras_trgl import regimes

    return {
        "parallel": regimes.Parallel,
        "sequential": lambda: regimes.Sequential(epochs=2, cache="memory"),
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
    rate = keras.optimizers.schedules.CosineDecay(0.02, STEPS_PER_EPOCH * EPOCHS)
    adam = keras.optimizers.Adam(0.002)
    momentum = keras.optimizers.SGD(rate, momentum=0.9)
    model.compile(
        adam if name in ("sequential", "buffered_random") else momentum,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make_data():
    """Give images whose labels can be learnt, the same in every process."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    y = rng.integers(0, 5, STEPS_PER_EPOCH * BATCH - 3)
    x = rng.normal(size=(len(y), 8, 8, 3)) + 0.3 * rng.normal(size=(5, 8, 8, 3))[y]
    return x.astype("float32"), y


def make_callbacks(name, backup_dir, save_freq):
    """Give the callbacks, first a witness that tells progress and has a number of its own."""
    import keras
    import numpy as np

    import keras_trgl as trgl

    class Witness(keras.callbacks.Callback):
        """Says each step that was done, and adds up draws from the saved random states."""

        def on_train_begin(self, logs=None):
            self._told, self.drawn = None, 0.0

        def on_epoch_begin(self, epoch, logs=None):
            if self._told is None:
                self._told = 0 if backup is None else backup.restored_step or 0
                say("restored", self._told)

        def on_train_batch_end(self, batch, logs=None):
            done = self.model.training_run.steps_done
            if backup is not None:
                assert done == backup.steps_done
            if done > self._told:
                assert done == self._told + 1, f"Step {done} came after step {self._told}."
                self.drawn += np.random.random() + random.random()
                self._told = done
                say("step", done)

        def on_train_end(self, logs=None):
            self.on_epoch_begin(EPOCHS)

    backup = None
    if backup_dir:
        freq = save_freq if save_freq == "epoch" else int(save_freq)
        backup = trgl.callbacks.BackupAndRestore(backup_dir, save_freq=freq)
    callbacks = [Witness(), *([backup] if backup else [])]
    if name == "parallel":
        callbacks.append(trgl.callbacks.MultiplierUpdate(h=0.1, s=3))
    return callbacks


def say(word, number):
    sys.stdout.write(f"{word} {number}\n")
    sys.stdout.flush()


def all_state(model, history, witness):
    """Give everything that training has changed, as arrays by name."""
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
    arrays["callback"] = np.asarray(witness.drawn)
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
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=None if has_epochs else EPOCHS,
        verbose=0,
        callbacks=callbacks,
    )
    np.savez(out, **all_state(model, history, callbacks[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
