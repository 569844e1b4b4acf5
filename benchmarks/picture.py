"""Draw the picture of the README, memory by way of training, from the results of a benchmark.

`python benchmarks/picture.py` draws `docs/memory.png` from `benchmarks/frontier/results.json`, or,
while that is not there, from `benchmarks/memory/results.json`. The picture holds its source's hash;
`--check` compares it, and draws nothing.
"""

import hashlib
import json
import pathlib
import sys

import matplotlib
from absl import app, flags

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from labels import LABELS
from PIL import Image

FLAGS = flags.FLAGS
flags.DEFINE_bool("check", False, "Fail if the picture is not of the results; draw nothing.")

ROOT = pathlib.Path(__file__).parents[1]
FRONTIER = ROOT / "benchmarks" / "frontier" / "results.json"
MEMORY = ROOT / "benchmarks" / "memory" / "results.json"
PICTURE = ROOT / "docs" / "memory.png"


def panels():
    """Give the source, and what to draw from it: title to peak bytes by setting."""
    if not FRONTIER.is_file():
        report = json.loads(MEMORY.read_text())
        setup = report["setup"]
        title = f"ResNet-{setup['depth']}, 32x32, batch {setup['batch']}"
        return MEMORY, {title: {k: row["peak_bytes"] for k, row in report["settings"].items()}}
    report = json.loads(FRONTIER.read_text())
    setup, found = report["setup"], {}
    titles = {
        "resnet": f"ResNet-{setup['depth']}, 32x32, batch {setup['batch']}",
        "batch_1": f"the same, {setup['side']}x{setup['side']}, batch 1",
    }
    for key, row in report["rows"].items():
        network, setting = key.split(".")
        if network in titles and setting in LABELS and "peak_bytes" in row:
            found.setdefault(titles[network], {})[setting] = row["peak_bytes"]
    return FRONTIER, found


def draw(found, digest):
    """Draw one panel of bars per network."""
    height = 0.9 + 0.3 * max(len(rows) for rows in found.values())
    figure, axes = plt.subplots(
        1, len(found), figsize=(4.8 * len(found) + 1.6, height), layout="constrained", squeeze=False
    )
    for axis, (title, rows) in zip(axes[0], found.items(), strict=True):
        known = [name for name in LABELS if name in rows][::-1]
        colors = ["#777777" if name.startswith("end_to_end") else "#1b6ca8" for name in known]
        bars = axis.barh(
            [LABELS[name] for name in known], [rows[name] / 2**20 for name in known], color=colors
        )
        axis.bar_label(bars, fmt="%.0f", padding=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("memory peak of training, MiB")
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=130, metadata={"Source": digest})
    plt.close(figure)


def main(argv):
    """Draw or check."""
    del argv
    source, found = panels()
    digest = f"{source.relative_to(ROOT)} {hashlib.sha256(source.read_bytes()).hexdigest()}"
    if FLAGS.check:
        with Image.open(PICTURE) as image:
            if image.text.get("Source") != digest:
                sys.exit(f"{PICTURE} is not of {source}. Run `python benchmarks/picture.py`.")
        return
    draw(found, digest)


if __name__ == "__main__":
    app.run(main)
