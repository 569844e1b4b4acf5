"""What training in turn costs: time and bytes of each stage, cached and not.

`python benchmarks/regimes/run.py --json` trains the 10-block network block by block, encoder first,
through `fit`: with the inputs of each stage cached, with frozen stages in inference mode on every
batch, and as the published code does it, all earlier stages in training mode on every batch. Whole
trainings are timed side by side in one process, in alternating order; bytes are the allocator's
peaks in fresh processes, against end-to-end training of the same network.
"""

import json
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from processes import in_fresh_process

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_integer("rounds", 3, "Whole trainings of each kind.", lower_bound=1)
flags.DEFINE_integer("runs", 5, "Fresh processes per setting, for bytes.", lower_bound=1)
flags.DEFINE_integer("epochs", 10, "Epochs of each stage, for time.", lower_bound=2)
flags.DEFINE_integer("blocks", 10, "Blocks of the network, one per stage.", lower_bound=2)
flags.DEFINE_integer("width", 32, "Width of the first half of the blocks.")
flags.DEFINE_enum(
    "encoder", "simple", ["simple", "wide"], "Encoder, a stage of its own before the blocks."
)
flags.DEFINE_integer("batch", 128, "Batch size.")
flags.DEFINE_integer("examples", 4096, "Training examples, for time.")
flags.DEFINE_list(
    "parts", ["bytes", "time"], "What to measure; the rest is taken from the results."
)
flags.DEFINE_list("sides", ["cached", "uncached", "published"], "What to time.")
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")
flags.DEFINE_string("setting", "", "Run this one setting in this process, and print its bytes.")

SIDES = {
    "cached": {"cache": "memory"},
    "uncached": {},
    "published": {"frozen": "train"},
}
"""Name: options of `Sequential`."""

OWN = {"bytes": ("runs",), "time": ("examples", "epochs", "rounds")}
"""The settings that belong to one part."""

FIRST = ("cached_vs_published_time", "blockwise_peak_vs_end_to_end")
BYTES = ("end_to_end", "cached", "uncached")
INPUT_SHAPE = (32, 32, 3)


