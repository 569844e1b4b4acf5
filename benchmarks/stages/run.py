"""Last-depth accuracy of one network by the number of stages that it is cut into.

`python benchmarks/stages/run.py --json --dataset=cifar10 --data_dir=FOLDER` cuts ResNet-32 into 2,
4, 8 and 16 stages, as InfoPro does (16: the stem alone, then every block), and trains them in
parallel with VanGL and TRGL on 2,000 images; end-to-end training of the whole network stands
beside. Rate and tau are chosen at one number of stages on held-out training images. A killed run
goes on from the trainings it has finished; `--report` writes the tables from the results' file.
"""

import pathlib
import sys

from absl import app, flags

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import blockwise

FLAGS = flags.FLAGS
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of images, weights and order.")
flags.DEFINE_list("counts", ["2", "4", "8", "16"], "Numbers of stages.")
flags.DEFINE_integer("size", 2000, "Training images.", lower_bound=10)
FLAGS.set_default("network", "resnet32")

REGIMES = ("parallel", "end_to_end")


def measure():
    """Choose, train, and give the report."""
    choices = blockwise.make_choices(REGIMES)

    def group(regime, method, **changed):
        return [
            blockwise.final_settings(regime, method, seed, FLAGS.size, choices, **changed)
            for seed in FLAGS.seeds
        ]

    asked = {
        (int(count), method): group("parallel", method, stages=int(count))
        for count in FLAGS.counts
        for method in blockwise.METHODS
    }
    # The whole network has no stages: it is trained once.
    asked[1, "end_to_end"] = group("end_to_end", "end_to_end")
    blockwise.train_all([one for many in asked.values() for one in many])
    results = []
    for (count, method), many in asked.items():
        runs = blockwise.train_all(many)
        row = {
            "stages": count,
            "method": method,
            "test_accuracy_by_depth": [run["test"] for run in runs],
            "train_accuracy_by_depth": [run["train"] for run in runs],
            "fit_seconds": [run["fit_seconds"] for run in runs],
            "diverged": [run["diverged"] for run in runs],
        }
        results.append(row)
    setup = {
        **blockwise.setup(REGIMES),
        "size": FLAGS.size,
        "counts": [int(count) for count in FLAGS.counts],
        "seeds": [int(seed) for seed in FLAGS.seeds],
    }
    return {"setup": setup, "choices": choices, "results": results}


def by_stages(report):
    """Give accuracies of the first and the last depth, and TRGL − VanGL, a row per number."""
    found = {(row["stages"], row["method"]): row for row in report["results"]}
    body = []
    for count in report["setup"]["counts"]:
        test = {m: found[count, m]["test_accuracy_by_depth"] for m in blockwise.METHODS}
        seen = {m: found[count, m]["train_accuracy_by_depth"] for m in blockwise.METHODS}
        first, last = (
            {m: [run[depth] for run in runs] for m, runs in test.items()} for depth in (0, -1)
        )
        pairs = zip(last["trgl"], last["vangl"], strict=True)
        body.append(
            [
                str(count),
                *(blockwise.text(first[m]) for m in blockwise.METHODS),
                *(blockwise.text(last[m]) for m in blockwise.METHODS),
                blockwise.text([trgl - vangl for trgl, vangl in pairs], "+"),
                *(blockwise.text([run[-1] for run in seen[m]]) for m in blockwise.METHODS),
            ]
        )
    titles = blockwise.METHODS.values()
    header = [
        "K",
        *(f"first depth, {title}" for title in titles),
        *(f"last depth, {title}" for title in titles),
        "TRGL − VanGL",
        *(f"training images, {title}" for title in titles),
    ]
    return blockwise.rows(header, body)


def end_to_end_line(report):
    """Give what the whole network reaches."""
    (row,) = (row for row in report["results"] if row["method"] == "end_to_end")
    test, train = (
        blockwise.text([run[-1] for run in row[f"{part}_accuracy_by_depth"]])
        for part in ("test", "train")
    )
    return f"End-to-end, same network and images: test {test}, training images {train}."


def settings_line(report):
    """Give the settings, and what did not go well."""
    setup, choices = report["setup"], report["choices"]
    return (
        f"{blockwise.data_of(setup)}, {setup['size']} training images per seed, seeds "
        f"{', '.join(map(str, setup['seeds']))}; {setup['network']}; {setup['epochs']} epochs; "
        f"{blockwise.by_regime(setup['batch'], 'batch')}; first rates, falling as a cosine: "
        f"{blockwise.rates_of(choices)}; τ {choices['tau']['parallel']['chosen']}. "
        f"{blockwise.stopped(report['results'])}"
    )


def tables(report):
    """Give the Markdown of every mark in the README."""
    found = {
        "settings": settings_line(report),
        "accuracy": by_stages(report),
        "end_to_end": end_to_end_line(report),
        **blockwise.choice_tables(report["choices"]),
    }
    return blockwise.labelled(found)


def main(argv):
    """Measure, or report what was measured."""
    del argv
    blockwise.run(measure, tables, HERE)


if __name__ == "__main__":
    app.run(main)
