"""Kills and freezes workers that hold stages at random moments, and goes on from backups.

`python tests/faults/workers.py --json` trains a model of three stages on two workers of this
machine. First without a fault: weights, optimizers and history must be those of a run without
workers, bit for bit. Then, in each of `--kills` trials per worker, a worker gets SIGKILL at a
random moment of `fit`, and in each of `--stops` trials SIGSTOP. `fit` must raise an error that
names the stages and the worker. The worker is started again, the coordinator connects, makes a
new strategy and model, restores the backup, trains to the end, and comes to the same bits.

The last line with `--json` is {fault: {trials, named, bit_exact, seconds_to_error_max}}, and
`without_fault_bit_exact`. The exit code is 1 if anything is not as it must be.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf

import keras_trgl as trgl

EPOCHS, BATCH, K, EXAMPLES = 6, 8, 3, 44
STEPS = EPOCHS * -(-EXAMPLES // BATCH)
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
LIMIT = {"kill": 5.0, "stop": 8.0}
"""Seconds to the error; for a frozen worker the strategy's timeout and a little."""
TIMEOUT = 6.0


def make_data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(EXAMPLES, 6)).astype("float32"), rng.integers(0, 3, EXAMPLES)


def make_model(steps_per_execution=1):
    blocks = [
        trgl.layers.ResidualBlock(
            [
                keras.layers.Dense(6, "tanh"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.3),
            ],
            input_shape=(6,) if k == 0 else None,
        )
        for k in range(K)
    ]
    model = trgl.GreedyModel.from_blocks(blocks, [1] * K, trgl.heads.LinearHead(3), seed=0)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def train(model, callbacks=()):
    x, y = make_data()
    multipliers = trgl.callbacks.MultiplierUpdate(h=0.5, s=2)
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        validation_data=(x, y),
        callbacks=[multipliers, *callbacks],
    ).history
    variables = [*model.variables, *model.optimizer.variables]
    return [variable.numpy() for variable in variables], history


def same(first, second):
    arrays = zip(first[0], second[0], strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in arrays) and first[1] == second[1]


class Strike(keras.callbacks.Callback):
    """Sends a signal to a process some time after a batch of the run."""

    def __init__(self, pid, number, after, delay):
        super().__init__()
        self.pid, self.number, self.delay, self.at = pid, number, delay, None
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            timer = threading.Timer(self.delay, self.strike)
            timer.daemon = True
            timer.start()

    def strike(self):
        self.at = time.monotonic()
        os.kill(self.pid, self.number)


class Trials:
    """Faults of two workers, and what came of them.

    Args:
        workers: `LocalWorkers`.
        wanted: what a run without workers gives.
        rng: `random.Random`.
    """

    def __init__(self, workers, wanted, rng):
        self.workers, self.wanted, self.rng = workers, wanted, rng
        self.devices = trgl.distribute.connect(workers.addresses)

    def strategy(self):
        return trgl.distribute.StageParallelStrategy(self.devices, timeout=TIMEOUT)

    def without_fault(self, steps_per_execution=1):
        """Tell whether a run on the workers gives the wanted bits."""
        with self.strategy().scope():
            model = make_model(steps_per_execution)
        return same(train(model), self.wanted)

    def fault(self, kind, k, folder):
        """Strike worker k once; give what came of it."""
        backup = trgl.callbacks.BackupAndRestore(folder, save_freq=2)
        after, delay = self.rng.randint(1, STEPS - STEPS // EPOCHS), self.rng.uniform(0.0, 0.05)
        strike = Strike(self.workers.processes[k].pid, SIGNALS[kind], after, delay)
        strategy = self.strategy()
        with strategy.scope():
            model = make_model()
        stages = [
            depth for depth, one in enumerate(model.placement.devices, 1) if one == self.devices[k]
        ]
        row = {"named": False, "bit_exact": False, "seconds": float("inf"), "said": "no error"}
        try:
            train(model, [strike, backup])
        except trgl.distribute.LostDeviceError as error:
            row["seconds"] = time.monotonic() - strike.at
            row["said"] = str(error).split(" Its weights")[0]
            row["named"] = error.devices == (self.devices[k],) and all(
                word in str(error)
                for word in (f"Stage {', '.join(map(str, stages))} on", self.workers.addresses[k])
            )
        row["fails_at_once"] = fails_at_once(model)
        self.workers.restart(k)
        self.devices = trgl.distribute.connect(self.workers.addresses)
        with self.strategy().scope():
            model = make_model()
        again = trgl.callbacks.BackupAndRestore(folder, save_freq=2)
        row["bit_exact"] = same(train(model, [again]), self.wanted)
        row["restored"] = again.restored_step
        return row


def fails_at_once(model):
    """Tell whether saving a model with a lost stage raises, rather than waiting for it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save(pathlib.Path(folder) / "model.keras")
        except trgl.distribute.LostDeviceError:
            return time.monotonic() - began < 1.0 and not list(pathlib.Path(folder).iterdir())
    return False


def run(options):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    wanted = train(make_model())
    rows = {kind: [] for kind in SIGNALS}
    with trgl.distribute.LocalWorkers(2, threads=1) as workers:
        trials = Trials(workers, wanted, random.Random(options.seed))
        exact = [trials.without_fault(steps) for steps in options.steps]
        sys.stderr.write(f"without fault: exact {exact}\n")
        counts = {"kill": options.kills, "stop": options.stops}
        plan = [
            (kind, (place + shift) % 2)
            for place in range(2 * max(counts.values()))
            for shift, kind in enumerate(counts)
            if place < 2 * counts[kind]
        ]
        for kind, k in plan[: options.limit]:
            with tempfile.TemporaryDirectory() as folder:
                row = trials.fault(kind, k, folder)
            rows[kind].append(row)
            sys.stderr.write(f"{kind} of worker {k}: {row}\n")
    return exact, rows


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="per worker")
    parser.add_argument("--stops", type=int, default=2, help="per worker")
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[1, 4], help="per execution, without a fault"
    )
    parser.add_argument("--limit", type=int, default=None, help="trials in all")
    parser.add_argument("--seed", default="0", help="of the moments")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    exact, rows = run(options)
    report = {
        kind: {
            "trials": len(many),
            "named": sum(row["named"] and row["fails_at_once"] for row in many),
            "bit_exact": sum(row["bit_exact"] for row in many),
            "seconds_to_error_max": max((round(row["seconds"], 2) for row in many), default=None),
        }
        for kind, many in rows.items()
    }
    good = all(exact) and all(
        row["named"] == row["bit_exact"] == row["trials"]
        and (not row["trials"] or row["seconds_to_error_max"] <= LIMIT[kind])
        for kind, row in report.items()
    )
    report["without_fault_bit_exact"] = all(exact)
    sys.stdout.write(json.dumps(report) + "\n" if options.json else f"{report}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
