r"""Compare methods on one network, one data set and one recipe.

    python -m keras_trgl.compare
    python -m keras_trgl.compare --methods=vangl,trgl,dgl,trgl+dgl --network=resnet32 \
        --dataset=cifar10 --epochs=60 --trials=5 --seeds=5 --out=runs/cifar10

Each method gets as many trials for its rate and its own numbers, on held-out training images; then
it is trained on all training images with every seed, and tested once. A folder gets a file of every
training, so that what was ended goes on, the report (JSON), tables (Markdown, CSV) and a picture.
"""

import pathlib
import sys
from typing import Any

from absl import app, flags

from keras_trgl.checks import made_folder
from keras_trgl.compare.report import read_report, write_report
from keras_trgl.compare.runs import Comparison, follow
from keras_trgl.compare.settings import Settings
from keras_trgl.compare.spaces import available

PLAIN = (
    *("network", "dataset", "data_dir", "image_size", "limit", "stages", "split", "seeds"),
    *("epochs", "trials", "batch_size", "weight_decay", "smoothing", "augment"),
)
"""Flags that are settings of the same name."""


def define_flags() -> None:
    """Define the flags of the command."""
    told = Settings(methods=())
    flags.DEFINE_list(
        "methods",
        ["vangl", "trgl", "dgl", "end_to_end"],
        f"What to compare: {', '.join(available())}; trgl+NAME for the energy on top of one.",
    )
    flags.DEFINE_string(
        "network",
        told.network,
        "resnetN, resnet50, 101, 152, vggN, blockwise_resnet; or a .keras file, your own model.",
    )
    flags.DEFINE_string(
        "dataset", told.dataset, "Data set; folder is images of your own, in --data_dir."
    )
    flags.DEFINE_string(
        "data_dir", None, "Folder of the data; images of your own lie in train/CLASS/, test/CLASS/."
    )
    flags.DEFINE_integer("image_size", 0, "Side that images of a folder get; 0 for their own.")
    flags.DEFINE_integer("limit", 0, "Training images that are drawn; 0 for all.")
    flags.DEFINE_integer("stages", told.stages, "Number of stages, K.")
    flags.DEFINE_string("split", told.split, "How blocks are shared among stages: depth, memory.")
    flags.DEFINE_integer("seeds", told.seeds, "Reported trainings of each method.")
    flags.DEFINE_integer("epochs", told.epochs, "Epochs of every training.")
    flags.DEFINE_integer("trials", told.trials, "Trials of each method.")
    flags.DEFINE_integer("batch_size", told.batch_size, "Batch size.")
    flags.DEFINE_list(
        "rates",
        [str(told.low_rate), str(told.high_rate)],
        "Lowest and highest first rate that are tried.",
    )
    flags.DEFINE_float("weight_decay", told.weight_decay, "Coupled decay of blocks and heads.")
    flags.DEFINE_float("smoothing", told.smoothing, "Label smoothing.")
    flags.DEFINE_bool("augment", told.augment, "Crop and flip as the data set has it.")
    flags.DEFINE_bool("measure", True, "Measure memory peaks and step times.")
    flags.DEFINE_integer(
        "jobs", 2, "Trainings side by side, a process each; 1 is in this one.", lower_bound=1
    )
    flags.DEFINE_string("out", "runs/compare", "Folder that gets the results.")
    flags.DEFINE_string("report", None, "A results.json: write its tables and picture, no more.")
    flags.DEFINE_string("order", None, "For processes that this command starts itself.")


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def settings_of(flag: Any) -> Settings:
    """Give the settings that the flags say.

    Raises:
        ValueError: `--rates` are no two numbers.
    """
    try:
        low, high = map(float, flag.rates)
    except ValueError as error:
        raise ValueError(
            f"`--rates` must be two numbers. Received: {','.join(map(str, flag.rates))}. Give the "
            "lowest and the highest, such as --rates=0.003,0.1."
        ) from error
    plain = {name: getattr(flag, name) for name in PLAIN}
    return Settings(methods=tuple(flag.methods), low_rate=low, high_rate=high, **plain)


def main(argv: list[str]) -> None:
    """Compare, or do what another process of this command asks for."""
    flag = flags.FLAGS
    if flag.order:
        follow(pathlib.Path(flag.order))
        return
    if argv[1:]:
        sys.exit(f"All settings are flags. Received: {' '.join(argv[1:])}. Write --name=value.")
    folder = pathlib.Path(flag.out)
    try:
        if flag.report:
            made_folder("--out", folder)
            write_report(read_report(pathlib.Path(flag.report)), folder)
            return
        comparison = Comparison(settings_of(flag), folder, flag.jobs, say)
        made_folder("--out", folder)
        comparison.run(flag.measure)
    except (ValueError, TypeError, ImportError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(f"Ended. Trainings that were done are in {folder}; the same command goes on.")
    say(f"\n{(folder / 'table.md').read_text(encoding='utf-8')}\nEverything: {folder}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
