"""What the block-wise benchmarks share: trainings in processes of their own, choices, tables.

`python benchmarks/blockwise.py SETTINGS FILE` trains one network by the JSON in SETTINGS, on one
thread, and writes what came out to FILE. `train_all` does so for a list of settings, several at a
time, and leaves out those that are in the work folder already.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags
from pages import interval, rows, write_tables

FLAGS = flags.FLAGS
REGIMES = ("sequential", "multi_lap", "parallel")
METHODS = {"vangl": "VanGL", "trgl": "TRGL"}
MULTIPLIER = {"multiplier": "TRGL, multipliers"}
TITLES = METHODS | MULTIPLIER
HELD_OUT = 0.2
ENOUGH = 0.95
"""Training accuracy under which a network counts as not fitted."""

fresh = set()
"""Files that this process has made; `--fresh` makes each once."""

flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write results.json.")
flags.DEFINE_bool("report", False, "Rewrite tables and picture from results.json; train nothing.")
flags.DEFINE_bool("fresh", False, "Train again what is in the work folder already.")
flags.DEFINE_string("work_dir", "runs/blockwise", "Folder with a JSON of every finished training.")
flags.DEFINE_integer("jobs", 2, "Trainings side by side, one thread each.", lower_bound=1)
flags.DEFINE_string("dataset", "fashion_mnist", "Data set.")
flags.DEFINE_string(
    "label", "", "Name of the results' file, of tables and picture; the default is the data set's."
)
flags.DEFINE_string("data_dir", "", "Folder of JPEG copies, train/<class> and test/<class>.")
flags.DEFINE_integer("width", 32, "Width of the first half of the blocks.")
flags.DEFINE_integer("blocks", 10, "Blocks of the network, one per stage.", lower_bound=2)
flags.DEFINE_enum(
    "downsampling",
    "subsample",
    ["subsample", "average"],
    "What halves the resolution of blockwise at its midpoint: the published 1x1 convolution of "
    "stride 2, or one after an average over 2x2 positions.",
)
flags.DEFINE_string("network", "blockwise", "Network: blockwise, or resnetN cut into stages.")
flags.DEFINE_integer(
    "stages", 4, "Stages of a resnetN: those at which rate and tau are chosen.", lower_bound=1
)
flags.DEFINE_integer("epochs", 10, "Epochs of every stage; those of multi-lap over all laps.")
flags.DEFINE_integer("growth", 0, "Epochs, in turn, that each stage has more than the one before.")
flags.DEFINE_integer("laps", 5, "Laps of multi-lap training; must divide the epochs.")
flags.DEFINE_list("batch", ["32"], "Batch size; `REGIME:SIZE` for one regime.")
flags.DEFINE_list("rates", ["0.003", "0.01"], "First rates to choose from; `REGIME:RATE` for one.")
flags.DEFINE_list(
    "schedule",
    ["cosine"],
    "How the rate of stages goes on, cosine or constant; `REGIME:SCHEDULE` for one regime.",
)
flags.DEFINE_list(
    "taus", ["0.1", "1", "10", "100"], "Values of tau to choose from; `A:B` is A in the first half."
)
flags.DEFINE_list(
    "hs",
    [],
    "Steps of the multiplier to choose from, `REGIME:H` for one regime; where there are some, the "
    "multiplier scheme trains too.",
)
flags.DEFINE_integer("s", 50, "Batches between two steps of the multiplier.", lower_bound=1)
flags.DEFINE_list("choice_seeds", ["100"], "Seeds of tau's choice, the first of the rate's.")
flags.DEFINE_integer("choice_size", 1200, "Images of the choices, of which some are held out.")
flags.DEFINE_float("held_out", HELD_OUT, "Share of them that is held out.")
flags.DEFINE_list(
    "only", [], "These regimes alone, of sequential, multi_lap, parallel, end_to_end."
)


def wanted(regime):
    """Tell whether `--only` leaves a regime in."""
    return not FLAGS.only or regime in FLAGS.only


def tau_of(text):
    """Give tau as a float, or as text where the halves differ."""
    return str(text) if ":" in str(text) else float(text)


def settings(regime, method, seed, size, rate, tau=None, held_out=0.0, h=None, **changed):
    """Give what determines one training; `changed` overrides what the flags say."""
    # What is as it was has no word in the name of a finished training's file.
    (schedule,) = values_of(FLAGS.schedule, regime)
    (batch,) = values_of(FLAGS.batch, regime)
    more = {"schedule": schedule} if schedule != "cosine" else {}
    if h is not None:
        more |= {"h": float(h), "s": FLAGS.s}
    if FLAGS.growth and regime == "sequential":
        more["growth"] = FLAGS.growth
    if FLAGS.downsampling != "subsample":
        more["downsampling"] = FLAGS.downsampling
    if FLAGS.data_dir:
        more["data_dir"] = FLAGS.data_dir
    if FLAGS.network == "blockwise":
        network = {"blocks": FLAGS.blocks, "width": FLAGS.width}
    else:
        network = {"network": FLAGS.network, "stages": FLAGS.stages}
    return {
        "dataset": FLAGS.dataset,
        **network,
        "regime": regime,
        "laps": FLAGS.laps if regime == "multi_lap" else 1,
        "method": method,
        "tau": None if tau is None else tau_of(tau),
        "seed": int(seed),
        "size": int(size),
        "held_out": held_out,
        "epochs": FLAGS.epochs,
        "batch": int(batch),
        "rate": float(rate),
        **more,
        **changed,
    }


def file_of(setting):
    """Give the file of a training, named by its settings."""
    named = {key: value for key, value in setting.items() if key != "data_dir"}
    words = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in named.items()]
    return pathlib.Path(FLAGS.work_dir) / ("_".join(words) + ".json")


def train_all(wished):
    """Train what is not there yet, `--jobs` at a time, and give the results in order."""
    files = [file_of(setting) for setting in wished]
    missing = {
        file: setting
        for file, setting in zip(files, wished, strict=True)
        if not file.exists() or (FLAGS.fresh and file not in fresh)
    }
    pathlib.Path(FLAGS.work_dir).mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool:
        waiting = {pool.submit(in_process, s, f): (s, f) for f, s in missing.items()}
        for count, done in enumerate(concurrent.futures.as_completed(waiting), 1):
            setting, file = waiting[done]
            if done.exception():
                pool.shutdown(wait=True, cancel_futures=True)
                raise done.exception()
            fresh.add(file)
            result = json.loads(file.read_text())
            last = {part: f"{100 * result[part][-1]:.1f}" for part in result["parts"]}
            print(
                f"{count}/{len(missing)} {setting['regime']} {setting['method']} "
                f"tau={setting['tau']} rate={setting['rate']} seed={setting['seed']} "
                f"size={setting['size']}: {last}, {result['seconds']:.0f} s",
                flush=True,
            )
    return [json.loads(file.read_text()) for file in files]


def in_process(setting, file):
    """Train in a process of its own."""
    command = [sys.executable, __file__, json.dumps(setting), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{setting} failed:\n{done.stderr[-3000:]}")


def choose(regime, method, name, values, fixed):
    """Give the settings that a choice compares: every value, every seed of the choice."""
    seeds = FLAGS.choice_seeds[:1] if name == "rate" else FLAGS.choice_seeds
    held_out = FLAGS.held_out
    return [
        settings(
            regime, method, seed, FLAGS.choice_size, held_out=held_out, **{**fixed, name: value}
        )
        for value in map(tau_of if name == "tau" else float, values)
        for seed in seeds
    ]


def compare(asked, results, name):
    """Give the value of the best mean validation accuracy of the last depth, and all means.

    Of equal rates the one that fits the training images better wins; of equal tau or h the larger,
    the weaker regulariser.
    """
    found = {}
    for setting, result in zip(asked, results, strict=True):
        found.setdefault(setting[name], []).append(result)
    means = {
        part: {v: sum(one[part][-1] for one in runs) / len(runs) for v, runs in found.items()}
        for part in ("validation", "train")
    }
    second = means["train"] if name == "rate" else {value: weakest(value) for value in found}
    return {
        "chosen": max(found, key=lambda value: (means["validation"][value], second[value])),
        "validation_accuracy": {str(v): mean for v, mean in means["validation"].items()},
        "train_accuracy": {str(v): mean for v, mean in means["train"].items()},
    }


def weakest(tau):
    """Give the larger tau of the halves."""
    return max(map(float, str(tau).split(":")))


def values_of(flag, regime):
    """Give a flag's values for a regime: its own, `REGIME:VALUE`, or else those for all."""
    own = [value.split(":") for value in flag if ":" in value]
    return [value for name, value in own if name == regime] or [v for v in flag if ":" not in v]


