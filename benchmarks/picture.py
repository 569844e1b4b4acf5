"""Draw memory, and the largest image that fits, by way of training, from a benchmark's results.

`python benchmarks/picture.py` draws `docs/memory.png`, the README's picture, and
`docs/largest_side.png` from `benchmarks/frontier/results.json`. Each holds its source's hash;
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
from labels import IN_TABLES, LABELS
from PIL import Image

FLAGS = flags.FLAGS
flags.DEFINE_bool("check", False, "Fail if the picture is not of the results; draw nothing.")

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "benchmarks" / "frontier" / "results.json"
MEMORY, SIDES = ROOT / "docs" / "memory.png", ROOT / "docs" / "largest_side.png"


def peaks(report):
    """Give what to draw of memory: title to MiB by setting."""
    setup, found = report["setup"], {}
    titles = {
        "resnet": f"ResNet-{setup['depth']}, 32x32, batch {setup['batch']}",
        "batch_1": f"the same, {setup['side']}x{setup['side']}, batch 1",
    }
    for key, row in report["rows"].items():
        network, setting = key.split(".")
        if network in titles and setting in LABELS and "peak_bytes" in row:
            found.setdefault(titles[network], {})[setting] = row["peak_bytes"] / 2**20
    return found


def largest_sides(report):
    """Give what to draw of image sides: title to pixels by setting."""
    title = f"ResNet-{report['setup']['depth']}, batch 1, within 1 GiB"
    return {title: {setting: row["side"] for setting, row in report["sides"].items()}}


def draw(found, label, path, digest):
    """Draw one panel of bars per network."""
    height = 0.9 + 0.3 * max(len(rows) for rows in found.values())
    figure, axes = plt.subplots(
        1, len(found), figsize=(4.8 * len(found) + 1.6, height), layout="constrained", squeeze=False
    )
    for axis, (title, rows) in zip(axes[0], found.items(), strict=True):
        known = [name for name in LABELS if name in rows and name not in IN_TABLES][::-1]
        colors = [
            "#777777" if name.startswith(("end_to_end", "torch")) else "#1b6ca8" for name in known
        ]
        bars = axis.barh(
            [LABELS[name] for name in known], [rows[name] for name in known], color=colors
        )
        axis.bar_label(bars, fmt="%.0f", padding=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Source": digest})
    plt.close(figure)


def main(argv):
    """Draw or check."""
    del argv
    digest = f"{SOURCE.relative_to(ROOT)} {hashlib.sha256(SOURCE.read_bytes()).hexdigest()}"
    if FLAGS.check:
        for path in (MEMORY, SIDES):
            with Image.open(path) as image:
                if image.text.get("Source") != digest:
                    sys.exit(f"{path} is not of {SOURCE}. Run `python benchmarks/picture.py`.")
        return
    report = json.loads(SOURCE.read_text())
    draw(peaks(report), "memory peak of training, MiB", MEMORY, digest)
    draw(largest_sides(report), "largest side of an image, pixels", SIDES, digest)


if __name__ == "__main__":
    app.run(main)
