"""Predicted bytes of every method against the allocator's peak, each in fresh processes.

`python benchmarks/methods/peaks.py --json` takes ResNet-20 in four stages by memory, 32x32, batch
32, and writes peaks.json and the table of README.md; `--report` writes the table alone.
"""

import json
import os
import pathlib
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

from absl import app, flags

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from pages import rows, write_tables
from processes import in_fresh_process

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write peaks.json.")
flags.DEFINE_bool("report", False, "Rewrite the table from peaks.json; measure nothing.")
flags.DEFINE_integer("runs", 3, "Fresh processes per method.", lower_bound=1)
flags.DEFINE_integer("depth", 20, "Depth of the ResNet, 6n + 2.", lower_bound=8)
flags.DEFINE_integer("batch", 32, "Examples in a batch.", lower_bound=1)
flags.DEFINE_integer("side", 32, "Side of the images, pixels.", lower_bound=8)
flags.DEFINE_integer("stages", 4, "Number of stages, K.", lower_bound=1)
flags.DEFINE_list("only", [], "Methods to measure, beside what was; all anew when empty.")
flags.DEFINE_string("results", "", "Folder for peaks.json and README.md; the default is here.")
flags.DEFINE_string("method", "", "Measure this method in this process.")

METHODS = {
    "end_to_end": ("EndToEnd", {}),
    "vangl": ("VanGL", {}),
    "trgl": ("TRGL", {}),
    "pred_sim": ("PredSim", {}),
    "dgl": ("DGL", {}),
    "info_pro": ("InfoPro", {}),
    "info_pro_contrast": ("InfoPro", {"variant": "contrast"}),
    "info_pro_l": ("InfoProL", {}),
    "aug_local": ("AugLocal", {}),
    "features_replay": ("FeaturesReplay", {}),
    "dni": ("DNI", {}),
    "ddg": ("DDG", {}),
}
CLASSES, BATCHES = 10, 4


def measure(name):
    """Train in this process, and give predicted and measured bytes."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_trgl as trgl

    shape, kind, options = (FLAGS.side, FLAGS.side, 3), *METHODS[name]
    blocks, head = trgl.architectures.resnet(FLAGS.depth, shape), trgl.heads.ConvHead(CLASSES)
    # The same stages for all: what a method has beside is what differs.
    sizes = trgl.splitting.by_memory(blocks, FLAGS.stages, head=head)
    method = getattr(trgl.methods, kind)(**options)
    model = trgl.GreedyModel.from_blocks(blocks, sizes, head, method=method, seed=0)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.002, momentum=0.9), loss, metrics=["accuracy"])
    model.build((None, *shape))
    *_, predicted = model.count_bytes(FLAGS.batch)
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(FLAGS.batch, *shape)).astype("float32")
    y = keras.utils.to_categorical(rng.integers(0, CLASSES, FLAGS.batch), CLASSES)
    data = tf.data.Dataset.from_tensors((x, y.astype("float32"))).repeat(BATCHES)
    measured = trgl.measure_peak(lambda: model.fit(data, verbose=0))
    return {"predicted": predicted, "measured": measured, "stage_sizes": sizes}


def table(report):
    """Give the table: what is predicted, what it takes, and what that saves."""
    body, base = [], report.get("end_to_end", {}).get("measured")
    for name, row in report.items():
        spread = " to ".join(f"{one / 2**20:.1f}" for one in (row["spread"][0], row["spread"][-1]))
        saved = "-" if base is None else f"{100 * (1 - row['measured'] / base):.0f}%"
        mib = [f"{row[key] / 2**20:.1f}" for key in ("predicted", "measured")]
        body.append([name, *mib, spread, f"{row['predicted'] / row['measured']:.2f}", saved])
    header = ["method", "predicted, MiB", "measured, median", "spread", "ratio", "saved"]
    return rows(header, body)


def main(argv):
    """Measure every method, or one in this process."""
    del argv
    if FLAGS.method:
        print(json.dumps(measure(FLAGS.method)))
        return
    folder = pathlib.Path(FLAGS.results) if FLAGS.results else HERE
    path, report = folder / "peaks.json", {}
    if FLAGS.report or (FLAGS.only and path.exists()):
        report = json.loads(path.read_text())
    if not FLAGS.report:
        for name in FLAGS.only or METHODS:
            told = {flag: FLAGS[flag].value for flag in ("depth", "batch", "side", "stages")}
            runs = [in_fresh_process(__file__, method=name, **told) for _ in range(FLAGS.runs)]
            spread = sorted(run["measured"] for run in runs)
            report[name] = {**runs[0], "measured": statistics.median(spread), "spread": spread}
            print(table({name: report[name]}).splitlines()[-1], file=sys.stderr, flush=True)
    if FLAGS.json and not FLAGS.report:
        report = {name: report[name] for name in METHODS if name in report}
        path.write_text(json.dumps(report, indent=2) + "\n")
    if FLAGS.json or FLAGS.report:
        write_tables(folder / "README.md", {"peaks": table(report)})
    if FLAGS.json:
        print(json.dumps(report))


if __name__ == "__main__":
    app.run(main)
