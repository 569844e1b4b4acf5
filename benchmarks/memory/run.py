"""Peak memory of training, by method and split, against end-to-end training.

`python benchmarks/memory/run.py --json` trains ResNet-110 on 32x32 images at batch 64 through
`fit`, each setting in fresh processes, and prints the median of the allocator's peaks. On a CPU
TensorFlow counts its bytes when `TF_CPU_ALLOCATOR_USE_BFC` is set before it starts; nothing else
differs from what a user calls.
"""

import json
import os
import pathlib
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from processes import in_fresh_process

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_integer("runs", 5, "Fresh processes per setting.", lower_bound=1)
flags.DEFINE_integer("depth", 110, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_integer("batch", 64, "Batch size.")
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")
flags.DEFINE_list("only", [], "Measure these settings alone, end_to_end first; all when empty.")
flags.DEFINE_string("setting", "", "Run this one setting in this process, and print its peak.")

SETTINGS = {
    "end_to_end": ("end_to_end", 1, "even"),
    "vangl_k4_even": ("vangl", 4, "even"),
    "trgl_k4_even": ("trgl", 4, "even"),
    "vangl_k4_memory": ("vangl", 4, "memory"),
    "trgl_k4_memory": ("trgl", 4, "memory"),
    "trgl_k16_even": ("trgl", 16, "even"),
    "trgl_k16_memory": ("trgl", 16, "memory"),
}
"""Name: method, number of stages, split."""


def peak_bytes(setting):
    """Train a setting in this process, and give the allocator's peak during the second `fit`."""
    import keras
    import numpy as np

    import keras_trgl as trgl

    method, num_stages, split = SETTINGS[setting]
    blocks = trgl.architectures.resnet(depth=FLAGS.depth, input_shape=(32, 32, 3))
    head = trgl.heads.ConvHead(units=10)
    if split == "memory":
        sizes = trgl.splitting.by_memory(blocks, num_stages, head=head)
    else:
        sizes = trgl.splitting.by_depth(blocks, num_stages)
    model = trgl.GreedyModel.from_blocks(blocks, sizes, head, method=method, seed=0)
    model.compile(
        optimizer=keras.optimizers.SGD(0.002, momentum=0.9),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4 * FLAGS.batch, 32, 32, 3)).astype("float32")
    y = keras.utils.to_categorical(rng.integers(0, 10, len(x)), 10)
    fit = lambda: model.fit(x, y, batch_size=FLAGS.batch, verbose=0)  # noqa: E731
    return trgl.measure_peak(fit), sizes


def measure(setting):
    """Run a setting in a fresh process, and give its peak and sizes."""
    told = {"setting": setting, "depth": FLAGS.depth, "batch": FLAGS.batch}
    result = in_fresh_process(__file__, **told)
    return result["peak_bytes"], result["stage_sizes"]


def main(argv):
    """Measure all settings, or one in this process."""
    del argv
    if FLAGS.setting:
        peak, sizes = peak_bytes(FLAGS.setting)
        print(json.dumps({"peak_bytes": peak, "stage_sizes": sizes}))
        return
    results = {}
    for setting in FLAGS.only or SETTINGS:
        runs = [measure(setting) for _ in range(FLAGS.runs)]
        peaks = [peak for peak, _ in runs]
        median = int(statistics.median(peaks))
        results[setting] = {
            "peak_bytes": median,
            "spread": (max(peaks) - min(peaks)) / median,
            "saved": 1.0 - median / results.get("end_to_end", {"peak_bytes": median})["peak_bytes"],
            "stage_sizes": runs[0][1],
        }
        row = results[setting]
        print(
            f"{setting:16} {median / 2**20:7.1f} MiB  saved {row['saved']:6.1%}  "
            f"spread {row['spread']:5.1%}",
            flush=True,
        )
    report = {"settings": results}
    if not FLAGS.only:
        cost = results["trgl_k4_even"]["peak_bytes"] - results["vangl_k4_even"]["peak_bytes"]
        report["energy_cost"] = cost / results["end_to_end"]["peak_bytes"]
        print(f"energy costs {report['energy_cost']:.2%} of end-to-end memory")
    if FLAGS.json:
        report["setup"] = {"depth": FLAGS.depth, "batch": FLAGS.batch, "runs": FLAGS.runs}
        path = pathlib.Path(FLAGS.results or pathlib.Path(__file__).with_name("results.json"))
        path.write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report))


if __name__ == "__main__":
    app.run(main)