def make_choices(regimes):
    """Choose rates with VanGL, then tau, then the multiplier's h, on held-out training images.

    Multi-lap training takes what is chosen for sequential training.
    """
    tuned = [r for r in ("sequential", "parallel") if r in regimes]
    if "multi_lap" in regimes and "sequential" not in tuned:
        tuned.append("sequential")
    methods = dict.fromkeys(tuned, "vangl")
    if "end_to_end" in regimes:
        methods["end_to_end"] = "end_to_end"
    offers = {r: values_of(FLAGS.rates, r) for r in methods}
    rates = given_or_chosen("rate", methods, offers, {r: {} for r in methods})
    fixed = {r: {"rate": rates[r]["chosen"]} for r in tuned}
    taus = given_or_chosen(
        "tau", dict.fromkeys(tuned, "trgl"), dict.fromkeys(tuned, FLAGS.taus), fixed
    )
    fixed = {r: {**fixed[r], "tau": taus[r]["chosen"]} for r in tuned}
    offers = {r: hs for r in tuned if (hs := values_of(FLAGS.hs, r))}
    steps = given_or_chosen("h", dict.fromkeys(offers, "multiplier"), offers, fixed)
    for found in (rates, taus, steps):
        if "multi_lap" in regimes and "sequential" in found:
            found["multi_lap"] = found["sequential"]
    return {"rate": rates, "tau": taus} | ({"h": steps} if steps else {})


