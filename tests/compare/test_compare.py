"""Comparisons: budgets, choices, files that go on, test images at the end, refusals."""

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import keras_trgl as trgl
from keras_trgl.compare import measuring, report, runs, spaces, trainings
from keras_trgl.compare.settings import Settings
from keras_trgl.compare.spaces import RATE, Range
from keras_trgl.datasets.image_folder import mark_of_folder

SMALL = {"network": "resnet8", "limit": 96, "stages": 2, "epochs": 1, "seeds": 2, "trials": 2}


def settings_of(*methods, **options):
    return Settings(methods=methods, **{**SMALL, **options})


class Images:
    """Images that note when they are read."""

    def __init__(self, images, events):
        self.images, self.events = images, events
        self.shape, self.dtype, self.ndim = images.shape, images.dtype, images.ndim

    def __len__(self):
        return len(self.images)

    def __getitem__(self, places):
        self.events.append("test images")
        return self.images[places]


def counted(settings, training, data):
    """Stand in for a training: numbers that follow from what it is of."""
    rng = np.random.default_rng(len(str(training)) + sum(map(ord, str(training))))
    values = rng.uniform(0.5, 0.9, settings.stages)
    return {
        "accuracy_by_depth": [float(one) for one in values],
        "accuracy": float(values[-1]),
        "loss": float(rng.uniform()),
        "staleness_by_depth": [0.0] * settings.stages,
        "diverged": None,
        "fit_seconds": 1.0,
        "seconds": 1.0,
    }


@pytest.fixture
def quick(monkeypatch):
    """Trainings that take no time, and networks that are not built; gives the list of them."""
    done = []

    def train(settings, training, data):
        done.append(training)
        return counted(settings, training, data)

    nets = {"stage_sizes": [2, 1], "parameters": 9, "extra_parameters": 4, "extra_bytes": 16}
    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "make_model", lambda *of: None)
    monkeypatch.setattr(runs, "extra_nets", lambda model: nets)
    return done


def comparison(settings, folder, jobs=1, data=None):
    return runs.Comparison(settings, folder, jobs, lambda text: None, data)


METHODS = ("vangl", "trgl", "pred_sim", "info_pro", "aug_local", "end_to_end", "trgl+info_pro")


@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_method_gets_as_many_trials_of_the_same_rates(count):
    asked = runs.plan_trials(settings_of(*METHODS, trials=count))
    assert {len(group) for group in asked.values()} == {count}
    rates = {name: [one.numbers[RATE] for one in group] for name, group in asked.items()}
    assert len({tuple(one) for one in rates.values()}) == 1
    assert len(set(rates["vangl"])) == count
    taus = [[one.numbers["tau"] for one in asked[name]] for name in ("trgl", "trgl+info_pro")]
    assert taus[0] == taus[1]
    for name, group in asked.items():
        assert {one.part for one in group} == {"validation"}
        for key, space in spaces.space_of(name).items():
            values = [one.numbers[key] for one in group]
            assert all(space.low <= value <= space.high for value in values)
            if space.kind != "integer":
                assert len(set(values)) == count


RANGES = {
    "log": (Range(0.01, 1.0), [0.01, 0.1, 1.0]),
    "share": (Range(0.0, 0.99, "share"), [0.0, 0.9, 0.99]),
    "integer": (Range(1, 3, "integer"), [1, 2, 3]),
}


