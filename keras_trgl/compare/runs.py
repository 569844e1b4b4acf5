"""All trainings of a comparison: a file each, so that what was ended goes on."""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from keras_trgl.checks import needed
from keras_trgl.compare.measuring import (
    MEASURE_TIMEOUT,
    Measurement,
    extra_nets,
    measure,
    use_threads,
)
from keras_trgl.compare.own_network import mark_of
from keras_trgl.compare.report import report_of, write_report
from keras_trgl.compare.settings import CHOICE_SEED, Settings
from keras_trgl.compare.spaces import trials
from keras_trgl.compare.trainings import Training, make_model, train, without_test
from keras_trgl.datasets.image_folder import mark_of_folder
from keras_trgl.keeping.saving import written_aside

Say = Callable[[str], Any]
NOT_OF_A_RUN = ("methods", "seeds", "trials")
"""Settings of the comparison that change no training of it."""


def file_of(folder: pathlib.Path, settings: Settings, one: Any) -> pathlib.Path:
    """Give the file of a training or a measurement, named by all that determines it."""
    shared = {k: v for k, v in dataclasses.asdict(settings).items() if k not in NOT_OF_A_RUN}
    shared["network"] = mark_of(settings.network)
    if settings.dataset == "folder":
        shared["images"] = mark_of_folder(str(settings.data_dir))
    told = {k: v for k, v in dataclasses.asdict(one).items() if k != "place"}
    text = json.dumps([shared, told], sort_keys=True)
    mark = hashlib.sha256(text.encode()).hexdigest()[:12]
    return folder / "runs" / f"{one.method}.{one.part}.{mark}.json"


def write(path: pathlib.Path, content: Any) -> None:
    """Write a JSON file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        pathlib.Path(aside).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(path: pathlib.Path) -> Any:
    """Give what a file of `write` holds."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"A file of a training must be JSON. Received: {path}, which is damaged: {error}. "
            "Remove it, and the same command trains it again."
        ) from error


def plan_trials(settings: Settings) -> dict[str, list[Training]]:
    """Give the trials of every method: as many for each, of the same rates."""
    return {
        name: [
            Training(name, numbers, CHOICE_SEED, "validation", place)
            for place, numbers in enumerate(
                trials(name, settings.rates, settings.trials, CHOICE_SEED), start=1
            )
        ]
        for name in settings.methods
    }


def choose(asked: Sequence[Training], results: Sequence[dict[str, Any]]) -> Training:
    """Give the trial that did best on held-out images at the last depth.

    Of equal accuracies the lower loss wins; of equal losses the earlier trial.
    """

    def merit(pair: tuple[Training, dict[str, Any]]) -> tuple[float, float]:
        loss = pair[1]["loss"]
        return pair[1]["accuracy"], float("-inf") if loss is None else -loss

    return max(zip(asked, results, strict=True), key=merit)[0]


