"""Predicted bytes of plans against the allocator's peak, each in fresh processes."""

import json
import os
import pathlib
import statistics
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_integer("runs", 3, "Fresh processes per plan.", lower_bound=1)
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")
flags.DEFINE_list("only", [], "Networks to measure; all when empty.")
flags.DEFINE_string("network", "", "Measure this network in this process.")
flags.DEFINE_float("share", 1.0, "Budget, as a share of what end-to-end training takes.")

NETWORKS = {
    "resnet": (1.0, 0.6, 0.35),
    "convolutions": (1.0, 0.6, 0.35),
    # Weights and slots are half of it.
    "dense": (1.0, 0.8, 0.7),
}
"""Name: budgets, as shares of what end-to-end training is predicted to take."""


def network(name):
    """Give blocks, shape of the data, batch size, optimizer and method."""
    import keras

    import keras_trgl as trgl

    layers = keras.layers
    if name == "resnet":
        blocks, shape = trgl.architectures.resnet(20, (32, 32, 3)), (32, 32, 3)
        return blocks, shape, 64, keras.optimizers.SGD(0.002, momentum=0.9), "trgl"
    if name == "dense":
        inner = lambda: [layers.Dense(1024, activation="relu"), layers.Dense(256)]  # noqa: E731
        blocks = [layers.Dense(256), *[trgl.layers.ResidualBlock(inner()) for _ in range(8)]]
        return blocks, (64,), 512, keras.optimizers.AdamW(1e-4), "trgl"
    blocks = []
    for width in (16, 32, 64):
        for place in range(3):
            row = [layers.Conv2D(width, 3, padding="same"), trgl.layers.BatchNormalization()]
            row += [layers.ReLU(), *([layers.MaxPooling2D(2)] if place == 2 else [])]
            blocks.append(keras.Sequential(row))
    return blocks, (32, 32, 3), 64, keras.optimizers.SGD(0.002, momentum=0.9), "vangl"


def measure(name, share):
    """Plan and train in this process, and give predicted and measured bytes."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_trgl as trgl

    blocks, shape, batch_size, optimizer, method = network(name)
    options = {"head": trgl.heads.LinearHead(10), "optimizer": optimizer, "method": method}
    options["input_shape"] = shape
    whole = trgl.plan(blocks, batch_size, 2**40, **options).weighed[0].predicted_bytes
    plan = trgl.plan(blocks, batch_size, int(share * whole), **options)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model = plan.make(loss, metrics=["accuracy"], seed=0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, *shape)).astype("float32")
    y = keras.utils.to_categorical(rng.integers(0, 10, batch_size), 10).astype("float32")
    data = tf.data.Dataset.from_tensors((x, y)).repeat(4)
    peak = trgl.measure_peak(lambda: model.fit(data, verbose=0))
    return {
        "measured": peak,
        "predicted": plan.predicted_bytes,
        "budget": plan.max_bytes,
        "plan": [list(plan.stage_sizes), plan.micro_batches, plan.remat],
    }


def in_fresh_process(name, share):
    """Give what `measure` gives in a process of its own."""
    command = [sys.executable, __file__, f"--network={name}", f"--share={share}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv):
    """Measure every plan, or one in this process."""
    del argv
    if FLAGS.network:
        print(json.dumps(measure(FLAGS.network, FLAGS.share)))
        return
    results = {}
    for name in FLAGS.only or NETWORKS:
        for share in NETWORKS[name]:
            runs = [in_fresh_process(name, share) for _ in range(FLAGS.runs)]
            peak = int(statistics.median(run["measured"] for run in runs))
            row = {**runs[0], "measured": peak, "ratio": runs[0]["predicted"] / peak}
            row["spread"] = [run["measured"] for run in runs]
            results[f"{name}_{share}"] = row
            print(
                f"{name:13} {share:4}  predicted {row['predicted'] / 2**20:6.1f} MiB  measured "
                f"{peak / 2**20:6.1f} MiB  ratio {row['ratio']:.3f}  {row['plan']}",
                flush=True,
            )
    if FLAGS.json:
        path = pathlib.Path(FLAGS.results or pathlib.Path(__file__).with_name("results.json"))
        path.write_text(json.dumps(results, indent=2) + "\n")
        print(json.dumps(results))


if __name__ == "__main__":
    app.run(main)
