"""Every method on one network, one data set and one recipe, each with as many trials.

`python benchmarks/methods/run.py --json` compares all of them on digits with ResNet-20 in 4 stages;
`--full` takes 5,000 images of CIFAR-10 (or `--dataset`) and ResNet-32: hours. A run that
was ended goes on from the trainings it has finished. `--report` writes table and picture from
the results' file alone. All trainings are by `python -m keras_trgl.compare`.
"""

import json
import pathlib
import shutil
import subprocess
import sys

from absl import app, flags

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from pages import write_tables

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write results.json.")
flags.DEFINE_bool("report", False, "Rewrite table and picture from results.json; train nothing.")
flags.DEFINE_bool("full", False, "The long setting: ResNet-32 on 5,000 images.")
flags.DEFINE_string("dataset", "", "Data set in place of the setting's own.")
flags.DEFINE_string("data_dir", "", "Folder of the data.")
flags.DEFINE_integer("stages", 4, "Number of stages, K.", lower_bound=1)
flags.DEFINE_integer("seeds", 3, "Reported trainings of each method.", lower_bound=1)
flags.DEFINE_integer("trials", 3, "Trials of each method.", lower_bound=1)
flags.DEFINE_integer("epochs", 20, "Epochs of every training.", lower_bound=1)
flags.DEFINE_integer("limit", -1, "Training images; -1 for the setting's own, 0 for all.")
flags.DEFINE_string("network", "", "Network in place of the setting's own.")
flags.DEFINE_integer("jobs", 2, "Trainings side by side.", lower_bound=1)
flags.DEFINE_list("methods", [], "These alone; the default is all that there are.")
flags.DEFINE_string("work_dir", "runs/methods", "Folder with a file of every finished training.")
flags.DEFINE_string("results", "", "Folder for results.json and README.md; the default is here.")
flags.DEFINE_string(
    "label",
    "",
    "Name of the results' file, table and picture, where they are not the setting's own.",
)
flags.DEFINE_bool("picture", True, "Put the picture into docs.")

ALL = (
    *("vangl", "trgl", "pred_sim", "dgl", "info_pro", "info_pro_l", "aug_local"),
    *("trgl+dgl", "trgl+info_pro", "end_to_end"),
)
LATE = {"ddg": "DDG", "features_replay": "FeaturesReplay", "dni": "DNI"}
"""Methods with a late or a synthetic gradient, where the package has them."""


def wanted():
    """Give the names of the methods."""
    if FLAGS.methods:
        return FLAGS.methods
    import keras_trgl as trgl

    return [*ALL, *(name for name, kind in LATE.items() if hasattr(trgl.methods, kind))]


def compare(folder):
    """Compare, and give the report."""
    dataset, network = ("cifar10", "resnet32") if FLAGS.full else ("digits", "resnet20")
    limit = (5000 if FLAGS.full else 0) if FLAGS.limit < 0 else FLAGS.limit
    shared = ("stages", "seeds", "trials", "epochs", "jobs")
    settings = {
        "methods": ",".join(wanted()),
        "dataset": FLAGS.dataset or dataset,
        "network": FLAGS.network or network,
        "limit": limit,
        "batch_size": 64 if FLAGS.full else 32,
        "out": folder,
        **{name: FLAGS[name].value for name in shared},
    }
    if FLAGS.data_dir:
        settings["data_dir"] = FLAGS.data_dir
    called([f"--{name}={value}" for name, value in settings.items()])
    return json.loads((folder / "results.json").read_text())


def called(arguments):
    """Run the command that compares; what it says goes to standard error."""
    command = [sys.executable, "-m", "keras_trgl.compare", *arguments]
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode:
        sys.exit(done.returncode)


def show(folder, page):
    """Put the table into the README, and the picture where it belongs."""
    table = (folder / "table.md").read_text(encoding="utf-8").strip()
    write_tables(page, {FLAGS.label or "methods": table})
    if FLAGS.picture:
        own = f"_{FLAGS.label}" if FLAGS.label else ""
        shutil.copyfile(folder / "picture.png", ROOT / "docs" / f"methods{own}.png")


def main(argv):
    """Compare, or report what was compared."""
    del argv
    here = pathlib.Path(FLAGS.results) if FLAGS.results else HERE
    folder, path = pathlib.Path(FLAGS.work_dir), here / f"{FLAGS.label or 'results'}.json"
    folder.mkdir(parents=True, exist_ok=True)
    if FLAGS.report:
        called([f"--report={path}", f"--out={folder}"])
        report = json.loads(path.read_text())
    else:
        report = compare(folder)
    if FLAGS.json and not FLAGS.report:
        path.write_text(json.dumps(report, indent=2) + "\n")
    if FLAGS.json or FLAGS.report:
        show(folder, here / "README.md")
    if FLAGS.json:
        print(json.dumps(report))


if __name__ == "__main__":
    app.run(main)
