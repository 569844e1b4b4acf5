"""Bytes and step time of every way to train within less memory, side by side.

`python benchmarks/frontier/run.py --json` trains ResNet-110 at batch 64, and at batch 1 on 256x256
images, where accumulation has nothing left, through `fit`. Each way runs in fresh processes: the
allocator's peak in some, its step time in another, in which steps take turns with end-to-end
training's; at last the largest image that trains within 1 GiB. What the results file has already
is passed over, so a run that was ended goes on; `--parts=bytes` leaves times for a quiet machine,
`--full` adds a small Swin and more stages.
"""

import importlib.util
import json
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "--measure=bytes" in sys.argv:
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from processes import in_fresh_process

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_bool("full", False, "Measure the settings that take hours, too.")
flags.DEFINE_integer("runs", 1, "Fresh processes per setting for its bytes.", lower_bound=1)
flags.DEFINE_integer("pairs", 6, "Pairs of steps per setting for its time.", lower_bound=2)
flags.DEFINE_integer("depth", 110, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_integer("batch", 64, "Batch size of the networks on small images.")
flags.DEFINE_integer("side", 256, "Side of the images at batch 1, in pixels.")
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")
flags.DEFINE_list("only", [], "Measure these settings alone, `NETWORK.SETTING`.")
flags.DEFINE_list("parts", ["bytes", "time", "side"], "What to measure.")
flags.DEFINE_bool("report", False, "Rewrite tables and pictures from the file; measure nothing.")
flags.DEFINE_string("network", "resnet", "Network of the setting that this process measures.")
flags.DEFINE_string("setting", "", "Measure this one setting in this process.")
flags.DEFINE_enum("measure", "bytes", ["bytes", "time"], "What this process measures.")

KERAS = "accumulate"
"""Of a setting that accumulates by Keras's optimizer, batch by batch: the rival."""

SETTINGS = {
    "end_to_end": ("end_to_end", 1, "even", {}),
    "end_to_end_remat": ("end_to_end", 1, "even", {"remat": 7}),
    "end_to_end_accumulate_4": ("end_to_end", 1, "even", {KERAS: 4}),
    "end_to_end_accumulate_8": ("end_to_end", 1, "even", {KERAS: 8}),
    "vangl_k4_memory": ("vangl", 4, "memory", {}),
    "trgl_k4_even": ("trgl", 4, "even", {}),
    "trgl_k4_memory": ("trgl", 4, "memory", {}),
    "trgl_k4_memory_remat": ("trgl", 4, "memory", {"remat": True}),
    "trgl_k4_memory_accumulate_4": ("trgl", 4, "memory", {"micro_batches": 4}),
    "trgl_k16_memory": ("trgl", 16, "memory", {}),
    "trgl_k16_memory_remat": ("trgl", 16, "memory", {"remat": True}),
    "trgl_k16_memory_accumulate_4": ("trgl", 16, "memory", {"micro_batches": 4}),
}
"""Name: method, number of stages, split, options of `compile`."""

MORE = {
    "vangl_k2_memory": ("vangl", 2, "memory", {}),
    "trgl_k2_memory": ("trgl", 2, "memory", {}),
    "trgl_k8_memory": ("trgl", 8, "memory", {}),
    "vangl_k16_memory": ("vangl", 16, "memory", {}),
}
TORCH = {
    "torch_end_to_end": {},
    "torch_checkpoint": {"segment": 7},
    "torch_accumulate_4": {"parts": 4},
}
"""The rivals in PyTorch, where that is installed: options of `torch_rival.Training`."""

BATCH_1 = (
    *("end_to_end", "end_to_end_remat", "trgl_k4_memory", "trgl_k16_memory"),
    *("trgl_k4_memory_remat", "trgl_k16_memory_remat"),
)
"""What is measured where a batch is one image."""

SIDES = ("end_to_end", "end_to_end_remat", "trgl_k4_memory", "trgl_k16_memory")
"""Of which the largest image within `LIMIT` is looked for."""

LIMIT = 2**30
STEP = 32
"""Of image sides, in pixels."""


def plan():
    """Give (network, setting) of all that is to be measured."""
    wanted = [("resnet", name) for name in SETTINGS]
    wanted += [("batch_1", name) for name in BATCH_1]
    if importlib.util.find_spec("torch"):
        wanted += [("resnet", name) for name in TORCH]
        wanted += [("batch_1", name) for name in TORCH if name != "torch_accumulate_4"]
    if FLAGS.full:
        wanted += [("resnet", name) for name in MORE]
        # It has twelve blocks.
        wanted += [("swin", name) for name, one in SETTINGS.items() if one[1] <= 12]
    if FLAGS.only:
        wanted = [tuple(one.split(".")) for one in FLAGS.only]
    return wanted


def network(name):
    """Give blocks, head, shape of the data and batch size."""
    import keras_trgl as trgl

    side = FLAGS.side if name == "batch_1" else 32
    shape = (side, side, 3)
    if name == "swin":
        blocks = trgl.architectures.swin_tiny(shape, patch_size=2, window=4)
        return blocks, trgl.heads.NormHead(10), shape, FLAGS.batch
    blocks = trgl.architectures.resnet(depth=FLAGS.depth, input_shape=shape)
    head = trgl.heads.LinearHead(10) if name == "batch_1" else trgl.heads.ConvHead(10)
    return blocks, head, shape, 1 if name == "batch_1" else FLAGS.batch


def make(name, setting):
    """Give a compiled model, its stage sizes, its data and the steps that one update takes."""
    import keras
    import numpy as np

    import keras_trgl as trgl

    method, num_stages, split, options = {**SETTINGS, **MORE}[setting]
    blocks, head, shape, batch = network(name)
    if split == "memory":
        sizes = trgl.splitting.by_memory(blocks, num_stages, head=head, input_shape=shape)
    else:
        sizes = trgl.splitting.by_depth(blocks, num_stages)
    model = trgl.GreedyModel.from_blocks(blocks, sizes, head, method=method, seed=0)
    options = dict(options)
    parts = options.pop(KERAS, 1)
    own = {"gradient_accumulation_steps": parts} if parts > 1 else {}
    model.compile(
        optimizer=keras.optimizers.SGD(0.002, momentum=0.9, **own),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
        jit_compile=False,
        **options,
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * batch, *shape)).astype("float32")
    y = keras.utils.to_categorical(rng.integers(0, 10, len(x)), 10)
    return model, list(sizes), trgl.datasets.BatchStream(x, y, batch_size=batch // parts), parts


def peak_bytes(name, setting):
    """Train in this process, and give the allocator's peak during the second `fit`."""
    if setting in TORCH:
        import torch_rival

        peak = torch_rival.peak_bytes(*torch_settings(name), **TORCH[setting])
        return {"peak_bytes": peak, "sizes": []}
    import keras_trgl as trgl

    model, sizes, data, _ = make(name, setting)
    return {"peak_bytes": trgl.measure_peak(lambda: model.fit(data, verbose=0)), "sizes": sizes}


def torch_settings(name):
    """Give depth, side and batch size."""
    one = name == "batch_1"
    return FLAGS.depth, FLAGS.side if one else 32, 1 if one else FLAGS.batch


def largest_side(setting):
    """Give the largest side, a multiple of 32 pixels, whose peak at batch 1 is within the limit.

    Bytes grow nearly as the area: a line through two measurements says where to look next.
    """
    peaks = {}

    def peak(side):
        if side not in peaks:
            peaks[side] = in_process("batch_1", setting, "bytes", side=side)["peak_bytes"]
            print(f"side {side}: {setting} {peaks[side] / 2**20:.0f} MiB", flush=True)
        return peaks[side]

    low, high = 256, 384
    peak(low), peak(high)
    while True:
        slope = (peaks[high] - peaks[low]) / (high**2 - low**2)
        guess = ((LIMIT - peaks[low]) / slope + low**2) ** 0.5
        side = int(guess // STEP) * STEP
        fits = [one for one in peaks if peaks[one] <= LIMIT]
        breaks = [one for one in peaks if peaks[one] > LIMIT]
        if breaks and max(fits) + STEP >= min(breaks):
            return {"side": max(fits), "peaks": {str(one): peaks[one] for one in sorted(peaks)}}
        side = max(side, max(fits) + STEP)
        side = min([side, *(one - STEP for one in breaks)])
        peak(side)
        low, high = sorted(peaks)[-2:]


def step_ratios(name, setting):
    """Give the times of an update over end-to-end training's, pair by pair."""
    import keras

    class Times(keras.callbacks.Callback):
        """How long each batch took; reading the loss waits for the step."""

        def on_train_batch_begin(self, batch, logs=None):
            self.begin = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            self.seconds.append(time.perf_counter() - self.begin)

    def timed(side):
        if setting in TORCH and side is sides[0]:
            side.update()
            begin = time.perf_counter()
            side.update()
            return time.perf_counter() - begin
        model, _, data, parts = side
        times = Times()
        times.seconds = []
        # The first update of a call warms up.
        model.fit(data, steps_per_epoch=2 * parts, verbose=0, callbacks=[times])
        return sum(times.seconds[parts:])

    if setting in TORCH:
        import torch_rival

        first = torch_rival.Training(*torch_settings(name), **TORCH[setting])
    else:
        first = make(name, setting)
    sides = [first, make(name, "end_to_end")]
    for side in sides:
        timed(side)
    ratios = []
    for pair in range(FLAGS.pairs):
        order = (0, 1) if pair % 2 else (1, 0)
        seconds = {place: timed(sides[place]) for place in order}
        ratios.append(seconds[0] / seconds[1])
    return {"ratios": ratios}


def in_process(name, setting, what, **changed):
    """Measure in a fresh process."""
    told = {flag: FLAGS[flag].value for flag in ("depth", "batch", "side", "pairs")} | changed
    return in_fresh_process(__file__, network=name, setting=setting, **told, measure=what)


def interval(ratios):
    """Give median and 95 % bootstrap interval of the median."""
    import numpy as np

    rng, ratios = np.random.default_rng(0), np.asarray(ratios)
    draws = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def bytes_of(name, setting):
    """Give one setting's bytes, and their spread."""
    runs = [in_process(name, setting, "bytes") for _ in range(FLAGS.runs)]
    peaks = [run["peak_bytes"] for run in runs]
    median = int(statistics.median(peaks))
    spread = (max(peaks) - min(peaks)) / median
    return {"peak_bytes": median, "spread": spread, "stage_sizes": runs[0]["sizes"]}


def time_of(name, setting):
    """Give the interval of one setting's time."""
    return {"time": interval(in_process(name, setting, "time")["ratios"])}


def report_of(known):
    """Give what is saved and what it takes, by network and setting, and the largest sides."""
    rows = {key: row for key, row in known["rows"].items() if "peak_bytes" in row}
    report = {"saved": {}, "time": {}, "batch_1": {"saved": {}, "time": {}}}
    report["largest_side"] = {setting: found["side"] for setting, found in known["sides"].items()}
    for key, row in rows.items():
        name, setting = key.split(".")
        base = rows.get(f"{name}.end_to_end")
        if base is None:
            continue
        into = report if name == "resnet" else report.setdefault(name, {"saved": {}, "time": {}})
        into["saved"][setting] = 1.0 - row["peak_bytes"] / base["peak_bytes"]
        into["time"][setting] = row.get("time", {"median": None}).get("median")
    return report


def measure_all(known, save):
    """Measure what is asked for and not there yet, part by part.

    Args:
        known: dict of rows and sides, which is filled.
        save: function without arguments, called when there is something new.
    """
    rows = known["rows"]
    for part, of in (("bytes", bytes_of), ("time", time_of)):
        for name, setting in plan() if part in FLAGS.parts else ():
            row = rows.setdefault(f"{name}.{setting}", {})
            if ("peak_bytes" if part == "bytes" else "time") in row:
                continue
            if part == "time" and setting == "end_to_end":
                continue
            row.update(of(name, setting))
            shown = {key: value for key, value in row.items() if key != "stage_sizes"}
            print(f"{name}.{setting}: {json.dumps(shown)}", flush=True)
            save()
    for setting in SIDES if "side" in FLAGS.parts else ():
        if setting not in known["sides"]:
            known["sides"][setting] = largest_side(setting)
            save()


def main(argv):
    """Measure all that is not there yet, or one setting in this process."""
    del argv
    if FLAGS.setting:
        measure = peak_bytes if FLAGS.measure == "bytes" else step_ratios
        print(json.dumps(measure(FLAGS.network, FLAGS.setting)))
        return
    path = pathlib.Path(FLAGS.results or pathlib.Path(__file__).with_name("results.json"))
    setup = {flag: FLAGS[flag].value for flag in ("depth", "batch", "side", "runs", "pairs")}
    known = json.loads(path.read_text()) if path.is_file() else {}
    if not FLAGS.report and known.get("setup") != setup:
        # Figures of other settings are not continued, but replaced.
        known = {"setup": setup, "rows": {}, "sides": {}}

    def save():
        if FLAGS.json:
            path.write_text(json.dumps(known, indent=2) + "\n")

    if not FLAGS.report:
        measure_all(known, save)
    print(json.dumps(report_of(known)))


if __name__ == "__main__":
    app.run(main)
