"""What does each exit cost, and what does early exit save?

`python benchmarks/exits/run.py --json` trains one ResNet by stages and one end to end, exports the
first for serving, and measures latency, bytes and test accuracy of every exit and of
`confident_exit`. Thresholds are chosen on held-out images before the test images are read, in
several ways; and the bound of `risk` is tried on hundreds of calibrations. `--report` rewrites the
tables from `results.json`.
"""

import json
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import keras_trgl as trgl

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from pages import rows, write_tables

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write results.json.")
flags.DEFINE_bool("report", False, "Rewrite the tables from results.json; measure nothing.")
flags.DEFINE_enum("dataset", "fashion_mnist", ["fashion_mnist", "digits", "mnist"], "Data set.")
flags.DEFINE_integer("depth", 20, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_list("widths", ["16", "32", "64"], "Widths of the ResNet.")
flags.DEFINE_list("stage_sizes", ["1", "2", "3", "3"], "Blocks per stage; a first of one is quick.")
flags.DEFINE_integer("size", 20000, "Training images; all if there are fewer.", lower_bound=1)
flags.DEFINE_integer("epochs", 5, "Epochs of each training.", lower_bound=1)
flags.DEFINE_integer("batch", 64, "Batch size of training.", lower_bound=1)
flags.DEFINE_float("rate", 0.003, "First rate of SGD with momentum 0.9; falls as a cosine.")
flags.DEFINE_float("tau", 1.0, "Step of the minimizing movement scheme.")
flags.DEFINE_integer("seed", 0, "Seed of weights, order and held-out images.", lower_bound=0)
flags.DEFINE_float("max_drop", 0.0, "Accuracy that early exit may lose on held-out images.")
flags.DEFINE_float("risk", 0.01, "Bound on the share of rows that early exit alone gets wrong.")
flags.DEFINE_float("confidence", 0.9, "Of that bound.")
flags.DEFINE_integer("calibrations", 500, "Draws of calibration rows that try it.", lower_bound=1)
flags.DEFINE_integer("calibration_rows", 2000, "Rows of each.", lower_bound=2)
flags.DEFINE_integer("rows", 300, "Test images timed one by one.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Timings of each; their median counts.", lower_bound=1)
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")

BATCHES = (1, 32)
HELD_OUT = {"fashion_mnist": 1 / 12, "mnist": 1 / 12, "digits": 0.2}
WAYS = {
    "one threshold for all": trgl.export.Calibration(per_exit=False),
    "one threshold, temperatures": trgl.export.Calibration(per_exit=False, temperature=True),
    "a threshold per exit": trgl.export.Calibration(),
    "per exit, temperatures": trgl.export.Calibration(temperature=True),
    "per exit, averaged": trgl.export.Calibration(average=True),
    "per exit, averaged, temperatures": trgl.export.Calibration(temperature=True, average=True),
}
SHIPPED = "a threshold per exit"
"""The default, which is exported and timed."""


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


def exported(model, data, folder, choice):
    """Export all depths as was chosen; give the calls."""
    report = trgl.export.export_serving(
        model,
        folder / "net",
        inputs=trgl.export.Inputs("uint8", trgl.datasets.Normalize(data.mean, data.std)),
        outputs=choice.outputs(),
    )
    return signatures(report)


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


def by_way(choices, found, labels):
    """Give, of each way to choose, what it does on test images.

    The area is that under accuracy over mean time, from the first exit's time to the last's, per
    unit of time; its interval is by bootstrap over the images.

    Args:
        choices: dict of `ExitChoice` by way.
        found: list of K arrays: what the heads give on test images.
        labels: int array.
    """
    draws = np.random.default_rng(FLAGS.seed).integers(0, len(labels), (100, len(labels)))
    last = (found[-1].argmax(-1) == labels).mean()
    rows = {}
    for way, choice in choices.items():
        areas = [area(choice, [one[d] for one in found], labels[d]) for d in draws]
        curve, place = choice.judged(found, labels), at(choice)
        rows[way] = {
            "area": area(choice, found, labels),
            "area_interval": [float(one) for one in np.percentile(areas, [2.5, 97.5])],
            "accuracy": curve["accuracy"][place],
            "accuracy_drop": float(last) - curve["accuracy"][place],
            "risk": curve["risk"][place],
            "time_ratio": curve["mean_latency"][place] / choice.latency[-1],
            "mean_depth": curve["mean_depth"][place],
            "thresholds": list(choice.thresholds),
        }
    return rows


def at(choice):
    """Give the place of what was chosen on the curve."""
    return choice.curve["thresholds"].index(choice.thresholds)


def area(choice, found, labels):
    """Give the mean of accuracy over time, from the first exit's to the last's."""
    curve = choice.judged(found, labels)
    times = np.asarray(curve["mean_latency"])
    order = np.argsort(times, kind="stable")
    grid = np.linspace(choice.latency[0], choice.latency[-1], 200)
    return float(np.interp(grid, times[order], np.asarray(curve["accuracy"])[order]).mean())


def kept(found, labels, latency):
    """Give the share of calibrations whose bound holds on the pool that they are drawn from."""
    rng, held, times = np.random.default_rng(FLAGS.seed), [], []
    calibration = trgl.export.Calibration(confidence=FLAGS.confidence)
    for _ in range(FLAGS.calibrations):
        drawn = rng.integers(0, len(labels), FLAGS.calibration_rows)
        outputs = [one[drawn] for one in found]
        choice = trgl.export.choose_exit_from(
            outputs, labels[drawn], latency, risk=FLAGS.risk, calibration=calibration
        )
        true = choice.judged(found, labels)
        held.append(true["risk"][at(choice)] <= FLAGS.risk)
        times.append(true["mean_latency"][at(choice)] / latency[-1])
    slack = 2.0 * (FLAGS.confidence * (1.0 - FLAGS.confidence) / FLAGS.calibrations) ** 0.5
    return {
        "risk": FLAGS.risk,
        "confidence": FLAGS.confidence,
        "calibrations": FLAGS.calibrations,
        "rows": FLAGS.calibration_rows,
        "held": float(np.mean(held)),
        "least": FLAGS.confidence - slack,
        "mean_time_ratio": float(np.mean(times)),
    }


def measure():
    """Train, choose, export, time; give the report."""
    data = load()
    model, seconds = train("trgl", data)
    print(f"trained by stages in {seconds:.0f} s", flush=True)
    reference, reference_seconds = train("end_to_end", data)
    print(f"trained end to end in {reference_seconds:.0f} s", flush=True)
    held_out, labels = data.arrays("validation")
    choice = trgl.export.choose_exit(model, (held_out, labels), max_drop=FLAGS.max_drop)
    if FLAGS.json and not FLAGS.results:
        choice.plot(ROOT / "docs" / "exits.png")
    # Every way gets the same times: the ways differ in their thresholds alone.
    found = model.predict_exits(held_out, verbose=0)
    choices = {
        way: trgl.export.choose_exit_from(
            found, labels, choice.latency, max_drop=FLAGS.max_drop, calibration=calibration
        )
        for way, calibration in WAYS.items()
    }
    x, y = data.arrays("test")
    end_to_end = reference.evaluate(x, y, batch_size=250, return_dict=True, verbose=0)["accuracy"]
    tested = model.predict_exits(x, verbose=0)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        calls = exported(model, data, folder, choices[SHIPPED])
        calls = {key: run for key, run in calls.items() if key.startswith(("exit_", "confident"))}
        order = np.random.default_rng(FLAGS.seed).permutation(len(data.x_test))
        times = {size: timed(calls, data.x_test[order], size) for size in BATCHES}
        exits = by_exit(model, data, folder, calls, times)
        full = exits[-1]["accuracy"]
        classes, left = answers(calls["confident_exit"], data.x_test)
    last = f"exit_{model.num_stages}"
    return {
        "exits": exits,
        "confident": {
            "accuracy": float((classes == data.y_test).mean()),
            "time_ratio": times[1]["confident_exit"] / times[1][last],
            "time_ratio_batch_32": times[32]["confident_exit"] / times[32][last],
            "mean_depth": float(left.mean()),
            "share_by_depth": [float((left == row["depth"]).mean()) for row in exits],
            "thresholds": list(choices[SHIPPED].thresholds),
        },
        "ways": by_way(choices, tested, np.asarray(y).reshape(-1)),
        "bound": kept(tested, np.asarray(y).reshape(-1), choice.latency),
        "end_to_end": {"accuracy": float(end_to_end), "gap": float(end_to_end) - full},
        "choice": {
            "held_out_accuracy": list(choice.accuracy),
            "depth": choice.depth,
            "images": len(data.x_validation),
        },
        "setup": {
            "dataset": FLAGS.dataset,
            "network": f"ResNet-{FLAGS.depth}",
            "widths": [int(width) for width in FLAGS.widths],
            "stage_sizes": stage_sizes(),
            "rate": FLAGS.rate,
            "tau": FLAGS.tau,
            "max_drop": FLAGS.max_drop,
            "training_images": len(data.x_train),
            "epochs": FLAGS.epochs,
            "seed": FLAGS.seed,
            "training_seconds": [seconds, reference_seconds],
        },
    }


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
    ways = [
        [
            way,
            f"{row['area']:.4f} [{row['area_interval'][0]:.4f}, {row['area_interval'][1]:.4f}]",
            f"{100 * row['accuracy']:.2f}",
            f"{100 * row['risk']:.2f}",
            f"{row['mean_depth']:.2f}",
            f"{row['time_ratio']:.2f}",
        ]
        for way, row in report["ways"].items()
    ]
    header = ["exit", "test accuracy, %", "ms, batch 1", "ratio", "ms, batch 32", "ratio", "bytes"]
    other = ["thresholds", "area under accuracy over time", "test accuracy, %"]
    other += ["wrong early, right at K, %", "mean depth", "mean time"]
    early, bound = report["confident"], report["bound"]
    thresholds = ", ".join(f"{one:.3f}" for one in early["thresholds"])
    shares = " / ".join(f"{100 * share:.0f}" for share in early["share_by_depth"])
    served = (
        f"`confident_exit` as served, at thresholds {thresholds}: test accuracy "
        f"{100 * early['accuracy']:.2f} %, {shares} % leave at depths 1…K, measured time "
        f"{early['time_ratio']:.2f} of the last exit's at batch 1, "
        f"{early['time_ratio_batch_32']:.2f} at batch 32."
    )
    promise = (
        f"`risk={bound['risk']:g}` with confidence {bound['confidence']:g}, "
        f"{bound['calibrations']} calibrations of {bound['rows']} rows drawn with replacement from "
        f"the test images: the bound held on all of them in {bound['held']:.3f} of the "
        f"calibrations (at least {bound['least']:.3f} must), at {bound['mean_time_ratio']:.2f} of "
        "the last depth's time."
    )
    return {
        "exits": rows(header, exits),
        "ways": rows(other, ways),
        "served": served,
        "bound": promise,
    }


def main(argv):
    """Measure or report."""
    del argv
    path = pathlib.Path(FLAGS.results or HERE / "results.json")
    if FLAGS.report:
        write_tables(HERE / "README.md", tables(json.loads(path.read_text())))
        return
    report = measure()
    for name, table in tables(report).items():
        print(f"\n{name}\n{table}")
    accuracy, gap = report["end_to_end"]["accuracy"], report["end_to_end"]["gap"]
    print(f"\nEnd to end, the same network: {100 * accuracy:.2f} %, gap {100 * gap:.2f} points")
    if FLAGS.json:
        path.write_text(json.dumps(report, indent=2) + "\n")
        if not FLAGS.results:
            write_tables(HERE / "README.md", tables(report))
        print(json.dumps({key: report[key] for key in ("exits", "confident", "end_to_end")}))


if __name__ == "__main__":
    app.run(main)