@pytest.mark.parametrize("kind", RANGES)
def test_a_range_is_cut_evenly(kind):
    space, wanted = RANGES[kind]
    assert [space.at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx(wanted)


def test_the_best_on_held_out_images_is_chosen_and_a_tie_goes_to_the_lower_loss():
    asked = list("abc")
    found = [
        {"accuracy": 0.9, "loss": 0.5},
        {"accuracy": 0.9, "loss": 0.4},
        {"accuracy": 0.8, "loss": 0.1},
    ]
    assert runs.choose(asked, found) == "b"
    found[1]["loss"] = None
    assert runs.choose(asked, found) == "a"


def text_of(folder):
    names = ("table.md", "table.csv", "accuracy.csv", "results.json")
    return [(folder / name).read_text() for name in names]


@pytest.mark.parametrize("after", [0, 3, 5, 8])
def test_what_was_ended_goes_on_to_the_same_table(quick, monkeypatch, tmp_path, after):
    settings = settings_of("vangl", "trgl", "end_to_end")
    whole = comparison(settings, tmp_path / "whole").run(measures=False)
    assert len(quick) == 3 * (2 + 2)
    train, quick[:] = runs.train, []

    def ended(*of):
        if len(quick) == after:
            raise KeyboardInterrupt
        return train(*of)

    monkeypatch.setattr(runs, "train", ended)
    with pytest.raises(KeyboardInterrupt):
        comparison(settings, tmp_path / "parts").run(measures=False)
    assert not (tmp_path / "parts" / "table.md").exists()
    monkeypatch.setattr(runs, "train", train)
    assert comparison(settings, tmp_path / "parts").run(measures=False) == whole
    assert len(quick) == 12
    assert text_of(tmp_path / "parts") == text_of(tmp_path / "whole")


def test_more_seeds_and_methods_train_no_more_than_what_is_new(quick, tmp_path):
    comparison(settings_of("vangl"), tmp_path).run(measures=False)
    before = len(quick)
    comparison(settings_of("vangl", "dgl", seeds=3), tmp_path).run(measures=False)
    assert len(quick) - before == 1 + 2 + 3
    comparison(settings_of("vangl", epochs=2), tmp_path).run(measures=False)
    assert len(quick) - before == 6 + 4


def test_test_images_are_read_when_choices_stand_and_a_training_is_over(monkeypatch, tmp_path):
    events, data = [], trgl.datasets.load("digits").subset(64)
    data = dataclasses.replace(data, x_test=Images(data.x_test, events))
    train, fit = runs.train, trgl.GreedyModel.fit
    monkeypatch.setattr(
        runs, "train", lambda s, one, d: (events.append(one.part), train(s, one, d))[1]
    )

    def fitted(*of, **options):
        found = fit(*of, **options)
        events.append("fitted")
        return found

    monkeypatch.setattr(trainings.GreedyModel, "fit", fitted)
    settings = settings_of("end_to_end", seeds=1)
    found = comparison(settings, tmp_path, data=data).run(measures=False)
    assert events == [*["validation", "fitted"] * 2, "test", "fitted", "test images"]
    row = found["results"]["end_to_end"]
    assert 0 <= row["accuracy"]["mean"] <= 1
    assert row["extra_parameters"] == 0
    assert len(row["trials"]) == 2


def test_extra_nets_are_what_is_in_no_stage_and_no_last_head():
    data = trgl.datasets.load("digits")
    counts = {}
    for name in ("vangl", "end_to_end", "info_pro"):
        training = runs.plan_trials(settings_of(name))[name][0]
        model = trainings.make_model(settings_of(name), training, data)
        counts[name] = runs.extra_nets(model)
        if name == "vangl":
            head = sum(int(np.prod(one.shape)) for one in model.heads[0].trainable_weights)
    assert counts["end_to_end"]["extra_parameters"] == counts["end_to_end"]["extra_bytes"] == 0
    assert counts["vangl"]["extra_parameters"] == head
    assert counts["info_pro"]["extra_bytes"] > counts["vangl"]["extra_bytes"] > 4 * head - 1


def test_half_widths_are_students():
    for count in (2, 3, 10, 31):
        values = np.random.default_rng(count).normal(size=count)
        wanted = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)
        assert report.half_width(list(values)) == pytest.approx(wanted, rel=1e-4)
    assert report.half_width([0.5]) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 0}, "digits"),
        ({"limit": 1000}, "1,000 training images of digits"),
        (
            {"limit": 1000, "dataset": "folder", "data_dir": "/home/ann/photos"},
            "1,000 training images of the folder photos",
        ),
    ],
)
def test_a_report_says_what_was_trained_on_and_not_where_it_lies(options, words, tmp_path):
    result = {"accuracy_by_depth": [0.5], "staleness_by_depth": [0.0], "diverged": None}
    result |= {"accuracy": 0.5, "fit_seconds": 1.0}
    nets = {"extra_parameters": 0, "extra_bytes": 0}
    tried = {"vangl": [({RATE: 0.1}, result)]}
    settings = dataclasses.asdict(settings_of("vangl", **options))
    found = report.report_of(
        settings, tried, {"vangl": {RATE: 0.1}}, {"vangl": [result]}, {"vangl": nets}
    )
    report.write_report(found, tmp_path)
    assert f"in 2 stages on {words}, 1 epochs" in (tmp_path / "table.md").read_text()
    assert "/home" not in (tmp_path / "results.json").read_text()