def make(side, epochs):
    """Give the compiled model of one side."""
    import keras

    import keras_trgl as trgl

    blocks = trgl.architectures.blockwise_resnet(
        INPUT_SHAPE,
        FLAGS.blocks,
        FLAGS.width,
        encoder=FLAGS.encoder,
        separate_encoder=True,
    )
    sizes, head = [1] * len(blocks), trgl.heads.ConvHead(units=10)
    if side == "end_to_end":
        options = {"method": "end_to_end"}
    else:
        options = {"regime": trgl.regimes.Sequential(epochs=epochs, **SIDES[side])}
    model = trgl.GreedyModel.from_blocks(blocks, sizes, head, seed=0, **options)
    model.compile(
        optimizer=keras.optimizers.SGD(0.007, momentum=0.9),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def data(examples):
    """Give images of noise and one-hot labels."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, *INPUT_SHAPE)).astype("float32")
    return x, keras.utils.to_categorical(rng.integers(0, 10, examples), 10)


def train(side):
    """Train a side whole; give its seconds, those of tracing, and each stage's per epoch."""
    import keras

    class Epochs(keras.callbacks.Callback):
        """Times every epoch, the filling of the cache before it not counted."""

        def on_train_begin(self, logs=None):
            self.seconds = {}

        def on_epoch_begin(self, epoch, logs=None):
            self.begin = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            spent = time.perf_counter() - self.begin
            self.seconds.setdefault(logs["stage"], []).append(spent)

    x, y = data(FLAGS.examples)
    model, epochs = make(side, FLAGS.epochs), Epochs()
    begin = time.perf_counter()
    model.fit(x, y, batch_size=FLAGS.batch, verbose=0, callbacks=[epochs])
    seconds = time.perf_counter() - begin
    per_stage = [statistics.median(spent[1:]) for spent in epochs.seconds.values()]
    # The first epoch of a stage traces its step; all else in it is as in the others.
    firsts = [spent[0] for spent in epochs.seconds.values()]
    tracing = sum(first - later for first, later in zip(firsts, per_stage, strict=True))
    return seconds, tracing, per_stage


def stage_peaks(side):
    """Give the allocator's peak during each stage, tracing left out, and the bytes of weights."""
    import keras
    import tensorflow as tf

    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"

    class Peaks(keras.callbacks.Callback):
        """Reads the peak of every stage's second epoch."""

        def on_train_begin(self, logs=None):
            self.peaks = {}

        def on_epoch_begin(self, epoch, logs=None):
            tf.config.experimental.reset_memory_stats(device)

        def on_epoch_end(self, epoch, logs=None):
            peak = tf.config.experimental.get_memory_info(device)["peak"]
            self.peaks[logs.get("stage", 1)] = peak

    x, y = data(2 * FLAGS.batch)
    peaks = Peaks()
    model = make(side, epochs=2)
    epochs = 2 if side == "end_to_end" else None
    model.fit(x, y, batch_size=FLAGS.batch, epochs=epochs, verbose=0, callbacks=[peaks])
    return list(peaks.peaks.values())


def device_bytes():
    """Give bytes of weights and optimizer state on the training device, stages idle there or not.

    On a CPU two logical devices stand for the host and the training device.
    """
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
    training = "GPU:0" if gpus else "CPU:1"

    class Bytes(keras.callbacks.Callback):
        """Adds up the variables on the training device in every epoch."""

        def on_train_begin(self, logs=None):
            self.held = []

        def on_epoch_end(self, epoch, logs=None):
            held = [v for part in (*self.model.stages, *self.model.heads) for v in part.variables]
            held += self.model.optimizer.variables
            here = [v.value for v in held if v.value.device.endswith(training)]
            self.held.append(sum(int(tf.size(v)) * v.dtype.size for v in here))

    x, y = data(FLAGS.batch)
    found = {}
    for name, idle in (("all_stages_there", None), ("idle_stages_on_the_host", "CPU:0")):
        SIDES["moved"] = {"cache": "memory", "idle_device": idle}
        held = Bytes()
        with tf.device(training):
            make("moved", 1).fit(x, y, batch_size=FLAGS.batch, verbose=0, callbacks=[held])
        found[name] = max(held.held)
    return found


def in_process(setting):
    """Run one setting in a fresh process, and give what it printed."""
    told = {name: FLAGS[name].value for name in ("blocks", "width", "batch", "encoder")}
    return in_fresh_process(__file__, setting=setting, **told)


def measure_bytes():
    """Give the peak of end-to-end training, and of each stage, as medians over processes."""
    peaks = {}
    for setting in BYTES:
        runs = [in_process(setting) for _ in range(FLAGS.runs)]
        peaks[setting] = [int(statistics.median(column)) for column in zip(*runs, strict=True)]
        worst = [max(run) for run in runs]
        print(
            f"{setting:12} worst {max(peaks[setting]) / 2**20:7.1f} MiB  "
            f"spread {(max(worst) - min(worst)) / statistics.median(worst):5.1%}",
            flush=True,
        )
    return peaks


def measure_time():
    """Give the seconds of whole trainings, of tracing, and of each stage's epochs, by side."""
    totals = {side: [] for side in FLAGS.sides}
    traced = {side: [] for side in FLAGS.sides}
    epochs = {side: [] for side in FLAGS.sides}
    for turn in range(FLAGS.rounds):
        order = FLAGS.sides if turn % 2 == 0 else FLAGS.sides[::-1]
        for side in order:
            seconds, tracing, per_stage = train(side)
            totals[side].append(seconds)
            traced[side].append(tracing)
            epochs[side].append(per_stage)
            print(
                f"round {turn + 1}  {side:10} {seconds:7.1f} s, of them {tracing:5.1f} s of "
                f"tracing {len(per_stage)} stages",
                flush=True,
            )
    stages = {
        side: [statistics.median(column) for column in zip(*runs, strict=True)]
        for side, runs in epochs.items()
    }
    return totals, traced, stages


def ratios(above, below):
    """Give the median, least and largest of the rounds' ratios."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(each), "low": min(each), "high": max(each)}


def bytes_report():
    """Measure peaks and where variables are."""
    peaks = measure_bytes()
    return {
        "blockwise_peak_vs_end_to_end": max(peaks["cached"]) / peaks["end_to_end"][0],
        "stage_peak_bytes": {side: peaks[side] for side in ("cached", "uncached")},
        "end_to_end_peak_bytes": peaks["end_to_end"][0],
        "variable_bytes_on_training_device": in_process("device_bytes"),
    }


def time_report():
    """Time whole trainings."""
    totals, traced, seconds = measure_time()
    found = {
        f"cached_vs_{side}_time_rounds": ratios(totals["cached"], totals[side])
        for side in FLAGS.sides
        if side != "cached"
    }
    if "published" in FLAGS.sides:
        found["cached_vs_published_time"] = found["cached_vs_published_time_rounds"]["median"]
    found["tracing_seconds"] = {side: statistics.median(runs) for side, runs in traced.items()}
    found["seconds"] = {side: statistics.median(runs) for side, runs in totals.items()}
    return {**found, "stage_seconds_per_epoch": seconds}


def main(argv):
    """Measure bytes, then time; or one setting in this process."""
    del argv
    if FLAGS.setting:
        held = device_bytes() if FLAGS.setting == "device_bytes" else stage_peaks(FLAGS.setting)
        print(json.dumps(held))
        return
    path = pathlib.Path(FLAGS.results or pathlib.Path(__file__).with_name("results.json"))
    report = {} if set(FLAGS.parts) == {"bytes", "time"} else json.loads(path.read_text())
    if "bytes" in FLAGS.parts:
        report |= bytes_report()
    if "time" in FLAGS.parts:
        report |= time_report()
    names = ["blocks", "width", "encoder", "batch"]
    for part in FLAGS.parts:
        names += OWN[part]
    report = {**{name: report.pop(name) for name in FIRST if name in report}, **report}
    # What was measured before keeps what it was measured with.
    report["setup"] = report.get("setup", {}) | {name: getattr(FLAGS, name) for name in names}
    for name in FIRST:
        if name in report:
            print(f"{name:30} {report[name]:.3f}")
    if FLAGS.json:
        path.write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report))


if __name__ == "__main__":
    app.run(main)
