"""Accuracy by depth of block-wise training on little data, with and without the regulariser.

`python benchmarks/early_overfitting/run.py --json` trains the 10-block network, one block and one
head per stage, on 2 % of Fashion-MNIST, with VanGL and TRGL, sequentially and in parallel, and
end-to-end beside them. Rates and tau are chosen on held-out training images. A killed run goes on
from the trainings it has finished; `--report` writes tables and picture from results.json alone.
"""

import pathlib
import sys

from absl import app, flags

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

import blockwise

FLAGS = flags.FLAGS
flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of images, weights and order.")
flags.DEFINE_integer("size", 1200, "Training images: 2 % of Fashion-MNIST.", lower_bound=10)
flags.DEFINE_string("picture", "", "Picture; the default is in docs, named by the data set.")

flags.DEFINE_list(
    "midpoint", [], "What to change to see why accuracy falls at the midpoint: gain, epochs."
)

PANELS = ("sequential", "parallel")
COLORS = {
    "trgl": "#1b6ca8",
    "vangl": "#d1702a",
    "multiplier": "#3a8f4d",
    "end_to_end": "#555555",
}


def measure():
    """Choose, train, and give the report."""
    regimes = [regime for regime in (*PANELS, "end_to_end") if blockwise.wanted(regime)]
    choices = blockwise.make_choices(regimes)
    asked = {
        (regime, method): [
            blockwise.final_settings(regime, method, seed, FLAGS.size, choices)
            for seed in FLAGS.seeds
        ]
        for regime in regimes
        for method in methods_of(regime, choices)
    }
    blockwise.train_all([one for group in asked.values() for one in group])
    results = {}
    for (regime, method), group in asked.items():
        runs = blockwise.train_all(group)
        results.setdefault(regime, {})[method] = {
            "test_accuracy_by_depth": [run["test"] for run in runs],
            "train_accuracy_by_depth": [run["train"] for run in runs],
            "fit_seconds": [run["fit_seconds"] for run in runs],
            "diverged": [run["diverged"] for run in runs],
        }
        inside = [run["seen_inside"] for run in runs if "seen_inside" in run]
        if len(inside) == len(runs):
            results[regime][method]["seen_inside"] = inside
    more = {"midpoint": midpoint(choices["rate"]["sequential"]["chosen"])} if FLAGS.midpoint else {}
    seeds = [int(seed) for seed in FLAGS.seeds]
    setup = {**blockwise.setup(regimes), "size": FLAGS.size, "seeds": seeds}
    return {"setup": setup, "choices": choices, "results": results, **more}


def methods_of(regime, choices):
    """Give the methods that train in a regime."""
    if regime not in PANELS:
        return ["end_to_end"]
    return [*blockwise.METHODS, *(blockwise.MULTIPLIER if regime in choices.get("h", {}) else ())]


def midpoint(rate):
    """Give held-out accuracies by depth of VanGL in turn, with what may make them fall changed."""
    known = {
        "gain": ("kernels of gain 1", {"gain": 1.0}),
        "epochs": ("twice as many epochs", {"epochs": 2 * FLAGS.epochs}),
    }
    variants = {"as above": {}} | dict(known[name] for name in FLAGS.midpoint)
    asked = {
        name: [
            blockwise.settings(
                *("sequential", "vangl", seed, FLAGS.choice_size, rate),
                held_out=FLAGS.held_out,
                **changed,
            )
            for seed in FLAGS.choice_seeds
        ]
        for name, changed in variants.items()
    }
    blockwise.train_all([one for group in asked.values() for one in group])
    return {
        name: {
            part: [run[part] for run in blockwise.train_all(group)]
            for part in ("validation", "train")
        }
        for name, group in asked.items()
    }


def midpoint_table(found):
    """Give mean held-out accuracies, in brackets those on training images, a row per variant."""
    depths = range(len(next(iter(found.values()))["train"][0]))
    body = []
    for name, parts in found.items():
        held, seen = (
            [100 * sum(column) / len(column) for column in zip(*parts[part], strict=True)]
            for part in ("validation", "train")
        )
        body.append([name, *(f"{held[d]:.1f} ({seen[d]:.1f})" for d in depths)])
    return blockwise.rows(["", *(str(d + 1) for d in depths)], body)


