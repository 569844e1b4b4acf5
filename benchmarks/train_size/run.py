"""Last-depth accuracy by regime, method and number of training images.

`python benchmarks/train_size/run.py --json` trains the 10-block network block by block, sequential,
multi-lap and parallel, with VanGL and TRGL, and end-to-end beside them, on subsets of
Fashion-MNIST. Rates and tau are chosen at one size on held-out training images. Trainings that
`benchmarks/early_overfitting` has done with the same settings are used again; a killed run goes on.
"""

import json
import pathlib
import sys

from absl import app, flags

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import blockwise

FLAGS = flags.FLAGS
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of images, weights and order.")
flags.DEFINE_list("sizes", ["300", "1200"], "Numbers of training images.")

flags.DEFINE_list("leave_out", [], "What not to train, as regime@size; the table says -.")
flags.DEFINE_bool(
    "extend", False, "Keep the results' file, its choices and rows, and train what it lacks alone."
)


def kinds(regimes):
    """Give the columns: regime, method, title."""
    found = [
        (regime, method, f"{regime.replace('_', '-')}, {label}")
        for regime in blockwise.REGIMES
        if regime in regimes
        for method, label in blockwise.METHODS.items()
    ]
    if "end_to_end" in regimes:
        found.append(("end_to_end", "end_to_end", "end-to-end"))
    return found


def known():
    """Give the results' file, where it is to be extended and was made with the same settings."""
    report = json.loads((HERE / blockwise.results_name()).read_text())
    setup = report["setup"]
    now = blockwise.setup(list(setup["batch"])) | {"seeds": [int(seed) for seed in FLAGS.seeds]}
    other = sorted(name for name in now if name in setup and now[name] != setup[name])
    if other:
        raise app.UsageError(
            f"--extend needs the settings of {blockwise.results_name()}. Received others for "
            f"{', '.join(other)}. Give the same, or train without --extend."
        )
    return report


def measure():
    """Choose, train, and give the report."""
    regimes = [r for r in (*blockwise.REGIMES, "end_to_end") if blockwise.wanted(r)]
    if FLAGS.extend:
        report = known()
    else:
        setup = blockwise.setup(regimes) | {"seeds": [int(seed) for seed in FLAGS.seeds]}
        report = {"setup": setup, "choices": blockwise.make_choices(regimes), "results": []}
    there = {(row["size"], row["regime"], row["method"]) for row in report["results"]}
    asked = {
        (int(size), regime, method): [
            blockwise.final_settings(regime, method, seed, size, report["choices"])
            for seed in FLAGS.seeds
        ]
        for size in FLAGS.sizes
        for regime, method, _ in kinds(regimes)
        if f"{regime}@{size}" not in FLAGS.leave_out
    }
    asked = {key: group for key, group in asked.items() if key not in there}
    blockwise.train_all([one for group in asked.values() for one in group])
    for (size, regime, method), group in asked.items():
        runs = blockwise.train_all(group)
        row = {
            "size": size,
            "regime": regime,
            "method": method,
            "test_accuracy_last_depth": [run["test"][-1] for run in runs],
            "train_accuracy_last_depth": [run["train"][-1] for run in runs],
            "fit_seconds": [run["fit_seconds"] for run in runs],
            "diverged": [run["diverged"] for run in runs],
        }
        report["results"].append(row)
    report["setup"]["sizes"] = sorted({row["size"] for row in report["results"]})
    return report


def by_size(report, key):
    """Give a table of mean ± half-width, a row per size."""
    found = {(row["size"], row["regime"], row["method"]): row[key] for row in report["results"]}
    columns = kinds({row["regime"] for row in report["results"]})
    body = []
    for size in report["setup"]["sizes"]:
        cells = [found.get((size, regime, method)) for regime, method, _ in columns]
        body.append([str(size), *("-" if one is None else blockwise.text(one) for one in cells)])
    return blockwise.rows(["images", *(title for _, _, title in columns)], body)


def differences(report):
    """Give TRGL − VanGL of the same seeds, a row per size."""
    found = {
        (row["size"], row["regime"], row["method"]): row["test_accuracy_last_depth"]
        for row in report["results"]
    }
    regimes = [r for r in blockwise.REGIMES if any(key[1] == r for key in found)]
    body = []
    for size in report["setup"]["sizes"]:
        cells = []
        for regime in regimes:
            if (size, regime, "trgl") not in found:
                cells.append("-")
                continue
            pairs = zip(found[size, regime, "trgl"], found[size, regime, "vangl"], strict=True)
            cells.append(blockwise.text([trgl - vangl for trgl, vangl in pairs], "+"))
        body.append([str(size), *cells])
    return blockwise.rows(["images", *(r.replace("_", "-") for r in regimes)], body)


def settings_lines(report):
    """Give the settings, and what did not go well."""
    setup, choices = report["setup"], report["choices"]
    taus = ", ".join(f"{r.replace('_', '-')} {c['chosen']}" for r, c in choices["tau"].items())
    batch = blockwise.by_regime(setup["batch"], "batch")
    lines = (
        f"{blockwise.data_of(setup)}, seeds {', '.join(map(str, setup['seeds']))}; "
        f"{setup['blocks']} blocks, width {setup['width']} then {2 * setup['width']}; "
        f"{setup['epochs']} epochs (sequential, multi-lap: of every stage; {setup['laps']} laps), "
        f"{batch}; first rates: {blockwise.rates_of(choices)}; τ: {taus}. "
        f"{blockwise.stopped(report['results'])}"
    )
    for row in report["results"]:
        if row["method"] == "end_to_end":
            accuracies = row["train_accuracy_last_depth"]
            lines += f"\n\n{row['size']} images: {blockwise.unfitted(accuracies)}"
    return lines


def tables(report):
    """Give the Markdown of every mark in the README."""
    found = {
        "settings": settings_lines(report),
        "test": by_size(report, "test_accuracy_last_depth"),
        "difference": differences(report),
        "train": by_size(report, "train_accuracy_last_depth"),
    }
    return blockwise.labelled(found)


def main(argv):
    """Measure, or report what was measured."""
    del argv
    blockwise.run(measure, tables, HERE)


if __name__ == "__main__":
    app.run(main)
