"""Kills training runs at random moments, and compares what comes of them bit for bit.

`python tests/faults/kill.py --kills 20 --json` does it for every regime. One run trains to the
end without a kill. Then chains of up to five kills: a process trains with `BackupAndRestore`,
gets SIGKILL, is started again, and so on; the last one trains to the end. Its weights, optimizer
and other variables, history, random states and all that callbacks count must be those of
the unbroken run, bit for bit, or none of the chain's kills counts as exact. `victim.py` is the
run.

Moments are drawn: a step of the whole run, then a few milliseconds. Of every chain's kills one
falls on the start (before or in the restore), one in a validation, and the last one on the end,
between the last save and the removal of the file. Some kills are aimed at a save: they wait for
the unfinished file and kill then. A kill fell inside a save if that file is still there after the
death; an aimed one that missed is an ordinary one, and chains are added until a quarter of the
kills fell inside saves.

Lost steps of a kill: the last step that the dead process told, less the step that the next one
restored, 0 if it found no backup. A process tells a step when its update is done and before the
save that may be due then, so a step told may be lost with its save: `save_freq` steps is the most
that an intact library loses, with no allowance. A step that was done but not told yet, when the
kill came, is not counted; as the save comes after the telling, it cannot make the loss larger
than `save_freq` either.

The last line with `--json` is {regime: {kills, inside_save, bit_exact, inexact_chains,
lost_steps_max, save_freq, slow}}. The exit code is 1 if a kill is not exact, more than `save_freq`
steps are lost, too few kills fell inside saves, or a process failed; standard error tells which. A
process that takes longer than ten unbroken runs, and five minutes, is slow: its chain counts under
`slow`, not as inexact, and the exit code is 2 if nothing else is wrong. `--seed` repeats the
moments asked for, not the machine's timing.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REGIMES = (
    *("parallel", "sequential", "multi_lap", "buffered_random", "skewed"),
    *("executions", "pipeline"),
)
STEPS_PER_EPOCH, STEPS = 23, 138
LATE = {"executions": 3}
"""Steps by which a save may be late: calls of several steps save at the first end past it."""
CHAIN = 5
PROCESS_LIMIT = 300.0
"""Seconds that a process may take at least."""
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


class FaultError(Exception):
    """A process that failed, hung, or told what cannot be."""


class SlowError(FaultError):
    """A process that did not end in its time; whether it is exact is not known."""


class Victim:
    """A training process whose progress is read.

    Args:
        arguments: list of str: `victim.py` and its own.
        log: path, for its standard error.
        environment: dict of str.
        limit: float. Seconds that it may take.
    """

    def __init__(self, arguments, log, environment, limit):
        self.log = log
        self.restored, self.done = None, 0
        self.said = {}
        self.limit = limit
        self._news = threading.Condition()
        self._end = time.monotonic() + limit
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            word, _, number = line.partition(" ")
            with self._news:
                if word == "restored":
                    self.restored = self.done = int(number)
                elif word == "step" and number.endswith("\n"):
                    self.done = int(number)
                self.said[word] = self.said.get(word, 0) + 1
                self._news.notify_all()

    def wait_for(self, step):
        """Wait until the process told this step, or word; `False` if it ended before."""
        while time.monotonic() < self._end:
            with self._news:
                if self.is_at(step):
                    return True
                self._news.wait(0.05)
            if self.process.poll() is not None:
                self._reader.join()
                return self.is_at(step)
        raise self.slow()

    def is_at(self, step):
        """Tell whether the process told a word, or this step or a later one."""
        if isinstance(step, str):
            return step in self.said
        return self.restored is not None and self.done >= step

    def slow(self):
        return SlowError(f"no end after {self.limit:.0f} s, at step {self.done}")

    def wait_for_file(self, path):
        """Wait until a file is there; give up when the process ends."""
        while not path.exists() and self.process.poll() is None:
            if time.monotonic() > self._end:
                raise self.slow()
            time.sleep(0.0001)

    def kill(self):
        """Send SIGKILL, and tell whether that is what the process died of."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        return code == -signal.SIGKILL

    def finish(self):
        """Wait for a good end.

        Raises:
            FaultError: the process failed.
            SlowError: it did not end in its time.
        """
        self.wait_for("nothing that it says")
        self.process.stdout.close()
        if self.process.returncode != 0:
            text = self.log.read_text(errors="replace").strip()
            raise FaultError(f"exit code {self.process.returncode}: …{text[-2000:]}")