def columns(report):
    """Give the curves there are: regime, method, title."""
    return [
        (regime, method, f"{regime}, {blockwise.TITLES[method]}")
        for regime in PANELS
        if regime in report["results"]
        for method in report["results"][regime]
    ]


def by_depth(report, key):
    """Give a table of mean ± half-width for every depth."""
    found = columns(report)
    body = []
    for depth in range(report["setup"]["blocks"]):
        cells = [
            blockwise.text([run[depth] for run in report["results"][regime][method][key]])
            for regime, method, _ in found
        ]
        body.append([str(depth + 1), *cells])
    return blockwise.rows(["depth", *(title for _, _, title in found)], body)


def end_to_end_lines(report):
    """Give what end-to-end training of the same network reaches."""
    row = report["results"]["end_to_end"]["end_to_end"]
    test = [run[-1] for run in row["test_accuracy_by_depth"]]
    train = [run[-1] for run in row["train_accuracy_by_depth"]]
    return (
        f"End-to-end, same network and images: test {blockwise.text(test)}, "
        f"training images {blockwise.text(train)}. {blockwise.unfitted(train)}"
    )


def differences(report):
    """Give what a method gains over VanGL, seed by seed, and each one's fall from its peak."""
    shown = [regime for regime in PANELS if regime in report["results"]]
    body, half = [], report["setup"]["blocks"] // 2
    for regime in shown:
        curves = {
            method: row["test_accuracy_by_depth"]
            for method, row in report["results"][regime].items()
        }
        for method, runs in curves.items():
            pairs = list(zip(runs, curves["vangl"], strict=True))
            gains = [
                blockwise.text([ours[depth] - plain[depth] for ours, plain in pairs], "+")
                for depth in (0, half - 1, -1)
            ]
            means = [sum(column) for column in zip(*runs, strict=True)]
            peak = means.index(max(means))
            fall = blockwise.text([run[-1] - run[peak] for run in runs], "+")
            body.append(
                [
                    f"{regime}, {blockwise.TITLES[method]}",
                    *([""] * 3 if method == "vangl" else gains),
                    f"{fall} (peak at {peak + 1})",
                ]
            )
    header = ["", "over VanGL, depth 1", f"the same, depth {half}", "the same, last depth"]
    header.append("last depth − peak")
    return blockwise.rows(header, body)


def settings_lines(report):
    """Give the settings, and what did not go well."""
    setup = report["setup"]
    batch = blockwise.by_regime(setup["batch"], "batch")
    schedule = blockwise.by_regime(setup["schedule"], "schedule")
    rows = [row for methods in report["results"].values() for row in methods.values()]
    epochs = f"{setup['epochs']} epochs (sequential: of every stage)"
    if setup.get("growth"):
        last = setup["epochs"] + setup["growth"] * (setup["blocks"] - 1)
        epochs = f"{setup['epochs']} epochs of the first stage, {setup['growth']} more of each "
        epochs += f"one after it, {last} of the last"
    if setup.get("downsampling") == "average":
        epochs += "; an average over 2x2 positions before the midpoint's 1x1 convolution"
    return (
        f"{blockwise.data_of(setup)}, {setup['size']} training images per seed, seeds "
        f"{', '.join(map(str, setup['seeds']))}; {setup['blocks']} blocks, width {setup['width']} "
        f"then {2 * setup['width']}; {epochs}; "
        f"{batch}; {schedule}; first rates: {blockwise.rates_of(report['choices'])}. "
        f"{blockwise.stopped(rows)}"
    )


def tables(report):
    """Give the Markdown of every mark in the README."""
    choices = report["choices"]
    found = {
        "settings": settings_lines(report),
        "test": by_depth(report, "test_accuracy_by_depth"),
        "difference": differences(report),
        "train": by_depth(report, "train_accuracy_by_depth"),
    }
    if "end_to_end" in report["results"]:
        found["end_to_end"] = end_to_end_lines(report)
    found |= blockwise.choice_tables(choices)
    if "midpoint" in report:
        found["midpoint"] = midpoint_table(report["midpoint"])
    return blockwise.labelled(found)