class Comparison:
    """The trainings of a comparison, in a folder.

    Args:
        settings: `Settings`.
        folder: path of the results.
        jobs: int ≥ 1. Trainings side by side, each in a process of its own; 1 trains here.
        say: function that is told what was done.
        data: `ImageData`, or `None` to load it when it is needed.
    """

    def __init__(
        self,
        settings: Settings,
        folder: pathlib.Path,
        jobs: int = 1,
        say: Say = print,
        data: Any = None,
    ) -> None:
        settings.check()
        needed("matplotlib.figure", "plot", "The picture of a comparison")
        self.settings, self.folder, self.jobs, self.say = settings, folder, jobs, say
        self.data = settings.load() if data is None else data
        self._begin, self._done = time.perf_counter(), 0

    def run(self, measures: bool = True) -> dict[str, Any]:
        """Choose, train, measure, and write the report.

        Args:
            measures: bool. Whether peaks and step times are measured. Defaults to `True`.

        Returns:
            dict, the report.
        """
        nets = self._check_all()
        asked = self.plan()
        everything = sum(map(len, asked.values())) + self.settings.seeds * len(asked)
        self._left = everything
        self.train_all([one for group in asked.values() for one in group])
        found = {name: [self.result(one) for one in group] for name, group in asked.items()}
        chosen = {name: choose(group, found[name]) for name, group in asked.items()}
        for one in chosen.values():
            self.say(f"chosen: {one}")
        finals = {
            name: [
                Training(name, one.numbers, seed, "test", seed + 1)
                for seed in range(self.settings.seeds)
            ]
            for name, one in chosen.items()
        }
        self.train_all([one for group in finals.values() for one in group])
        measured = {name: self.measured(one) if measures else {} for name, one in chosen.items()}
        report = report_of(
            dataclasses.asdict(self.settings),
            {
                name: [(t.numbers, r) for t, r in zip(asked[name], found[name], strict=True)]
                for name in asked
            },
            {name: one.numbers for name, one in chosen.items()},
            {name: [self.result(one) for one in group] for name, group in finals.items()},
            {name: {**nets[name], **measured[name]} for name in asked},
        )
        write_report(report, self.folder)
        return report

    def plan(self) -> dict[str, list[Training]]:
        """Give the trials of every method."""
        return plan_trials(self.settings)

    def _check_all(self) -> dict[str, dict[str, Any]]:
        """Build every method's network before any is trained, and count its extra nets."""
        nets, data = {}, without_test(self.data)
        for name, group in self.plan().items():
            try:
                nets[name] = extra_nets(make_model(self.settings, group[0], data))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{name} cannot train {self.settings.network} on {self.settings.dataset} in "
                    f"{self.settings.stages} stages. Received: {error}"
                ) from error
        return nets

    def result(self, one: Training) -> dict[str, Any]:
        """Give what a training that was done came to."""
        found: dict[str, Any] = read(file_of(self.folder, self.settings, one))["result"]
        return found

    def train_all(self, asked: Sequence[Training]) -> None:
        """Do the trainings that have no file yet."""
        missing = [one for one in asked if not self._file(one).exists()]
        self._left -= len(asked) - len(missing)
        if self.jobs == 1 or len(missing) < 2:
            for one in missing:
                self.train_one(one)
                self._tell(one)
        else:
            self._in_processes(missing)

    def _file(self, one: Any) -> pathlib.Path:
        return file_of(self.folder, self.settings, one)

    def train_one(self, one: Training) -> None:
        """Train in this process, and write the file."""
        result = train(self.settings, one, self.data)
        write(self._file(one), {"training": dataclasses.asdict(one), "result": result})

    def _tell(self, one: Training) -> None:
        result = self.result(one)
        self._done, self._left = self._done + 1, self._left - 1
        seconds = (time.perf_counter() - self._begin) / self._done * self._left
        note = ", diverged" if result["diverged"] else ""
        self.say(
            f"[{self._left} left, about {max(1, round(seconds / 60))} min] {one}: "
            f"{100 * result['accuracy']:.2f} % {one.part}{note}, {result['seconds']:.0f} s"
        )

    def _in_processes(self, missing: Sequence[Training]) -> None:
        """Share trainings among processes, and tell of each that ends.

        Raises:
            RuntimeError: a process failed.
        """
        workers = []
        for place in range(min(self.jobs, len(missing))):
            share = list(missing[place :: self.jobs])
            order = self.folder / f"order_{place}.json"
            write(
                order,
                {
                    "settings": dataclasses.asdict(self.settings),
                    "trainings": [dataclasses.asdict(one) for one in share],
                    "jobs": self.jobs,
                },
            )
            log = order.with_suffix(".log")
            workers.append((share, log, _started(["--order", str(order)], log)))
        try:
            waiting = list(missing)
            while waiting:
                alive = [process.poll() is None for _, _, process in workers]
                for one in [one for one in waiting if self._file(one).exists()]:
                    waiting.remove(one)
                    self._tell(one)
                for _, log, process in workers:
                    if process.returncode:
                        raise RuntimeError(f"A training failed:\n{log.read_text()[-3000:]}")
                if waiting and not any(alive):
                    raise RuntimeError(f"No file was written of {waiting[0]}. See {self.folder}.")
                time.sleep(0.2)
        finally:
            for _, _, process in workers:
                process.terminate()
                process.wait()

    def measured(self, one: Training) -> dict[str, Any]:
        """Give peak and step time of a method, measured in a fresh process.

        Raises:
            RuntimeError: the process failed.
        """
        what = Measurement(one.method, one.numbers)
        path = self._file(what)
        if not path.exists():
            order, log = self.folder / "order_measure.json", self.folder / "order_measure.log"
            settings = dataclasses.asdict(self.settings)
            write(order, {"settings": settings, "measure": dataclasses.asdict(what)})
            process = _started(["--order", str(order)], log)
            try:
                process.wait(MEASURE_TIMEOUT)
            finally:
                process.terminate()
            if process.returncode or not path.exists():
                raise RuntimeError(f"A measurement failed:\n{log.read_text()[-3000:]}")
            self.say(f"measured: {one.method}")
        found: dict[str, Any] = read(path)["result"]
        return found


def _started(arguments: list[str], log: pathlib.Path) -> subprocess.Popen[bytes]:
    """Start this command in a process of its own."""
    environment = {**os.environ, "TF_CPU_ALLOCATOR_USE_BFC": "true", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "keras_trgl.compare", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def follow(order: pathlib.Path) -> None:
    """Do what a process was started for: its share of the trainings, or a measurement.

    Args:
        order: path of the JSON that says what.
    """
    told, parent = read(order), os.getppid()
    methods = tuple(told["settings"].pop("methods"))
    settings = Settings(methods=methods, **told["settings"])
    if "jobs" in told:
        use_threads(told["jobs"])
    data = settings.load()
    if "measure" in told:
        what = Measurement(**told["measure"])
        write(file_of(order.parent, settings, what), {"result": measure(settings, what, data)})
        return
    comparison = Comparison(settings, order.parent, 1, lambda text: None, data)
    for one in told["trainings"]:
        # Who started this may have been killed: it goes on in a later call, not twice.
        if os.getppid() == parent:
            comparison.train_one(Training(**one))