class Nursery:
    """Starts processes on a copy of library and script, and leaves none behind.

    All processes thus run the same code, whatever is edited meanwhile, and share the bytecode
    that the first one compiles.

    Args:
        folder: path, for the copy and the bytecode.
    """

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(ROOT / "keras_trgl", folder / "source" / "keras_trgl")
        self._script = str(shutil.copy(HERE / "victim.py", folder / "source"))
        self._environment = {
            **os.environ,
            **ENVIRONMENT,
            "PYTHONPATH": str(folder / "source"),
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        self._lock = threading.Lock()
        self._victims = []
        self._closed = False
        self.limit = PROCESS_LIMIT

    def start(self, arguments, log):
        with self._lock:
            if self._closed:
                raise FaultError("stopped")
            victim = Victim([self._script, *arguments], log, self._environment, self.limit)
            self._victims.append(victim)
            return victim

    def close(self):
        with self._lock:
            self._closed = True
            for victim in self._victims:
                victim.kill()


@dataclasses.dataclass
class Kill:
    """One kill: the step it was drawn for, what the process had told, and what came back."""

    aimed: bool
    inside: bool
    done: int
    restored: int | None = None

    @property
    def lost(self):
        return self.done - self.restored


@dataclasses.dataclass
class Chain:
    """Kills of one run, and what the run came to in the end."""

    regime: str
    kills: list
    result: dict | None = None
    fault: str = ""
    is_slow: bool = False
    differing: list = dataclasses.field(default_factory=list)


class Killer:
    """Runs and kills the victims of one call.

    Args:
        save_freq: int or `"epoch"`.
        nursery: `Nursery`.
    """

    def __init__(self, save_freq, nursery):
        self.save_freq = save_freq
        self.longest_loss = STEPS_PER_EPOCH if save_freq == "epoch" else int(save_freq)
        self.nursery = nursery

    def unbroken(self, regime):
        """Give what the regime comes to without a kill."""
        with tempfile.TemporaryDirectory(dir=self.nursery.folder) as folder:
            out, began = pathlib.Path(folder) / "out.npz", time.monotonic()
            # Whoever saves reads a pipeline through an iterator of their own.
            own = [str(pathlib.Path(folder) / "own"), str(self.save_freq)]
            arguments = [regime, str(out), *(own if regime == "pipeline" else ())]
            self.nursery.start(arguments, out.with_suffix(".log")).finish()
            self.nursery.limit = max(PROCESS_LIMIT, 10 * (time.monotonic() - began))
            return load(out)

    def chain(self, regime, number, seed, wanted):
        """Kill a run `number` times, a third of them aimed at saves, and let it end."""
        rng = random.Random(f"{regime}/{seed}")
        chain = Chain(regime, [])
        try:
            steps = STEPS_PER_EPOCH * len(wanted.result()["history_epochs"])
        except SlowError as error:
            chain.fault, chain.is_slow = str(error), True
            return chain
        # One in each part of the run; an aimed one needs a save that is still to come.
        span = (steps - self.longest_loss - 5) / number
        targets = [2 + int(span * (place + rng.random())) for place in range(number)]
        aimed = set(rng.sample(range(number), -(-number // 3)))
        for place, word in ((1, "begin"), (2, "validation"), (number - 1, "end")):
            if 0 < place < number and place not in aimed:
                targets[place] = word
        with tempfile.TemporaryDirectory(dir=self.nursery.folder) as folder:
            try:
                self._run(chain, pathlib.Path(folder), targets, aimed, rng)
            except FaultError as error:
                chain.fault, chain.is_slow = str(error), isinstance(error, SlowError)
        return chain

    def _run(self, chain, folder, targets, aimed, rng):
        backup, out = folder / "backup", folder / "out.npz"
        arguments = [chain.regime, str(out), str(backup), str(self.save_freq)]
        for place, target in enumerate(targets):
            victim = self.nursery.start(arguments, folder / "log")
            kill = self._strike(victim, target, backup if place in aimed else None, rng)
            self._came_back(chain, victim)
            if kill is None:
                break
            kill.inside = unfinished(backup, victim).exists()
            if victim.restored is None and chain.kills:
                # It did nothing; what comes back next is what the one before it had done.
                kill.done = chain.kills[-1].done
            chain.kills.append(kill)
        else:
            victim = self.nursery.start(arguments, folder / "log")
        victim.finish()
        self._came_back(chain, victim)
        left = sorted(path.name for path in backup.iterdir())
        if left:
            raise FaultError(f"the run that ended left {left} in its backup folder")
        chain.result = load(out)

    def _strike(self, victim, target, backup, rng):
        """Kill a process soon after a step, or in a save; `None` if it ended before."""
        if not victim.wait_for(target):
            if victim.process.returncode != 0:
                victim.finish()
            return None
        if backup is None:
            time.sleep(rng.uniform(0.0, 0.03))
        else:
            victim.wait_for_file(unfinished(backup, victim))
            time.sleep(rng.choice([0.0, rng.uniform(0.0, 0.004)]))
        if not victim.kill():
            return None
        return Kill(aimed=backup is not None, inside=False, done=victim.done)

    def _came_back(self, chain, victim):
        """Note what the process restored beside the kill before it."""
        if not chain.kills or victim.restored is None:
            return
        kill = chain.kills[-1]
        if kill.restored is None:
            kill.restored = victim.restored
        if kill.lost < 0:
            raise FaultError(f"restored step {kill.restored}, where only {kill.done} were done")


def unfinished(backup, victim):
    """Give the path that a process writes a backup to before it renames it."""
    return backup / f".backup.{victim.process.pid}.aside.npz"


def load(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def differing(result, wanted):
    """Give the names of arrays that are not the same, bit for bit."""
    return [
        name
        for name in sorted(set(result) | set(wanted))
        if name not in result
        or name not in wanted
        or result[name].dtype != wanted[name].dtype
        or result[name].shape != wanted[name].shape
        or result[name].tobytes() != wanted[name].tobytes()
    ]


def quarter(kills):
    return -(-kills // 4)


def run_all(killer, regimes, kills, jobs, seed):
    """Give the chains of every regime: as many kills, and inside saves, as are asked for."""
    chains = {regime: [] for regime in regimes}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            wanted = {regime: pool.submit(killer.unbroken, regime) for regime in regimes}
            for attempt in range(4):
                todo = [
                    pool.submit(
                        killer.chain, regime, size, f"{seed}/{attempt}/{place}", wanted[regime]
                    )
                    for regime in regimes
                    for place, size in enumerate(missing(chains[regime], kills))
                ]
                for future in todo:
                    chain = future.result()
                    chains[chain.regime].append(chain)
                    if chain.result is not None:
                        unbroken = wanted[chain.regime].result()
                        chain.differing = differing(chain.result, unbroken)
                        chain.result = {}
                    tell(chain)
            for future in wanted.values():
                with contextlib.suppress(SlowError):
                    future.result()
        finally:
            killer.nursery.close()
            pool.shutdown(cancel_futures=True)
    return chains


def missing(chains, kills):
    """Give the sizes of the chains that are still to be run."""
    if any(chain.fault for chain in chains):
        return []
    done = [kill for chain in chains for kill in chain.kills]
    inside = sum(kill.inside for kill in done)
    # An added kill is aimed at a save, as the first of every chain's three is.
    number = max(kills - len(done), quarter(kills) - inside)
    return [min(CHAIN, number - start) for start in range(0, max(number, 0), CHAIN)]


def tell(chain):
    """Write a line about a chain to standard error."""
    kills = ", ".join(
        f"{kill.done}{'s' if kill.inside else ''}→{kill.restored}" for kill in chain.kills
    )
    state = "exact" if is_exact(chain) else f"NOT EXACT: {chain.fault or chain.differing}"
    state = f"SLOW: {chain.fault}" if chain.is_slow else state
    sys.stderr.write(f"{chain.regime}: killed after step → restored (s: in a save) {kills}; ")
    sys.stderr.write(f"{state}\n")


def is_exact(chain):
    return chain.result is not None and not chain.differing and not chain.fault


def summary(chains, save_freq):
    """Give the figures of one regime."""
    slow, chains = sum(c.is_slow for c in chains), [c for c in chains if not c.is_slow]
    kills = [kill for chain in chains for kill in chain.kills]
    return {
        "kills": len(kills),
        "inside_save": sum(kill.inside for kill in kills),
        "bit_exact": sum(len(chain.kills) for chain in chains if is_exact(chain)),
        "inexact_chains": sum(not is_exact(chain) for chain in chains),
        "lost_steps_max": max((k.lost for k in kills if k.restored is not None), default=0),
        "save_freq": save_freq,
        "slow": slow,
    }


def complaints(report, chains, asked):
    """Give a line for each thing that is not as it must be."""
    for regime, row in report.items():
        known = [chain for chain in chains[regime] if not chain.is_slow]
        if row["slow"]:
            yield f"slow: {row['slow']} chains of {regime} took too long on this machine"
        elif row["kills"] < asked:
            yield f"{regime}: {row['kills']} kills, fewer than {asked}"
        if row["bit_exact"] < row["kills"] or not all(map(is_exact, known)):
            yield f"{regime}: {row['bit_exact']} of {row['kills']} kills bit exact"
        if row["lost_steps_max"] > row["save_freq"] + LATE.get(regime, 0):
            yield f"{regime}: {row['lost_steps_max']} steps lost at save_freq={row['save_freq']}"
        if not row["slow"] and row["inside_save"] < quarter(asked):
            yield f"{regime}: {row['inside_save']} kills inside a save of {quarter(asked)} asked"


def parse(arguments):
    def names(text):
        chosen = text.split(",")
        unknown = set(chosen) - set(REGIMES)
        if unknown:
            raise argparse.ArgumentTypeError(f"{sorted(unknown)} of {list(REGIMES)}")
        return chosen

    def frequency(text):
        if text != "epoch" and not 1 <= int(text) <= STEPS // 4:
            raise argparse.ArgumentTypeError(f"{text}: 1 to {STEPS // 4}, or epoch")
        return text

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="kills per regime")
    parser.add_argument("--regimes", type=names, default=list(REGIMES), help="with commas")
    parser.add_argument("--jobs", type=int, default=2, help="chains side by side")
    parser.add_argument("--save_freq", type=frequency, default="4", help="steps, or epoch")
    parser.add_argument("--seed", default="0", help="of the moments to kill at")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    # A polite end of this process goes through `finally`, which ends the others.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        killer = Killer(options.save_freq, Nursery(pathlib.Path(folder)))
        try:
            chains = run_all(killer, options.regimes, options.kills, options.jobs, options.seed)
        finally:
            # Nothing may stop the removal of the folder.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report = {regime: summary(chains[regime], killer.longest_loss) for regime in options.regimes}
    wrong = list(complaints(report, chains, options.kills))
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        for regime, row in report.items():
            figures = ", ".join(f"{name} {value}" for name, value in row.items())
            sys.stdout.write(f"{regime}: {figures}\n")
    return 1 if any(not line.startswith("slow:") for line in wrong) else 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
