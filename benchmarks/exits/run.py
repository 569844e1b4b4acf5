"""What does each exit cost, and what does early exit save?

`python benchmarks/exits/run.py --json` trains one ResNet by stages and one end to end, exports the
first for serving, and measures latency, bytes and test accuracy of every exit and of
`confident_exit`. The threshold is chosen on held-out images before the test images are read.
`--report` rewrites the tables from `results.json`.
"""

import json
import os
import pathlib
import re
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import keras_trgl as trgl

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write results.json.")
flags.DEFINE_bool("report", False, "Rewrite the tables from results.json; measure nothing.")
flags.DEFINE_enum("dataset", "fashion_mnist", ["fashion_mnist", "digits", "mnist"], "Data set.")
flags.DEFINE_integer("depth", 20, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_list("widths", ["16", "32", "64"], "Widths of the ResNet.")
flags.DEFINE_list("stage_sizes", ["1", "3", "5"], "Blocks per stage; a small first one is quick.")
flags.DEFINE_integer("size", 20000, "Training images; all if there are fewer.", lower_bound=1)
flags.DEFINE_integer("epochs", 5, "Epochs of each training.", lower_bound=1)
flags.DEFINE_integer("batch", 64, "Batch size of training.", lower_bound=1)
flags.DEFINE_float("rate", 0.003, "First rate of SGD with momentum 0.9; falls as a cosine.")
flags.DEFINE_float("tau", 1.0, "Step of the minimizing movement scheme.")
flags.DEFINE_integer("seed", 0, "Seed of weights, order and held-out images.", lower_bound=0)
flags.DEFINE_float("max_drop", 0.0, "Accuracy that early exit may lose on held-out images.")
flags.DEFINE_list("thresholds", ["0.5", "0.7", "0.8", "0.9", "0.95", "0.99"], "For the table.")
flags.DEFINE_integer("rows", 300, "Test images timed one by one.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Timings of each; their median counts.", lower_bound=1)
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
BATCHES = (1, 32)
HELD_OUT = {"fashion_mnist": 1 / 12, "mnist": 1 / 12, "digits": 0.2}


def stage_sizes():
    """Give the blocks per stage."""
    return [int(size) for size in FLAGS.stage_sizes]


def load():
    """Give the data with a held-out part."""
    data = trgl.datasets.load(FLAGS.dataset).hold_out(HELD_OUT[FLAGS.dataset], seed=FLAGS.seed)
    return data.subset(min(FLAGS.size, len(data.x_train)), seed=FLAGS.seed)


def train(method, data):
    """Train the network by a method; give it and the seconds it took."""
    blocks = trgl.architectures.resnet(
        FLAGS.depth, data.input_shape, tuple(int(width) for width in FLAGS.widths)
    )
    model = trgl.GreedyModel.from_blocks(
        blocks,
        stage_sizes(),
        trgl.heads.ConvHead(units=data.num_classes),
        method=trgl.methods.TRGL(tau=FLAGS.tau) if method == "trgl" else method,
        seed=FLAGS.seed,
    )
    steps = FLAGS.epochs * -(-len(data.x_train) // FLAGS.batch)
    model.compile(
        optimizer=keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(FLAGS.rate, steps), momentum=0.9
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    begin = time.perf_counter()
    stream = data.stream(FLAGS.batch, seed=FLAGS.seed, augment=False)
    model.fit(stream, epochs=FLAGS.epochs, verbose=0)
    return model, time.perf_counter() - begin


def signatures(report):
    """Load what was exported, as functions of uint8 images."""
    loaded = tf.saved_model.load(str(report.path))
    found = {name: loaded.signatures[name] for name in report.signatures}
    return {name: lambda x, run=run: run(inputs=tf.constant(x)) for name, run in found.items()}


def answers(run, x):
    """Give classes and exits of all rows."""
    parts = [run(x[start : start + 250]) for start in range(0, len(x), 250)]
    classes = np.concatenate([part["class_id"].numpy() for part in parts])
    exits = [part["exit"].numpy() for part in parts if "exit" in part]
    return classes, np.concatenate(exits) if exits else None


def timed(calls, x, size):
    """Give each call's mean seconds over batches of test images, calls in turn.

    Each batch counts with the median of its repeats; the order alternates.
    """
    count = max(FLAGS.rows // size, 20 if size > 1 else 1)
    batches = [x[np.arange(i * size, (i + 1) * size) % len(x)] for i in range(count)]
    names = list(calls)
    for name in names:
        for batch in batches[:10]:
            calls[name](batch)["class_id"].numpy()
    seconds = {name: np.empty((FLAGS.repeats, count)) for name in names}
    for repeat in range(FLAGS.repeats):
        order = names if repeat % 2 else names[::-1]
        for place, batch in enumerate(batches):
            for name in order:
                begin = time.perf_counter()
                calls[name](batch)["class_id"].numpy()
                seconds[name][repeat, place] = time.perf_counter() - begin
    return {name: float(np.median(found, 0).mean()) for name, found in seconds.items()}


def exported(model, data, folder, thresholds):
    """Export all depths at these thresholds; give the report and the calls."""
    report = trgl.export.export_serving(
        model,
        folder / "net",
        inputs=trgl.export.Inputs("uint8", trgl.datasets.Normalize(data.mean, data.std)),
        outputs=trgl.export.Outputs(thresholds=thresholds),
    )
    return report, signatures(report)


def by_exit(model, data, folder, calls, times):
    """Give depth, accuracy, time and bytes of every exit."""
    rows = []
    last = model.num_stages
    for depth in range(1, last + 1):
        name = f"exit_{depth}"
        alone = trgl.export.export_exit(model, depth, folder / name)
        rows.append(
            {
                "depth": depth,
                "accuracy": float((answers(calls[name], data.x_test)[0] == data.y_test).mean()),
                "latency_ratio": times[1][name] / times[1][f"exit_{last}"],
                "latency_ratio_batch_32": times[32][name] / times[32][f"exit_{last}"],
                "milliseconds": 1e3 * times[1][name],
                "milliseconds_batch_32": 1e3 * times[32][name],
                "bytes": alone.bytes,
                "numbers": alone.numbers,
            }
        )
    return rows


def by_threshold(data, calls, times, threshold, full):
    """Give what early exit does at one threshold."""
    classes, exits = answers(calls[f"confident@{threshold:g}"], data.x_test)
    accuracy = float((classes == data.y_test).mean())
    depths = range(1, len(stage_sizes()) + 1)
    last = f"exit_{depths[-1]}"
    return {
        "threshold": threshold,
        "accuracy": accuracy,
        "accuracy_drop": full - accuracy,
        "time_ratio": times[1][f"confident@{threshold:g}"] / times[1][last],
        "time_ratio_batch_32": times[32][f"confident@{threshold:g}"] / times[32][last],
        "mean_depth": float(exits.mean()),
        "share_by_depth": [float((exits == k).mean()) for k in depths],
    }


def measure():
    """Train, choose, export, time; give the report."""
    data = load()
    model, seconds = train("trgl", data)
    print(f"trained by stages in {seconds:.0f} s", flush=True)
    reference, reference_seconds = train("end_to_end", data)
    print(f"trained end to end in {reference_seconds:.0f} s", flush=True)
    choice = trgl.export.choose_exit(model, data.arrays("validation"), max_drop=FLAGS.max_drop)
    chosen = choice.thresholds[0]
    if FLAGS.json and not FLAGS.results:
        choice.plot(ROOT / "docs" / "exits.png")
    x, y = data.arrays("test")
    end_to_end = reference.evaluate(x, y, batch_size=250, return_dict=True, verbose=0)["accuracy"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        calls = {}
        for threshold in sorted({chosen, *map(float, FLAGS.thresholds)}):
            _, found = exported(model, data, folder, threshold)
            calls.update({key: run for key, run in found.items() if key.startswith("exit_")})
            calls[f"confident@{threshold:g}"] = found["confident_exit"]
        order = np.random.default_rng(FLAGS.seed).permutation(len(data.x_test))
        times = {size: timed(calls, data.x_test[order], size) for size in BATCHES}
        exits = by_exit(model, data, folder, calls, times)
        full = exits[-1]["accuracy"]
        table = [
            by_threshold(data, calls, times, threshold, full)
            for threshold in sorted({chosen, *map(float, FLAGS.thresholds)})
        ]
    return {
        "exits": exits,
        "confident": next(row for row in table if row["threshold"] == chosen),
        "by_threshold": table,
        "end_to_end": {"accuracy": float(end_to_end), "gap": float(end_to_end) - full},
        "choice": {
            "held_out_accuracy": list(choice.accuracy),
            "depth": choice.depth,
            "threshold": chosen,
            "images": len(data.x_validation),
        },
        "setup": {
            "dataset": FLAGS.dataset,
            "network": f"ResNet-{FLAGS.depth}",
            "widths": [int(width) for width in FLAGS.widths],
            "stage_sizes": stage_sizes(),
            "rate": FLAGS.rate,
            "tau": FLAGS.tau,
            "training_images": len(data.x_train),
            "epochs": FLAGS.epochs,
            "seed": FLAGS.seed,
            "training_seconds": [seconds, reference_seconds],
        },
    }


def markdown(header, body):
    """Give a Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(report):
    """Give the tables of the README."""
    exits = [
        [
            f"{row['depth']}",
            f"{100 * row['accuracy']:.2f}",
            f"{row['milliseconds']:.2f}",
            f"{row['latency_ratio']:.2f}",
            f"{row['milliseconds_batch_32']:.1f}",
            f"{row['latency_ratio_batch_32']:.2f}",
            f"{row['bytes']:,}",
        ]
        for row in report["exits"]
    ]
    thresholds = [
        [
            f"{row['threshold']:.3f}" + (" (chosen)" if row == report["confident"] else ""),
            f"{100 * row['accuracy']:.2f}",
            f"{row['mean_depth']:.2f}",
            " / ".join(f"{100 * share:.0f}" for share in row["share_by_depth"]),
            f"{row['time_ratio']:.2f}",
            f"{row['time_ratio_batch_32']:.2f}",
        ]
        for row in report["by_threshold"]
    ]
    header = ["exit", "test accuracy, %", "ms, batch 1", "ratio", "ms, batch 32", "ratio", "bytes"]
    other = ["threshold", "test accuracy, %", "mean depth", "% leaving at 1…K"]
    other += ["time ratio, batch 1", "time ratio, batch 32"]
    return {"exits": markdown(header, exits), "confident": markdown(other, thresholds)}


def write_tables(report):
    """Write the tables between their marks in the README."""
    path = HERE / "README.md"
    page = path.read_text(encoding="utf-8")
    for name, table in tables(report).items():
        mark = rf"(<!-- table: {name} -->\n)(?:(?!<!--).)*(<!-- end -->)"
        page, found = re.subn(mark, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page, flags=re.DOTALL)
        if found != 1:
            sys.exit(f"{path} must have one place for the table {name}. Received: {found}.")
    path.write_text(page, encoding="utf-8")


def main(argv):
    """Measure or report."""
    del argv
    path = pathlib.Path(FLAGS.results or HERE / "results.json")
    if FLAGS.report:
        write_tables(json.loads(path.read_text()))
        return
    report = measure()
    for name, table in tables(report).items():
        print(f"\n{name}\n{table}")
    accuracy, gap = report["end_to_end"]["accuracy"], report["end_to_end"]["gap"]
    print(f"\nEnd to end, the same network: {100 * accuracy:.2f} %, gap {100 * gap:.2f} points")
    if FLAGS.json:
        path.write_text(json.dumps(report, indent=2) + "\n")
        if not FLAGS.results:
            write_tables(report)
        print(json.dumps({key: report[key] for key in ("exits", "confident", "end_to_end")}))


if __name__ == "__main__":
    app.run(main)