def given_or_chosen(name, methods, offers, fixed):
    """Give what a setting is in every regime: what stands alone is given, the rest is chosen.

    Args:
        name: "rate", "tau" or "h".
        methods: dict of regime to the method that it is chosen with.
        offers: dict of regime to the values.
        fixed: dict of regime to what was chosen before.
    """
    asked = {
        regime: choose(regime, method, name, offers[regime], fixed[regime])
        for regime, method in methods.items()
        if len(offers[regime]) > 1
    }
    train_all([one for group in asked.values() for one in group])
    value = tau_of if name == "tau" else float
    return {
        r: compare(asked[r], train_all(asked[r]), name)
        if r in asked
        else {"chosen": value(offers[r][0])}
        for r in methods
    }


def final_settings(regime, method, seed, size, choices, **changed):
    """Give the settings of a reported training; `changed` overrides what the flags say."""
    tau = choices["tau"][regime]["chosen"] if method in ("trgl", "multiplier") else None
    h = choices["h"][regime]["chosen"] if method == "multiplier" else None
    rate = choices["rate"][regime]["chosen"]
    return settings(regime, method, seed, size, rate, tau, h=h, **changed)


def setup(regimes):
    """Give the settings that all trainings share, and those that regimes have of their own."""
    network = ("blocks", "width") if FLAGS.network == "blockwise" else ("network", "stages")
    network += ("downsampling",) if FLAGS.downsampling != "subsample" else ()
    names = ("dataset", *network, "epochs", "growth", "laps", "choice_size")
    return {
        **{name: getattr(FLAGS, name) for name in names},
        "choice_seeds": [int(seed) for seed in FLAGS.choice_seeds],
        "held_out": FLAGS.held_out,
        "batch": {regime: int(values_of(FLAGS.batch, regime)[0]) for regime in regimes},
        "schedule": {regime: values_of(FLAGS.schedule, regime)[0] for regime in regimes},
        "jpeg_copies": bool(FLAGS.data_dir),
    }


def by_regime(values, unit):
    """Give a setting of the regimes as text: once where it is the same for all."""
    if len(set(values.values())) == 1:
        return f"{unit} {next(iter(values.values()))}"
    return ", ".join(f"{unit} {v} ({r.replace('_', '-')})" for r, v in values.items())


def data_of(setup):
    """Give the name of the data set, and whether its images are copies."""
    return setup["dataset"] + (" (JPEG copies)" if setup.get("jpeg_copies") else "")


def rates_of(choices):
    """Give the first rates by regime."""
    found = choices["rate"].items()
    return ", ".join(f"{r.replace('_', '-')} {c['chosen']:g}" for r, c in found)


def stopped(rows):
    """Say how many trainings of some rows of results did not go well."""
    count = sum(note is not None for row in rows for note in row["diverged"])
    return f"Trainings stopped by a loss that was not finite: {count}."


def text(values, sign=""):
    """Give mean ± half-width as text."""
    mean, half = interval(values)
    return f"{mean:{sign}.2f}" + ("" if half != half else f" ± {half:.2f}")