def draw(report, path):
    """Draw accuracy by depth, a panel per regime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [regime for regime in PANELS if regime in report["results"]]
    size = (4.8 * max(len(shown), 1.5), 3.6)
    figure, axes = plt.subplots(
        1, len(shown), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    panels = axes[0]
    depths = range(1, report["setup"]["blocks"] + 1)
    for panel, regime in zip(panels, shown, strict=True):
        for method, row in report["results"][regime].items():
            runs = zip(*row["test_accuracy_by_depth"], strict=True)
            means, halves = zip(*map(blockwise.interval, runs), strict=True)
            band(panel, depths, means, halves, COLORS[method], "o-", blockwise.TITLES[method])
        row = report["results"].get("end_to_end", {}).get("end_to_end")
        if row:
            mean, half = blockwise.interval([run[-1] for run in row["test_accuracy_by_depth"]])
            ends = (depths[0], depths[-1])
            color = COLORS["end_to_end"]
            band(panel, ends, (mean,) * 2, (half,) * 2, color, "--", "end-to-end, last depth")
        panel.set_title(regime, fontsize=10)
        panel.set_xlabel("depth k")
        panel.set_xticks(depths)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy of depth k, %")
    panels[-1].legend(loc="lower right")
    setup = report["setup"]
    figure.suptitle(
        f"{setup['dataset']}, {setup['size']} training images, blocks of width "
        f"{setup['width']}, {setup['epochs']}{'+' if setup.get('growth') else ''} epochs: mean and "
        f"95 % interval over {len(setup['seeds'])} seeds",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


INSIDE = {
    "test_accuracy_by_depth": ("test accuracy of depth k, %", 1.0, "linear"),
    "probe": ("accuracy of a linear probe at depth k, %", 1.0, "linear"),
    # `interval` gives percents.
    "energy": ("energy E_k, mean reduction", 0.01, "log"),
    "relative": ("Monge gap over cost of stage k, %", 1.0, "linear"),
}
"""What is drawn of `seen_inside`: label, factor, scale of the axis."""


def draw_inside(report, regime, path):
    """Draw accuracy by depth beside what diagnostics see, VanGL against TRGL."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(INSIDE), figsize=(15, 3.4), layout="constrained")
    depths = range(1, report["setup"]["blocks"] + 1)
    for method, row in report["results"][regime].items():
        style = (COLORS[method], "o-", blockwise.TITLES[method])
        for panel, (name, (label, factor, scale)) in zip(axes, INSIDE.items(), strict=True):
            curves = row.get(name) or [run[name] for run in row["seen_inside"]]
            columns = list(zip(depths, zip(*curves, strict=True), strict=True))
            there = {k: [factor * v for v in values] for k, values in columns if None not in values}
            means, halves = zip(*map(blockwise.interval, there.values()), strict=True)
            band(panel, list(there), means, halves, *style)
            panel.set(xlabel="depth k", ylabel=label, yscale=scale, xticks=depths)
            panel.grid(alpha=0.3)
    axes[0].legend()
    setup = report["setup"]
    figure.suptitle(
        f"{setup['dataset']}, {setup['size']} training images, width {setup['width']}, {regime}: "
        f"mean and 95 % interval over {len(setup['seeds'])} seeds; on a sample of test images",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def band(panel, x, means, halves, color, style, label):
    """Draw a line and the interval around it."""
    panel.plot(x, means, style, color=color, label=label, markersize=4)
    low = [mean - half for mean, half in zip(means, halves, strict=True)]
    high = [mean + half for mean, half in zip(means, halves, strict=True)]
    panel.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def main(argv):
    """Measure, or report what was measured."""
    del argv
    report = blockwise.run(measure, tables, HERE)
    if FLAGS.json or FLAGS.report:
        own = f"_{blockwise.label()}" if blockwise.label() else ""
        draw(report, ROOT / (FLAGS.picture or f"docs/early_overfitting{own}.png"))
        for regime in PANELS:
            rows = report["results"].get(regime, {}).values()
            if rows and all("seen_inside" in row for row in rows):
                draw_inside(report, regime, ROOT / f"docs/early_overfitting{own}_inside.png")


if __name__ == "__main__":
    app.run(main)
