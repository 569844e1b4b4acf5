"""The main job with several seeds, for the table and the picture of the README.

`python benchmarks/quickstart/run.py --json` runs `examples/quickstart.py` as it is, once per seed.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds; the first one's picture is kept.")
flags.DEFINE_string("name", "digits", "Name of the result files.")
flags.DEFINE_multi_string("flag", [], "Flag handed on to the quickstart, such as --epochs=5.")

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def main(argv):
    """Run every seed."""
    del argv
    runs = {}
    for position, seed in enumerate(FLAGS.seeds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(ROOT / "examples" / "quickstart.py"), *FLAGS.flag]
            command += [f"--seed={seed}", f"--run_dir={folder}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"seed {seed}", *done.stdout.splitlines()[-7:], sep="\n", flush=True)
            runs[seed] = json.loads((pathlib.Path(folder) / "results.json").read_text())
            if FLAGS.json and position == 0:
                picture = ROOT / "docs" / f"quickstart_{FLAGS.name}.png"
                shutil.copy(pathlib.Path(folder) / "picture.png", picture)
    if FLAGS.json:
        (HERE / f"{FLAGS.name}.json").write_text(json.dumps(runs, indent=2) + "\n")
        print(json.dumps(runs))


if __name__ == "__main__":
    app.run(main)