def choice_table(choices, name, label):
    """Give held-out and training accuracies of a choice; the chosen value is bold."""
    found = {r: c for r, c in choices[name].items() if r != "multi_lap"}
    offers = [c.get("validation_accuracy", [str(c["chosen"])]) for c in found.values()]
    values = list(dict.fromkeys(value for offer in offers for value in offer))
    body = []
    for regime, choice in found.items():
        cells = []
        for value in values:
            if value not in choice.get("validation_accuracy", {}):
                given = "validation_accuracy" not in choice and tau_of(value) == choice["chosen"]
                cells.append("given" if given else "")
                continue
            held, seen = choice["validation_accuracy"][value], choice["train_accuracy"][value]
            cell = f"{100 * held:.1f} ({100 * seen:.1f})"
            cells.append(f"**{cell}**" if tau_of(value) == choice["chosen"] else cell)
        body.append([regime.replace("_", "-"), *cells])
    shown = [" then ".join(f"{float(part):g}" for part in value.split(":")) for value in values]
    return rows(["", *(f"{label} = {value}" for value in shown)], body)


def choice_tables(choices):
    """Give a table of every setting that was chosen; what was given needs none."""
    return {
        name: choice_table(choices, name, label)
        for name, label in {"rate": "rate", "tau": "τ", "h": "h"}.items()
        if any("validation_accuracy" in one for one in choices.get(name, {}).values())
    }


def unfitted(last_accuracies):
    """Give a sentence on whether end-to-end training fitted its training set."""
    low = min(last_accuracies)
    count = sum(value < ENOUGH for value in last_accuracies)
    if not count:
        return f"End-to-end training fits its training images: at least {100 * low:.1f}%."
    return (
        f"**{count} of {len(last_accuracies)} end-to-end trainings stay under "
        f"{100 * ENOUGH:.0f}% on their own training images** (lowest {100 * low:.1f}%)."
    )


def results_name():
    """Give the name of the results' file."""
    return f"{label()}.json" if label() else "results.json"


def label():
    """Give what names the results of other data or settings than the benchmark's own."""
    return FLAGS.label or ("" if FLAGS.dataset == "fashion_mnist" else FLAGS.dataset)


def labelled(found):
    """Give tables by the marks of these results.

    Args:
        found: dict of tables.
    """
    return {f"{label()} {key}": table for key, table in found.items()} if label() else found


def run(measure, tables, here):
    """Measure, or read what was measured; write results and tables, and print, as the flags say.

    Args:
        measure: function that gives the report.
        tables: function of the report that gives the Markdown of every mark in the README.
        here: folder of the benchmark.
    """
    path = here / results_name()
    if FLAGS.report:
        report = json.loads(path.read_text())
    else:
        report = measure()
        for name, table in tables(report).items():
            print(f"\n{name}\n{table}")
    if FLAGS.json:
        path.write_text(json.dumps(report, indent=2) + "\n")
    if FLAGS.json or FLAGS.report:
        write_tables(here / "README.md", tables(report))
    if FLAGS.json:
        print(json.dumps(report))
    return report


