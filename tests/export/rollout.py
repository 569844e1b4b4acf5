"""Exports under the eyes of a poller, with exporters killed at random moments.

`python tests/export/rollout.py --exports=50 --kills=20` runs a poller that looks at the base
folder every 2 ms, as a server does, and loads each version as soon as it sees it. Exporters
publish versions; each of the first ones is killed at a random moment of an export, the last one
makes `--exports` versions. Each version seen must load, hold every file and answer every
signature as it should. After each kill the versions are those from before, or one more, whole;
what is left of the killed export is hidden from servers, and the next export removes it.

The last line is {"published": …, "loaded": …, "kills": …, "inside_an_export": …}; the exit code
is 1 if something does not hold.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
LIMIT = 600.0
"""Seconds after which the whole counts as hung."""


def tell(line):
    """Write a line that another process waits for."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def export(base, count):
    """Publish versions, and tell each begin and end."""
    import keras

    from keras_trgl import GreedyModel
    from keras_trgl.export import Inputs, Outputs, export_serving

    layers = [[keras.layers.Dense(4, activation="relu")] for _ in range(3)]
    model = GreedyModel(layers, [keras.layers.Dense(5) for _ in range(3)], "vangl", seed=0)
    model.build((None, 64))
    for _ in range(count):
        tell("begin")
        report = export_serving(
            model,
            base,
            inputs=Inputs("uint8", lambda x: x / 255.0),
            outputs=Outputs(thresholds=0.3, class_names=list("abcde")),
            verbose=0,
        )
        tell(f"published {report.version}")


def poll(base):
    """Load every version that appears, until the file `stop` does; tell what is wrong."""
    import numpy as np
    import tensorflow as tf

    seen, rows = {}, tf.constant(np.arange(64, dtype="uint8")[None])
    first = None
    while not (base.parent / "stop").exists() or set(numbers(base)) - set(seen):
        for version in set(numbers(base)) - set(seen):
            try:
                loaded = tf.saved_model.load(str(base / str(version)))
                names = set(loaded.signatures)
                logits = loaded.signatures["all_exits"](inputs=rows)["logits_3"].numpy()
                for name in names:
                    loaded.signatures[name](inputs=rows)
                first = (names, logits) if first is None else first
                whole = names == first[0] and np.allclose(logits, first[1], atol=1e-5)
                seen[version] = "" if whole and "confident_exit" in names else f"has {names}"
            except Exception as error:  # noqa: BLE001 (any failure is a finding)
                seen[version] = repr(error)
        time.sleep(0.002)
    tell(json.dumps(seen))


def numbers(base):
    """Give the versions that a server would see."""
    return [int(one.name) for one in base.iterdir() if one.name.isdecimal()]


def start(*arguments):
    """Start this script in another process."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def wait_for(process, word):
    """Read lines until one begins with a word; the line, or nothing if the process ended."""
    for line in process.stdout:
        if line.startswith(word):
            return line
    return ""


def killed_export(base, rng):
    """Kill an exporter at a random moment of its work; tell whether an export was going on."""
    before = set(numbers(base))
    exporter = start("--export", base, "--exports", 1000)
    if not wait_for(exporter, "begin"):
        raise RuntimeError("The exporter failed.")
    begin = time.monotonic()
    # Exports follow one another, so any moment lies inside one or just after.
    time.sleep(rng.uniform(0.0, 1.5))
    os.kill(exporter.pid, signal.SIGKILL)
    told = [line for line in exporter.stdout if line.startswith(("published", "begin"))]
    exporter.wait()
    exporter.stdout.close()
    published = {int(line.split()[1]) for line in told if line.startswith("published")}
    new = set(numbers(base)) - before
    # A version may have been published and not told yet.
    assert published <= new, (published, new)
    assert len(new) <= len(published) + 1, (published, new)
    left = [one.name for one in base.iterdir() if not one.name.isdecimal()]
    assert all(name.startswith(".") or name == "models.config" for name in left), left
    sys.stderr.write(f"killed after {time.monotonic() - begin:.2f} s, left {left}" + "\n")
    return any(name.startswith(".writing-") for name in left)


def rollout(exports, kills, seed):
    """Run poller and exporters; give what they did, and what went wrong."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder) / "net"
        base.mkdir()
        running = [start("--poll", base)]
        try:
            inside = sum(killed_export(base, rng) for _ in range(kills))
            running.append(start("--export", base, "--exports", exports))
            told = [line for line in running[1].stdout if line.startswith("published")]
            code = running[1].wait(LIMIT)
            left = [one.name for one in base.iterdir() if one.name.startswith(".")]
            (base.parent / "stop").touch()
            seen = json.loads(wait_for(running[0], "{"))
            running[0].wait(LIMIT)
        finally:
            for process in running:
                process.kill()
                process.wait()
                process.stdout.close()
        wrong = {version: words for version, words in seen.items() if words}
        if code or len(told) != exports or left or set(map(int, seen)) != set(numbers(base)):
            wrong["run"] = f"code {code}, {len(told)} published, left {left}, saw {len(seen)}"
        report = {"published": len(numbers(base)), "loaded": len(seen) - len(wrong)}
    return {**report, "kills": kills, "inside_an_export": inside}, wrong


def main():
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exports", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--poll", type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.export:
        return export(given.export, given.exports)
    if given.poll:
        return poll(given.poll)
    report, wrong = rollout(given.exports, given.kills, given.seed)
    for version, words in wrong.items():
        sys.stderr.write(f"{version}: {words}" + "\n")
    tell(json.dumps(report))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