def test_the_tables_and_the_picture_say_what_was_found(quick, tmp_path):
    found = comparison(settings_of("vangl", "trgl"), tmp_path).run(measures=False)
    row = found["results"]["trgl"]
    pairs = np.subtract(row["accuracy_by_seed"], found["results"]["vangl"]["accuracy_by_seed"])
    assert row["against_the_first"]["mean"] == pytest.approx(pairs.mean())
    assert f"{100 * pairs.mean():+.2f} ± " in (tmp_path / "table.md").read_text()
    with (tmp_path / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    assert float(rows[-1]["accuracy"]) == row["accuracy_by_depth_by_seed"][1][1]
    assert (tmp_path / "picture.png").stat().st_size > 5000
    again = tmp_path / "again"
    again.mkdir()
    report.write_report(report.read_report(tmp_path / "results.json"), again)
    assert text_of(again) == text_of(tmp_path)


def test_a_depth_without_predictions_and_late_gradients_are_shown(tmp_path):
    result = {
        **counted(settings_of("vangl"), "x", None),
        "accuracy_by_depth": [None, 0.5],
        "staleness_by_depth": [1.0, 0.0],
        "diverged": "not finite",
    }
    numbers = {"ddg": {RATE: 0.1}}
    nets = {"extra_parameters": 0, "extra_bytes": 0}
    settings = dataclasses.asdict(settings_of("ddg"))
    found = report.report_of(
        settings, {"ddg": [({RATE: 0.1}, result)]}, numbers, {"ddg": [result]}, {"ddg": nets}
    )
    text = report.markdown(found)
    assert "| - / 50.00 |" in text
    assert "| 1 / 0 |" in text
    assert "not finite: 1" in text
    report.write_report(found, tmp_path)


DOOR = {
    "no method": (settings_of(), "different ones, at least one. Received: none"),
    "a method twice": (settings_of("vangl", "vangl"), "Received: vangl, vangl"),
    "an unknown one": (settings_of("vangle"), "`--methods` takes end_to_end, vangl.*'vangle'"),
    "energy on energy": (settings_of("trgl+trgl"), "local method that has none"),
    "energy end to end": (settings_of("trgl+end_to_end"), "local method that has none"),
    "no trial": (settings_of("vangl", trials=0), "`trials` must be at least 1"),
    "no seed": (settings_of("vangl", seeds=0), "`seeds` must be at least 1"),
    "rates": (settings_of("vangl", low_rate=1.0), "lowest and the highest. Received: 1,0.1"),
    "a rate of 0": (settings_of("vangl", low_rate=0.0), "`low_rate` must be above 0"),
    "another split": (settings_of("vangl", split="even"), "`split` must be one of"),
    "another data set": (settings_of("vangl", dataset="cifar"), "`dataset` must be one of"),
    "another network": (settings_of("vangl", network="alexnet"), "`--network` must be resnetN"),
    "smoothing": (settings_of("vangl", smoothing=1.0), "`smoothing` must be at least 0"),
    "a short network": (settings_of("vangl", network="resnet9"), "resnet9.*`depth` must be 6n"),
    "too many stages": (settings_of("vangl", stages=9), "in 9 stages. Received: .*num_stages"),
    "too many images": (settings_of("vangl", limit=9999), "`--limit` must be at most the"),
    "too few images": (settings_of("vangl", limit=20), "class 6 has 0 images. Take a larger"),
    "a folder for digits": (settings_of("vangl", data_dir="x"), "Add --dataset=folder"),
    "a size for digits": (settings_of("vangl", image_size=9), "are for images of your own"),
}


@pytest.mark.parametrize("what", DOOR)
def test_what_cannot_be_compared_is_refused_before_any_training(what, monkeypatch, tmp_path):
    settings, message = DOOR[what]
    monkeypatch.setattr(runs, "train", None)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        comparison(settings, tmp_path).run(measures=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "photos" / place).mkdir(parents=True)
        for number in range(4):
            image = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            path = tmp_path / "photos" / place / f"{number}.png"
            path.write_bytes(tf.io.encode_png(image).numpy())
    return tmp_path / "photos"


def test_other_images_in_a_folder_are_other_trainings(photos, tmp_path):
    settings = settings_of("vangl", dataset="folder", data_dir=str(photos), limit=0)
    one = runs.plan_trials(settings)["vangl"][0]
    before = runs.file_of(tmp_path, settings, one)
    assert runs.file_of(tmp_path, settings, one) == before
    # Processes that come later look anew; results may lie beside the images.
    mark_of_folder.cache_clear()
    (photos / "picture.png").write_bytes(b"")
    assert runs.file_of(tmp_path, settings, one) == before
    (photos / "train" / "a" / "3.png").unlink()
    mark_of_folder.cache_clear()
    assert runs.file_of(tmp_path, settings, one) != before


def test_a_folder_of_one_class_is_refused(photos):
    for part in ("train", "test"):
        shutil.rmtree(photos / part / "b")
    settings = settings_of("vangl", dataset="folder", data_dir=str(photos), limit=0)
    with pytest.raises(ValueError, match="two classes or more"):
        settings.load()


def test_a_damaged_file_of_a_training_is_named(tmp_path):
    path = tmp_path / "vangl.validation.json"
    path.write_text("")
    with pytest.raises(ValueError, match=r"vangl\.validation\.json.*Remove it"):
        runs.read(path)


def test_a_report_of_something_else_is_refused(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(ValueError, match="must be a file that can be read"):
        report.read_report(path)
    empty = '{"settings": {}, "first": "a", "results": {}}'
    other = "must be a report of a comparison"
    for text, message in (("{", "must be JSON"), ("{}", other), (empty, other)):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            report.read_report(path)


def test_a_failed_process_says_why(monkeypatch, tmp_path):
    (tmp_path / "runs").mkdir()
    asked = runs.plan_trials(settings_of("vangl"))["vangl"]
    one = comparison(settings_of("vangl"), tmp_path, jobs=2)
    one._left = 2

    def failed(arguments, log):
        log.write_text("a reason")
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(runs, "_started", failed)
    with pytest.raises(RuntimeError, match=r"A training failed:\na reason"):
        one.train_all(asked)


COMMAND = [sys.executable, "-m", "keras_trgl.compare", "--network=resnet8", "--limit=96"]
COMMAND += ["--stages=2", "--epochs=1", "--methods=vangl,trgl", "--trials=2", "--seeds=2"]


@pytest.mark.long
def test_a_killed_command_goes_on_to_the_same_table(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run([*COMMAND, "--nomeasure", f"--out={whole}"], check=True, timeout=600)
    first = subprocess.Popen([*COMMAND, "--nomeasure", f"--out={parts}"])
    while len(list((parts / "runs").glob("[!.]*"))) < 3 and first.poll() is None:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (parts / "table.md").exists()
    subprocess.run([*COMMAND, f"--out={parts}"], check=True, timeout=600)
    found = [json.loads((one / "results.json").read_text())["results"] for one in (whole, parts)]
    for name in ("vangl", "trgl"):
        for key in ("chosen", "accuracy_by_seed", "accuracy_by_depth_by_seed"):
            assert found[0][name][key] == found[1][name][key]
        row = found[1][name]
        assert row["predicted_bytes"] == pytest.approx(row["peak_bytes"], rel=0.4)
        assert found[1][name]["step_seconds"]["median"] > 0


@pytest.mark.filterwarnings("ignore:`metrics` measure predictions")
def test_a_peak_is_measured_when_every_stage_trains(monkeypatch):
    settings = settings_of("ddg", stages=3, batch_size=48)
    what = measuring.Measurement("ddg", {RATE: 0.01})
    steps = []

    def peak_of(fit):
        steps.extend(int(one.iterations) for one in fit().model.optimizer.optimizers)
        raise InterruptedError

    monkeypatch.setattr(measuring, "measure_peak", peak_of)
    with pytest.raises(InterruptedError):
        measuring.measure(settings, what, settings.load())
    assert min(steps) > 0


@pytest.mark.long
def test_the_benchmark_and_the_example_run(tmp_path):
    out = tmp_path / "example"
    small = ["--network=resnet8", "--limit=96", "--stages=2", "--epochs=1", "--methods=vangl,trgl"]
    command = [sys.executable, "examples/compare_methods.py", *small, "--trials=1", "--seeds=1"]
    done = subprocess.run(
        [*command, f"--out={out}", "--nomeasure"], check=True, capture_output=True, text=True
    )
    assert "trgl: one seed shows no difference" in done.stdout
    page = "# \n\n<!-- table: methods -->\nold\n<!-- end -->\n"
    (tmp_path / "README.md").write_text(page)
    command = [sys.executable, "benchmarks/methods/run.py", *small, "--trials=1", "--seeds=1"]
    done = subprocess.run(
        [
            *command,
            "--json",
            "--nopicture",
            f"--results={tmp_path}",
            f"--work_dir={tmp_path / 'w'}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(json.loads(done.stdout.splitlines()[-1])["results"]) == {"vangl", "trgl"}
    assert "| trgl |" in (tmp_path / "README.md").read_text()