def blocks_of(setting, data):
    """Give the blocks of a training's network, and how many of them each stage has."""
    import keras_trgl as trgl

    make = trgl.architectures
    if "network" not in setting:
        blocks = make.blockwise_resnet(
            data.input_shape,
            setting["blocks"],
            setting["width"],
            gain=setting.get("gain", 0.05),
            weight_decay=1e-4,
        )
        if setting.get("downsampling") == "average":
            half = len(blocks) // 2
            blocks[half] = averaging(blocks[half])
        return blocks, [1] * len(blocks)
    depth = int(setting["network"].removeprefix("resnet"))
    blocks = make.resnet(depth, data.input_shape, weight_decay=1e-4, separate_stem=True)
    if len(blocks) % setting["stages"]:
        raise ValueError(
            f"{setting['network']} has a stem and blocks, {len(blocks)} together. Received: "
            f"{setting['stages']} stages, which do not divide them."
        )
    return blocks, [len(blocks) // setting["stages"]] * setting["stages"]


def averaging(block):
    """Give the block at the midpoint with an average over 2x2 positions before its convolution.

    Args:
        block: `ResidualBlock`, whose entry is a 1x1 convolution of stride 2, not built.
    """
    import keras

    import keras_trgl as trgl

    (conv,) = block.entry
    config = conv.get_config() | {"strides": (1, 1)}
    pool = keras.layers.AveragePooling2D(2, data_format=config["data_format"])
    entry = [pool, keras.layers.Conv2D.from_config(config)]
    return trgl.layers.ResidualBlock(block.branch, entry=entry)


def make_model(setting, data):
    """Give the compiled network of a training."""
    import keras

    import keras_trgl as trgl

    epochs, regime = setting["epochs"], trgl.regimes.Parallel()
    blocks, sizes = blocks_of(setting, data)
    half = len(sizes) // 2
    if setting["regime"] == "sequential":
        own = [epochs + setting.get("growth", 0) * k for k in range(len(sizes))]
        regime = trgl.regimes.Sequential(epochs=own, cache="memory")
    elif setting["regime"] == "multi_lap":
        regime = trgl.regimes.MultiLap(epochs=epochs, num_laps=setting["laps"], cache="memory")
    method, tau = setting["method"], setting["tau"]
    if isinstance(tau, str):
        early, late = map(float, tau.split(":"))
        tau = [early] * half + [late] * (len(sizes) - half)
    model = trgl.GreedyModel.from_blocks(
        blocks,
        sizes,
        trgl.heads.ConvHead(units=data.num_classes, gain=0.05, weight_decay=1e-4),
        method=method if tau is None else trgl.methods.TRGL(tau=tau),
        regime=regime,
        seed=setting["seed"],
    )
    # Every stage counts its own steps: each stage's rate falls over that stage's epochs.
    steps = epochs * -(-len(data.x_train) // setting["batch"])
    rate = keras.optimizers.schedules.CosineDecay(setting["rate"], steps)
    if setting.get("schedule") == "constant":
        rate = setting["rate"]
        if method == "end_to_end":
            # The published steps, at the same shares of training.
            places = [int(share * steps) for share in (0.4, 160 / 300, 200 / 300)]
            rates = [rate * 0.2**n for n in range(4)]
            rate = keras.optimizers.schedules.PiecewiseConstantDecay(places, rates)
    model.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(setting):
    """Train one network and give its accuracies by depth.

    Where images are held out, it is judged on them and the test part is not touched.
    """
    import keras_trgl as trgl

    folder = setting.get("data_dir")
    data = trgl.datasets.load("folder" if folder else setting["dataset"], data_dir=folder)
    data = data.subset(setting["size"], seed=setting["seed"])
    if setting["held_out"]:
        data = data.hold_out(setting["held_out"], seed=setting["seed"])
    model = make_model(setting, data)
    in_turn = setting["regime"] in ("sequential", "multi_lap")
    callbacks = []
    if setting["method"] == "multiplier":
        callbacks = [trgl.callbacks.MultiplierUpdate(h=setting["h"], s=setting["s"])]
    begin, diverged = time.perf_counter(), None
    try:
        model.fit(
            data.stream(setting["batch"], seed=setting["seed"], augment=False),
            epochs=None if in_turn else setting["epochs"],
            callbacks=callbacks,
            verbose=0,
        )
    except ValueError as error:
        if "finite" not in str(error):
            raise
        # The weights are as before that step: a rate too high is judged by what it reached.
        diverged = str(error)
    trained = time.perf_counter()
    parts = ["train", "validation" if setting["held_out"] else "test"]
    accuracy = {}
    for part in parts:
        logs = model.evaluate(*data.arrays(part), batch_size=200, return_dict=True, verbose=0)
        depths = range(1, model.num_stages + 1)
        accuracy[part] = [float(logs[f"stage_{k}_accuracy"]) for k in depths]
    seconds = {"fit_seconds": trained - begin, "evaluate_seconds": time.perf_counter() - trained}
    inside = "network" not in setting and setting["method"] != "end_to_end"
    if inside and not setting["held_out"]:
        # Of the sample, not of all: what explains accuracies need not be as sharp as they are.
        accuracy["seen_inside"] = seen_inside(model, data.arrays("test"))
    return {**accuracy, "parts": parts, "diverged": diverged, **seconds}


def seen_inside(model, data):
    """Give what diagnostics see at every depth, on a sample of images not trained on."""
    import keras_trgl as trgl

    tables = [
        trgl.diagnostics.separability(model, data),
        trgl.diagnostics.transport(model, data),
        trgl.diagnostics.monge_gap(model, data),
    ]
    # JSON has no number for what there is none of, such as the first stage's displacement.
    return {
        name: [None if value != value else float(value) for value in values]
        for table in tables
        for name, values in table.columns.items()
    }


def worker(argument, name):
    """Do one training in this process."""
    begin = time.perf_counter()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    setting = json.loads(argument)
    result = {"settings": setting, **train(setting)}
    result["cpu_seconds"] = time.process_time()
    result["seconds"] = time.perf_counter() - begin
    file = pathlib.Path(name)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(result, indent=2) + "\n")
    part.replace(file)


if __name__ == "__main__":
    worker(*sys.argv[1:])
