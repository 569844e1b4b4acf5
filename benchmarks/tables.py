"""Write the tables of README and docs from the results that the benchmarks left.

`python benchmarks/tables.py` rewrites what stands between the marks of any page,
`<!-- table: NAME -->` and `<!-- end -->`; `--check` only compares.
"""

import json
import pathlib
import re
import sys

from absl import app, flags
from labels import LABELS
from pages import interval, rows

FLAGS = flags.FLAGS
flags.DEFINE_bool("check", False, "Fail if a page is not up to date; write nothing.")

ROOT = pathlib.Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
MARK = re.compile(r"(<!-- table: (\w+) -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
NAMES = {"trgl": "TRGL", "vangl": "VanGL", "end_to_end": "end-to-end"}
SETTINGS = {
    "end_to_end": "end-to-end",
    "vangl_k4_even": "VanGL, K = 4, equal depth",
    "trgl_k4_even": "TRGL, K = 4, equal depth",
    "vangl_k4_memory": "VanGL, K = 4, by memory",
    "trgl_k4_memory": "TRGL, K = 4, by memory",
    "trgl_k16_even": "TRGL, K = 16, equal depth",
    "trgl_k16_memory": "TRGL, K = 16, by memory",
}
RATIOS = {
    "trgl_k4_even_vs_end_to_end": "TRGL, K = 4, over end-to-end",
    "trgl_vs_vangl": "TRGL over VanGL, both K = 4",
    "end_to_end_vs_stock_keras": "end-to-end over stock Keras (its own batch normalization)",
    "one_stage_vs_keras_fit": "one stage over `keras.Model.fit`",
    "same_vs_same": "the same over the same (noise)",
}


def quickstart(name):
    """Give test accuracy by seed, and the memory peak, of each method."""
    runs = json.loads((BENCHMARKS / "quickstart" / f"{name}.json").read_text())
    body = []
    for method, label in NAMES.items():
        results = [row for r in runs.values() for row in r["results"] if row["method"] == method]
        last = [f"{100 * row['test_accuracy_last_depth']:.2f}" for row in results]
        depths = " / ".join(f"{100 * value:.2f}" for value in results[0]["test_accuracy_by_depth"])
        peak = max(row["peak_mib"] for row in results)
        body.append([label, *last, depths, f"{peak:.1f}"])
    seeds = [f"last depth, seed {seed}" for seed in runs]
    first = next(iter(runs))
    return rows(["method", *seeds, f"depths 1…K, seed {first}", "peak, MiB"], body)


def memory():
    """Give peaks and what is saved."""
    report = json.loads((BENCHMARKS / "memory" / "results.json").read_text())
    body = [
        [
            label,
            f"{report['settings'][name]['peak_bytes'] / 2**20:.0f}",
            f"{report['settings'][name]['saved']:.1%}",
            f"{report['settings'][name]['spread']:.1%}",
        ]
        for name, label in SETTINGS.items()
    ]
    return rows(["training", "peak, MiB", "saved", "spread of 5 runs"], body)


def step_time():
    """Give the ratios with their intervals."""
    report = json.loads((BENCHMARKS / "step_time" / "results.json").read_text())["ratio"]
    body = [
        [
            label,
            f"{report[name]['median']:.3f}",
            f"{report[name]['low']:.3f} to {report[name]['high']:.3f}",
        ]
        for name, label in RATIOS.items()
    ]
    return rows(["time of a step", "ratio", "95 % interval"], body)


def regimes():
    """Give time and memory of training in turn."""
    report = json.loads((BENCHMARKS / "regimes" / "results.json").read_text())
    times = {
        "published": "whole sequential training, features cached, over the published scheme",
        "uncached": "the same over frozen stages in inference mode on every batch",
    }
    body = []
    for side, label in times.items():
        found = report.get(f"cached_vs_{side}_time_rounds")
        if found:
            text = f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
            body.append([label, text])
    for side, seconds in report["tracing_seconds"].items():
        stages = len(report["stage_seconds_per_epoch"][side])
        examples = report["setup"]["examples"]
        label = f"seconds of tracing {stages} stages, {side}, in a training on {examples} images"
        body.append([label, f"{seconds:.1f} s"])
    held = report["variable_bytes_on_training_device"]
    body += [
        [
            "memory peak of the worst stage over end-to-end training",
            f"{report['blockwise_peak_vs_end_to_end']:.2f}",
        ],
        [
            "weights and optimizer state on the device, idle stages on the host over all there",
            f"{held['idle_stages_on_the_host'] / held['all_stages_there']:.2f}",
        ],
    ]
    return rows(["block-wise training", "ratio"], body)


def stage_parallel():
    """Give the speed of stages on two workers over one core."""
    report = json.loads((BENCHMARKS / "stage_parallel" / "results.json").read_text())["ratio"]
    labels = {
        "skewed_vs_one_core": "two workers, each stage on a batch of its own",
        "synchronous_vs_one_core": "two workers, one batch at a time",
        "both_cores_vs_one_core": "one process with both cores",
    }
    body = [
        [
            label,
            f"{report[name]['median']:.2f}",
            f"{report[name]['low']:.2f} to {report[name]['high']:.2f}",
        ]
        for name, label in labels.items()
    ]
    return rows(["training", "speed over one core", "least and most"], body)


def exits():
    """Give accuracy and cost of every exit, and of early exit at the chosen threshold."""
    report = json.loads((BENCHMARKS / "exits" / "results.json").read_text())
    body = [
        [
            f"exit {row['depth']}",
            f"{100 * row['accuracy']:.2f}",
            f"{row['latency_ratio']:.2f}",
            f"{row['bytes'] / 2**10:.0f}",
        ]
        for row in report["exits"]
    ]
    early = report["confident"]
    name = f"confident exit (mean depth {early['mean_depth']:.2f})"
    body.append([name, f"{100 * early['accuracy']:.2f}", f"{early['time_ratio']:.2f}", "all"])
    reference = f"{100 * report['end_to_end']['accuracy']:.2f}"
    body.append(["the same network, trained end to end", reference, "", ""])
    return rows(["", "test accuracy, %", "time at batch 1, ratio", "KiB"], body)


def plan():
    """Give predicted and measured bytes of plans."""
    report = json.loads((BENCHMARKS / "plan" / "results.json").read_text())
    body = []
    for name, row in report.items():
        if "ratio" not in row:
            continue
        network, regime, share = name.split("_")
        sizes, parts, remat = row["plan"]
        how = f"K = {len(sizes)}, m = {parts}" + (", remat" if remat else "")
        figures = [f"{row[side] / 2**20:.1f}" for side in ("budget", "predicted", "measured")]
        body.append(
            [f"{network}, {regime}, {float(share):g}", how, *figures, f"{row['ratio']:.2f}"]
        )
    header = ["network, regime, share", "plan", "budget, MiB", "predicted", "measured"]
    return rows([*header, "predicted over measured"], body)


def frontier():
    """Give bytes and time of every way to train that was measured."""
    path = BENCHMARKS / "frontier" / "results.json"
    if not path.is_file():
        return "Not run yet."
    found = json.loads(path.read_text())
    setup, body = found["setup"], []
    titles = {
        "resnet": f"batch {setup['batch']}, 32x32",
        "batch_1": f"batch 1, {setup['side']}x{setup['side']}",
        "swin": f"Swin, batch {setup['batch']}, 32x32",
    }
    order = [f"{network}.{setting}" for network in titles for setting in LABELS]
    for key in (one for one in order if one in found["rows"]):
        row, (network, setting) = found["rows"][key], key.split(".")
        base = found["rows"].get(f"{network}.end_to_end", {}).get("peak_bytes")
        if base is None or "peak_bytes" not in row:
            continue
        time, peak = row.get("time"), row["peak_bytes"]
        took = f"{time['median']:.2f} [{time['low']:.2f}, {time['high']:.2f}]" if time else ""
        cells = [f"{peak / 2**20:.0f}", f"{1 - peak / base:.1%}", took]
        body.append([titles[network], LABELS[setting], *cells])
    return rows(["data", "training", "peak, MiB", "saved", "time of an update, ratio"], body)


def sides():
    """Give the largest image that trains within 1 GiB, by way of training."""
    found = json.loads((BENCHMARKS / "frontier" / "results.json").read_text())["sides"]
    base = found["end_to_end"]["side"]
    body = []
    for setting, row in found.items():
        side, peak = row["side"], row["peaks"][str(row["side"])]
        body.append([LABELS[setting], str(side), f"{side / base:.2f}", f"{peak / 2**20:.0f}"])
    return rows(["training", "largest side, pixels", "over end-to-end", "its peak, MiB"], body)


def reach():
    """Give in a sentence what image trains within 1 GiB."""
    report = json.loads((BENCHMARKS / "frontier" / "results.json").read_text())
    side = {setting: row["side"] for setting, row in report["sides"].items()}
    return (
        f"Within 1 GiB, ResNet-{report['setup']['depth']} trains on an image of "
        f"{side['trgl_k16_memory']} pixels a side in 16 stages, of {side['end_to_end_remat']} "
        f"end-to-end with remat, of {side['end_to_end']} without."
    )


def gain():
    """Give in a sentence what the energy changes at the last depth, on 2 % of CIFAR-10."""
    folder = BENCHMARKS / "early_overfitting"
    report, longer = (
        json.loads((folder / name).read_text())
        for name in ("cifar10.json", "cifar10_published_epochs.json")
    )
    setup = report["setup"]
    # What has no curve of TRGL is end-to-end training, beside.
    found = [
        f"{gained(curves)} in {regime} training of {setup['epochs']} epochs"
        for regime, curves in report["results"].items()
        if "trgl" in curves
    ]
    told, curves = longer["setup"], longer["results"]["sequential"]
    ends = f"{told['epochs']} to {told['epochs'] + told['growth'] * (told['blocks'] - 1)}"
    most = json.loads((BENCHMARKS / "train_size" / "cifar10.json").read_text())
    count = max(row["size"] for row in most["results"])
    larger = {
        row["method"]: {"test_accuracy_by_depth": [[x] for x in row["test_accuracy_last_depth"]]}
        for row in most["results"]
        if (row["size"], row["regime"]) == (count, "parallel")
    }
    return (
        f"On {setup['size']} images of CIFAR-10 (JPEG copies), {setup['blocks']} one-block stages "
        f"of width {setup['width']}, {len(setup['seeds'])} seeds, the energy's gain in test "
        f"accuracy at the last depth is {'; '.join(found)}; {gained(curves)} in sequential "
        f"training of the published {ends} ({len(told['seeds'])} seeds). On {count} images it is "
        f"{gained(larger)} in parallel ({len(most['setup']['seeds'])} seeds)."
    )


def gained(curves):
    """Give what TRGL's last depth gains over VanGL's, in words."""
    last = [
        [run[-1] for run in curves[method]["test_accuracy_by_depth"]]
        for method in ("trgl", "vangl")
    ]
    mean, half = interval([ours - plain for ours, plain in zip(*last, strict=True)])
    return f"{mean:+.2f} ± {half:.2f} points{' (none)' if abs(mean) <= half else ''}"


def methods():
    """Give in a sentence how the methods compare on images of CIFAR-10."""
    report = json.loads((BENCHMARKS / "methods" / "cifar10.json").read_text())
    told, found = report["settings"], report["results"]

    def score(name):
        one = found[name]["accuracy"]
        return f"{100 * one['mean']:.1f} ± {100 * one['half_width']:.1f} ({name})"

    order = sorted(found, key=lambda name: found[name]["accuracy"]["mean"])
    apart = [
        name
        for name in found
        if name != report["first"]
        and abs(found[name]["against_the_first"]["mean"])
        > found[name]["against_the_first"]["half_width"]
    ]
    return (
        f"{len(found)} methods with as many trials each, on {told['limit']:,} images of CIFAR-10 "
        f"(JPEG copies), {told['network']} in {told['stages']} stages, {told['seeds']} seeds, are "
        f"at {score(order[0])} to {score(order[-1])} % of the test images, {score('vangl')}, "
        f"{score('end_to_end')}; apart from VanGL beyond chance: {', '.join(apart) or 'none'}."
    )


TABLES = {
    "gain": gain,
    "evidence": lambda: f"{gain()} {methods()}",
    "frontier": frontier,
    "sides": sides,
    "reach": reach,
    "digits": lambda: quickstart("digits"),
    "fashion_mnist": lambda: quickstart("fashion_mnist"),
    "memory": memory,
    "step_time": step_time,
    "regimes": regimes,
    "stage_parallel": stage_parallel,
    "exits": exits,
    "plan": plan,
}


def pages():
    """Give the texts that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(argv):
    """Write or check all pages."""
    del argv
    made = {name: make() for name, make in TABLES.items()}
    found = set()

    def table(mark):
        name = mark[2]
        if name not in made:
            known = ", ".join(made)
            sys.exit(f"A mark must name one of the tables {known}. Received: {name}.")
        found.add(name)
        return f"{mark[1]}{made[name]}\n{mark[3]}"

    for path in pages():
        before = path.read_text(encoding="utf-8")
        text = MARK.sub(table, before)
        if FLAGS.check and text != before:
            sys.exit(f"{path} is not what the results say. Run `python benchmarks/tables.py`.")
        if text != before:
            path.write_text(text, encoding="utf-8")
    if found != set(made):
        sys.exit(f"Every table must stand in a page. Received none for: {set(made) - found}.")


if __name__ == "__main__":
    app.run(main)
