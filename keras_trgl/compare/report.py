"""The report of a comparison: numbers, tables as Markdown and CSV, a picture."""

import csv
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_trgl.checks import needed
from keras_trgl.keeping.saving import written_aside

T_975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
"""Student's t at 97.5 %, by degrees of freedom from 1."""

HEADER = (
    *("method", "chosen", "accuracy, %", "against the first", "depths 1…K, %", "peak, MiB"),
    *("predicted, MiB", "step, ms", "extra parameters", "extra KiB", "staleness"),
)

MARKERS = "os^D"


def half_width(values: Sequence[float]) -> float | None:
    """Give the half-width of the 95 % Student-t interval of a mean, or `None` of one value."""
    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    deviation = math.sqrt(sum((one - mean) ** 2 for one in values) / (count - 1))
    return T_975[min(count - 1, len(T_975)) - 1] * deviation / math.sqrt(count)


def interval(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Give mean and half-width, or `None` where a depth predicts nothing."""
    known = [one for one in values if one is not None]
    if not known:
        return None
    return {"mean": sum(known) / len(known), "half_width": half_width(known)}


def report_of(
    settings: Mapping[str, Any],
    tried: Mapping[str, Sequence[tuple[Any, dict[str, Any]]]],
    chosen: Mapping[str, dict[str, Any]],
    finals: Mapping[str, Sequence[dict[str, Any]]],
    nets: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Give all that was found, by method.

    Args:
        settings: the settings.
        tried: by method, numbers and result of each trial.
        chosen: by method, the numbers of the best trial.
        finals: by method, the result of each seed, in the order of seeds.
        nets: by method, what was counted and measured.
    """
    first = next(iter(finals))
    base = [one["accuracy"] for one in finals[first]]
    rows = {}
    for name, results in finals.items():
        last = [one["accuracy"] for one in results]
        depths = zip(*(one["accuracy_by_depth"] for one in results), strict=True)
        pairs = [mine - other for mine, other in zip(last, base, strict=True)]
        rows[name] = {
            "chosen": chosen[name],
            "trials": [
                {"numbers": numbers, "accuracy": one["accuracy"], "diverged": one["diverged"]}
                for numbers, one in tried[name]
            ],
            "accuracy_by_seed": last,
            "accuracy": interval(last),
            "accuracy_by_depth_by_seed": [one["accuracy_by_depth"] for one in results],
            "accuracy_by_depth": [interval(column) for column in depths],
            "against_the_first": None if name == first else interval(pairs),
            "staleness_by_depth": results[0]["staleness_by_depth"],
            "diverged": sum(one["diverged"] is not None for one in results),
            "fit_seconds": sum(one["fit_seconds"] for one in results) / len(results),
            **nets[name],
        }
    told = dict(settings)
    if told.get("data_dir"):
        # Where the data lie on this machine is nobody else's business.
        told["data_dir"] = pathlib.PurePath(told["data_dir"]).name
    return {"settings": told, "first": first, "results": rows}


def data_of(told: Mapping[str, Any]) -> str:
    """Give what was trained on, in words."""
    name = told["dataset"]
    if name == "folder" and told.get("data_dir"):
        name = f"the folder {told['data_dir']}"
    return f"{told['limit']:,} training images of {name}" if told.get("limit") else name


def text_of(found: Mapping[str, Any] | None, sign: str = "") -> str:
    """Give mean ± half-width in %, or a dash."""
    if found is None:
        return "-"
    half = found["half_width"]
    return f"{100 * found['mean']:{sign}.2f}" + ("" if half is None else f" ± {100 * half:.2f}")


def mib(size: int | None) -> str:
    """Give bytes in MiB, or a dash."""
    return "-" if size is None else f"{size / 2**20:.1f}"


def cells(report: Mapping[str, Any]) -> list[list[str]]:
    """Give the table's rows as texts."""
    body = []
    for name, row in report["results"].items():
        step, late = row.get("step_seconds"), row["staleness_by_depth"]
        depths = [text_of(one) for one in row["accuracy_by_depth"]]
        body.append(
            [
                name,
                ", ".join(f"{key} {value:g}" for key, value in row["chosen"].items()),
                text_of(row["accuracy"]),
                text_of(row["against_the_first"], "+"),
                " / ".join(depths),
                *(mib(row.get(name)) for name in ("peak_bytes", "predicted_bytes")),
                f"{1000 * step['median']:.1f}" if step else "-",
                f"{row['extra_parameters']:,}",
                f"{row['extra_bytes'] / 2**10:.1f}",
                " / ".join(f"{one:g}" for one in late) if any(late) else "0",
            ]
        )
    return body


def markdown(report: Mapping[str, Any]) -> str:
    """Give the table as Markdown, with a line on how it came about."""
    told = report["settings"]
    lines = [list(HEADER), ["---"] * len(HEADER), *cells(report)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    diverged = sum(row["diverged"] for row in report["results"].values())
    return (
        f"{told['network']} in {told['stages']} stages on {data_of(told)}, {told['epochs']} "
        f"epochs, batch {told['batch_size']}. Test accuracy after the last epoch: mean and 95 % "
        f"Student-t interval over {told['seeds']} seeds, differences of the same seeds. Rates and "
        f"the methods' own numbers: the best of {told['trials']} trials each, on held-out training "
        f"images. Trainings stopped by a loss that was not finite: {diverged}.\n\n{table}\n"
    )


def draw(report: Mapping[str, Any], path: str) -> None:
    """Draw accuracy by depth, and accuracy over the peak.

    Args:
        report: what `report_of` gave.
        path: path of the picture.
    """
    figures = needed("matplotlib.figure", "plot", "A picture")
    figure = figures.Figure(figsize=(10.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for place, (name, row) in enumerate(report["results"].items()):
        # Colours come again after ten; markers tell the rounds apart.
        color, marker = f"C{place % 10}", MARKERS[place // 10 % len(MARKERS)]
        found = [(k, one) for k, one in enumerate(row["accuracy_by_depth"], 1) if one]
        means = [100 * one["mean"] for _, one in found]
        halves = [100 * (one["half_width"] or 0.0) for _, one in found]
        if len(row["accuracy_by_depth"]) == 1:
            left.axhline(means[0], linestyle="--", color=color, label=name)
        else:
            depths = [k + 0.03 * place for k, _ in found]
            left.errorbar(
                depths, means, halves, fmt=f"{marker}-", color=color, label=name, capsize=2
            )
        if "peak_bytes" in row:
            peak = row["peak_bytes"] / 2**20
            right.errorbar(peak, means[-1], halves[-1], fmt=marker, color=color, capsize=2)
    told = report["settings"]
    left.set_xlabel("depth k")
    left.set_ylabel("test accuracy of depth k, %")
    left.xaxis.get_major_locator().set_params(integer=True)
    right.set_xlabel("memory peak of training, MiB")
    right.set_ylabel("test accuracy of the last depth, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.suptitle(
        f"{told['network']}, K = {told['stages']}, {data_of(told)}, {told['epochs']} epochs: "
        f"mean and 95 % interval over {told['seeds']} seeds",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)


def read_report(path: pathlib.Path) -> dict[str, Any]:
    """Give the report in a file that `write_report` wrote.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"`--report` must be a file that can be read. Received: {path}: {error.strerror}. Give "
            "the results.json that `python -m keras_trgl.compare` wrote."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be JSON. Received: {error}.") from error
    if not isinstance(found, dict) or not all(
        found.get(name) for name in ("settings", "first", "results")
    ):
        raise ValueError(
            f"{path} must be a report of a comparison. Received: another JSON. Give the "
            "results.json that `python -m keras_trgl.compare` wrote."
        )
    return found


def write_report(report: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Write `results.json`, `table.md`, `table.csv`, `accuracy.csv` and `picture.png`.

    Args:
        report: what `report_of` gave.
        folder: path, which is there.
    """
    with written_aside(folder / "results.json") as aside:
        pathlib.Path(aside).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with written_aside(folder / "table.md") as aside:
        pathlib.Path(aside).write_text(markdown(report), encoding="utf-8")
    long = [
        [name, seed, depth, accuracy]
        for name, row in report["results"].items()
        for seed, depths in enumerate(row["accuracy_by_depth_by_seed"])
        for depth, accuracy in enumerate(depths, start=1)
    ]
    tables = {
        "table.csv": [list(HEADER), *cells(report)],
        "accuracy.csv": [["method", "seed", "depth", "accuracy"], *long],
    }
    for name, rows in tables.items():
        with written_aside(folder / name) as aside, open(aside, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    with written_aside(folder / "picture.png") as aside:
        draw(report, aside)
