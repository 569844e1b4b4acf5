"""The benchmarks' arithmetic, and one small run of each; times are never asserted."""

import json
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(name, *options):
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}/run.py", "--json", *options],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_memory_counts_bytes_that_stages_save(tmp_path):
    path = tmp_path / "results.json"
    only = "--only=end_to_end,vangl_k4_even"
    report = run("memory", "--runs=1", "--depth=26", "--batch=16", only, f"--results={path}")
    settings = report["settings"]
    assert settings["end_to_end"]["saved"] == 0.0
    assert settings["vangl_k4_even"]["saved"] > 0.2
    assert json.loads(path.read_text())["settings"] == settings
    base = settings["end_to_end"]["peak_bytes"]
    for row in settings.values():
        assert row["saved"] == pytest.approx(1 - row["peak_bytes"] / base)


def test_the_bytes_of_methods_become_a_table(load_script):
    script = load_script(ROOT / "benchmarks" / "methods" / "peaks.py")
    mib = 2**20
    row = {"predicted": 22 * mib, "measured": 20 * mib, "spread": [19 * mib, 20 * mib, 21 * mib]}
    base = {**row, "measured": 40 * mib}
    assert script.table({"end_to_end": base, "dgl": row}).splitlines()[-1] == (
        "| dgl | 22.0 | 20.0 | 19.0 to 21.0 | 1.10 | 50% |"
    )


@pytest.mark.long
def test_step_time_gives_every_ratio_with_its_interval(tmp_path):
    path = tmp_path / "results.json"
    report = run("step_time", "--pairs=2", "--depth=14", "--batch=2", f"--results={path}")
    assert len(report["ratio"]) == 5
    for row in report["ratio"].values():
        assert 0 < row["low"] <= row["median"] <= row["high"]


def test_the_interval_covers_the_median_of_the_ratios(load_script):
    script = load_script(ROOT / "benchmarks" / "step_time" / "run.py")
    ratios = np.random.default_rng(1).normal(1.0, 0.05, 60)
    row = script.interval(ratios, np.random.default_rng(0))
    assert row["median"] == pytest.approx(np.median(ratios))
    assert row["low"] < row["median"] < row["high"]
    assert row["high"] - row["low"] < 0.05


@pytest.mark.slow
def test_the_quickstart_writes_its_run_folder(tmp_path):
    options = ["--epochs=1", "--limit=64", "--depth=8", "--num_stages=2"]
    options.append(f"--run_dir={tmp_path}")
    subprocess.run(
        [sys.executable, "examples/quickstart.py", *options], cwd=ROOT, check=True, timeout=300
    )
    names = {path.name for path in tmp_path.iterdir()}
    methods = ("trgl", "vangl", "end_to_end")
    wanted = {f"{m}.csv" for m in methods} | {f"{m}.keras" for m in methods}
    assert names == wanted | {"results.json", "picture.png"}
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [row["method"] for row in rows] == list(methods)
    assert all(row["peak_mib"] > 0 for row in rows)


@pytest.mark.long
def test_exits_are_measured_at_the_thresholds_that_held_out_images_chose(tmp_path):
    path = tmp_path / "results.json"
    small = ["--dataset=digits", "--depth=8", "--widths=4,8,8", "--stage_sizes=1,2", "--epochs=1"]
    short = ["--size=200", "--rows=2", "--repeats=1", "--risk=0.3"]
    short += ["--calibrations=3", "--calibration_rows=100"]
    printed = run("exits", *small, *short, f"--results={path}")
    report = json.loads(path.read_text())
    assert printed == {key: report[key] for key in ("exits", "confident", "end_to_end")}
    assert [row["depth"] for row in report["exits"]] == [1, 2]
    assert report["exits"][1]["latency_ratio"] == 1.0
    assert report["exits"][0]["bytes"] < report["exits"][1]["bytes"]
    full = report["exits"][1]["accuracy"]
    assert report["end_to_end"]["gap"] == pytest.approx(report["end_to_end"]["accuracy"] - full)
    early, shipped = report["confident"], report["ways"]["a threshold per exit"]
    assert early["thresholds"] == shipped["thresholds"]
    assert early["accuracy"] == pytest.approx(shipped["accuracy"], abs=0.01)
    assert sum(early["share_by_depth"]) == pytest.approx(1.0)
    assert early["mean_depth"] == pytest.approx(1 + early["share_by_depth"][1])
    assert all(
        low <= row["area"] <= high
        for row in report["ways"].values()
        for low, high in [row["area_interval"]]
    )
    assert 0.0 <= report["bound"]["held"] <= 1.0


def test_a_ratio_is_that_of_the_same_round(load_script):
    script = load_script(ROOT / "benchmarks" / "stage_parallel" / "run.py")
    seconds = {"one_core": [2.0, 4.0, 9.0], "skewed": [1.0, 4.0, 3.0]}
    wanted = {"skewed_vs_one_core": {"median": 2.0, "low": 1.0, "high": 3.0}}
    assert script.ratios(seconds) == wanted


@pytest.mark.parametrize(
    ("fixed", "per_pixel"), [(0, 9000.0), (5e7, 8600.0), (1e7, 1100.0), (3e8, 7000.0)]
)
def test_the_largest_image_is_the_last_that_fits(load_script, monkeypatch, fixed, per_pixel):
    script = load_script(ROOT / "benchmarks" / "frontier" / "run.py")

    def in_process(name, setting, what, side):
        return {"peak_bytes": fixed + per_pixel * side**2 * (1.0 + 1e-4 * (side % 7))}

    monkeypatch.setattr(script, "in_process", in_process)
    found = script.largest_side("trgl_k4_memory")
    assert found["peaks"][str(found["side"])] <= script.LIMIT
    assert found["peaks"][str(found["side"] + script.STEP)] > script.LIMIT


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("early_overfitting", ""),
        ("early_overfitting", "cifar10"),
        ("early_overfitting", "cifar10_width64"),
        ("early_overfitting", "cifar10_published_epochs"),
        ("early_overfitting", "cifar10_averaged"),
        ("train_size", ""),
        ("train_size", "cifar10"),
        ("stages", "cifar10"),
    ],
)
def test_tables_are_those_of_the_results(name, label, tmp_path):
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "docs").mkdir()
    script = tmp_path / "benchmarks" / name / "run.py"
    page = script.with_name("README.md")
    # What a command left in the copy must be put back by the results alone.
    text = page.read_text(encoding="utf-8")
    mark = f"<!-- table: {label} settings -->".replace("  ", " ")
    page.write_text(text.replace(f"{mark}\n", f"{mark}\nold ", 1), encoding="utf-8")
    subprocess.run([sys.executable, str(script), "--report", f"--label={label}"], check=True)
    assert page.read_text(encoding="utf-8") == text
    assert f"{mark}\nold " not in text


def test_stages_that_do_not_divide_the_network_are_refused(load_script, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = load_script(ROOT / "benchmarks" / "blockwise.py")
    data = types.SimpleNamespace(input_shape=(8, 8, 3))
    blocks, sizes = script.blocks_of({"network": "resnet14", "stages": 7}, data)
    assert len(blocks) == 7
    assert sizes == [1] * 7
    with pytest.raises(ValueError, match=r"7 together\. Received: 2 stages"):
        script.blocks_of({"network": "resnet14", "stages": 2}, data)
