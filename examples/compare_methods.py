"""Compare ways to train by stages on the same network and data, and say what differs.

    python examples/compare_methods.py
    python examples/compare_methods.py --methods=vangl,trgl,info_pro,trgl+info_pro --epochs=30
    python examples/compare_methods.py --dataset=folder --data_dir=photos --image_size=64

It runs `python -m keras_trgl.compare` with the flags that it is given (`--help` there shows all)
and reads the report: a method differs from the first one where the interval of the differences, of
the same seeds, does not hold zero.
"""

import json
import pathlib
import subprocess
import sys

SETTINGS = ["--methods=vangl,trgl,pred_sim,end_to_end", "--out=runs/compare_methods"]


def verdict(name, row, first):
    """Say in a sentence whether a method differs from the first one."""
    found = row["against_the_first"]
    if found is None:
        return f"{name}: {100 * row['accuracy']['mean']:.2f} %, what the others are compared with."
    mean, half = found["mean"], found["half_width"]
    if half is None:
        return f"{name}: one seed shows no difference. Give more, such as --seeds=3."
    if abs(mean) <= half:
        return f"{name}: no difference from {first} is seen ({100 * mean:+.2f} ± {100 * half:.2f})."
    return f"{name}: {100 * mean:+.2f} ± {100 * half:.2f} % against {first}."


def main():
    """Compare, and speak of the results."""
    flags = sys.argv[1:]
    command = [sys.executable, "-m", "keras_trgl.compare", *SETTINGS, *flags]
    done = subprocess.run(command)
    if done.returncode:
        sys.exit(done.returncode)
    out = [flag for flag in [*SETTINGS, *flags] if flag.startswith("--out=")][-1]
    folder = pathlib.Path(out.removeprefix("--out="))
    report = json.loads((folder / "results.json").read_text())
    for name, row in report["results"].items():
        print(verdict(name, row, report["first"]))


if __name__ == "__main__":
    main()
