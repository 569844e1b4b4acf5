"""Speed of stages on devices of their own, against one device, in interleaved pairs.

`python benchmarks/stage_parallel/run.py --json` times `fit` on ResNet-110 in two stages, split by
time. On a CPU two workers of one core each hold a stage; the base is one process on one core, and
one process with both cores is timed beside it. On a machine with several GPUs the first two hold
the stages and the base is one GPU. Every side lives in a process of its own and waits for its
turn; a round times each side once, and a ratio is the median over rounds of base / side, with the
least and the most.
"""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_integer("rounds", 5, "Rounds of one timing per side.", lower_bound=1)
flags.DEFINE_integer("steps", 64, "Batches of a timed epoch, filling and draining included.", 1)
flags.DEFINE_integer("depth", 110, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_integer("batch", 16, "Batch size.", lower_bound=1)
flags.DEFINE_list("sides", "one_core,skewed,synchronous,both_cores", "What to time.")
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")
flags.DEFINE_string("side", "", "Used by the benchmark itself: the side that this process is.")
flags.DEFINE_list("sizes", [], "Used by the benchmark itself: stage sizes.")

BASE = "one_core"
STAGES = ("skewed", "synchronous")


def prepare(side, stack):
    """Set threads and cores, start workers, and give the devices of the stages, or `None`."""
    import tensorflow as tf

    import keras_trgl as trgl

    cores = sorted(os.sched_getaffinity(0))
    gpus = [one.name for one in tf.config.list_logical_devices("GPU")] if has_gpus() else []
    if gpus:
        return gpus[:2] if side in STAGES else None
    if side == BASE:
        os.sched_setaffinity(0, {cores[0]})
    tf.config.threading.set_intra_op_parallelism_threads(2 if side == "both_cores" else 1)
    if side not in STAGES:
        return None
    each = [{cores[0]}, {cores[-1]}]
    workers = stack.enter_context(trgl.distribute.LocalWorkers(2, threads=1, cores=each))
    return trgl.distribute.connect(workers.addresses)


def has_gpus():
    """Tell whether stages can have GPUs of their own; asked without starting TensorFlow."""
    if shutil.which("nvidia-smi") is None:
        return False
    found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False, text=True)
    return len(found.stdout.splitlines()) >= 2


def serve(side):
    """Be one side: make the model, then time an epoch for every line on standard input."""
    with contextlib.ExitStack() as stack:
        devices = prepare(side, stack)
        import keras
        import numpy as np

        import keras_trgl as trgl

        blocks = trgl.architectures.resnet(FLAGS.depth, (32, 32, 3))
        head = trgl.heads.ConvHead(units=10)
        if not FLAGS.sizes:
            sizes = trgl.splitting.by_time(blocks, 2, FLAGS.batch, head)
            print(json.dumps(sizes), flush=True)
        else:
            sizes = [int(size) for size in FLAGS.sizes]
        if devices is not None:
            strategy = trgl.distribute.StageParallelStrategy(devices, schedule=side)
            stack.enter_context(strategy.scope())
        model = trgl.GreedyModel.from_blocks(blocks, sizes, head, seed=0)
        model.compile(
            keras.optimizers.SGD(0.002, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        rng = np.random.default_rng(0)
        count = FLAGS.steps * FLAGS.batch
        x = rng.normal(size=(count, 32, 32, 3)).astype("float32")
        y = rng.integers(0, 10, count)

        class Clock(keras.callbacks.Callback):
            """Times an epoch, from its begin to its logs, which wait for every stage."""

            def on_epoch_begin(self, epoch, logs=None):
                self.began = time.perf_counter()

            def on_epoch_end(self, epoch, logs=None):
                self.seconds = time.perf_counter() - self.began

        def run(steps):
            clock = Clock()
            part = slice(0, steps * FLAGS.batch)
            model.fit(x[part], y[part], batch_size=FLAGS.batch, verbose=0, callbacks=[clock])
            return clock.seconds / steps

        run(2)  # Traces.
        print("ready", flush=True)
        for _ in sys.stdin:
            print(run(FLAGS.steps), flush=True)


class Side:
    """A process that times one side when told to."""

    def __init__(self, name, sizes):
        own = [f"--{flag}={FLAGS[flag].value}" for flag in ("steps", "depth", "batch")]
        if sizes:
            own.append(f"--sizes={','.join(map(str, sizes))}")
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, f"--side={name}", *own],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self):
        """Give the next line that it says."""
        text = self.process.stdout.readline()
        if not text:
            sys.exit(f"{self.name} ended.")
        return text.strip()

    def seconds(self):
        """Give the seconds of a step."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.line())

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait()


def ratios(seconds):
    """Give, for every side but the base, median, least and most of base / side over rounds."""
    report = {}
    for side, times in seconds.items():
        if side == BASE:
            continue
        pairs = [base / one for base, one in zip(seconds[BASE], times, strict=True)]
        report[f"{side}_vs_{BASE}"] = {
            "median": statistics.median(pairs),
            "low": min(pairs),
            "high": max(pairs),
        }
    return report


def main(argv):
    """Time every side in every round."""
    del argv
    if FLAGS.side:
        serve(FLAGS.side)
        return
    names = [BASE, *(name for name in FLAGS.sides if name != BASE)]
    sides = []
    try:
        sides.append(Side(BASE, []))
        sizes = json.loads(sides[0].line())
        # One at a time: they would disturb each other, and the base has measured the split.
        sides[0].line()
        for name in names[1:]:
            sides.append(Side(name, sizes))
            sides[-1].line()
        seconds = {name: [] for name in names}
        for number in range(FLAGS.rounds):
            order = sides if number % 2 == 0 else sides[::-1]
            for side in order:
                seconds[side.name].append(side.seconds())
            print(
                "  ".join(f"{name} {times[-1]:.3f} s" for name, times in seconds.items()),
                flush=True,
            )
    finally:
        for side in sides:
            side.close()
    report = ratios(seconds)
    for name, row in report.items():
        print(f"{name:28} {row['median']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]")
    if FLAGS.json:
        setup = {key: FLAGS[key].value for key in ("depth", "batch", "steps", "rounds")}
        out = {"ratio": report, "seconds_per_step": seconds, "stage_sizes": sizes, "setup": setup}
        path = pathlib.Path(FLAGS.results or pathlib.Path(__file__).with_name("results.json"))
        path.write_text(json.dumps(out, indent=2) + "\n")
        print(json.dumps({name: row["median"] for name, row in report.items()}))


if __name__ == "__main__":
    app.run(main)
