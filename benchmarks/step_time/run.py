"""Time of a training step, as ratios of interleaved pairs.

`python benchmarks/step_time/run.py --json` times `fit` on ResNet-110, 32x32, batch 64: each pair
runs both sides one after the other, in alternating order, in one process. A ratio is given as the
median over pairs with a 95 % bootstrap interval.
"""

import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import keras_trgl as trgl

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_integer("pairs", 40, "Pairs per ratio.", lower_bound=2)
flags.DEFINE_integer("steps", 1, "Training steps per timing.", lower_bound=1)
flags.DEFINE_integer("depth", 110, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_integer("batch", 64, "Batch size.")
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")

RATIOS = {
    "trgl_k4_even_vs_end_to_end": ("trgl_k4", "end_to_end"),
    "end_to_end_vs_stock_keras": ("end_to_end", "stock_keras"),
    "trgl_vs_vangl": ("trgl_k4", "vangl_k4"),
    "one_stage_vs_keras_fit": ("end_to_end", "keras_fit"),
    "same_vs_same": ("end_to_end", "end_to_end_again"),
}
"""Name: the side above, the side below."""

BOUNDS = {
    "trgl_k4_even_vs_end_to_end": 1.05,
    "end_to_end_vs_stock_keras": 0.85,
    "trgl_vs_vangl": 1.02,
    "one_stage_vs_keras_fit": 1.05,
}


def greedy(method, num_stages, **options):
    """Give a `GreedyModel` on ResNet-110."""
    blocks = trgl.architectures.resnet(FLAGS.depth, (32, 32, 3), **options)
    sizes = trgl.splitting.by_depth(blocks, num_stages)
    head = trgl.heads.ConvHead(units=10)
    return trgl.GreedyModel.from_blocks(blocks, sizes, head, method=method, seed=0)


def make(side):
    """Give the compiled model of one side."""
    model = {
        "trgl_k4": lambda: greedy("trgl", 4),
        "vangl_k4": lambda: greedy("vangl", 4),
        "end_to_end": lambda: greedy("end_to_end", 1),
        "end_to_end_again": lambda: greedy("end_to_end", 1),
        "keras_fit": lambda: greedy("end_to_end", 1).truncate(1),
        # The same graph with Keras's own normalization, trained by Keras's own fit.
        "stock_keras": lambda: stock(),
    }[side]()
    model.compile(
        optimizer=keras.optimizers.SGD(0.002, momentum=0.9),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def stock():
    """Give the plain functional network with `keras.layers.BatchNormalization` everywhere."""
    model = greedy("end_to_end", 1, normalization=keras.layers.BatchNormalization)
    head = model.heads[0]
    features = keras.Input(model.stages[0].compute_output_shape((None, 32, 32, 3))[1:])
    x = features
    for layer in head.layers_in_a_row:
        if isinstance(layer, trgl.layers.BatchNormalization):
            layer = keras.layers.BatchNormalization.from_config(layer.get_config())
        x = layer(x)
    inputs = keras.Input((32, 32, 3))
    body = inputs
    for block in model.stages[0].blocks:
        body = block(body)
    return keras.Model(inputs, keras.Model(features, x)(body))


class StepTimes(keras.callbacks.Callback):
    """Keeps how long each step of `fit` took, start of batch to end of batch."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        """Start the clock."""
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Stop the clock; reading the loss waits for the step."""
        float(logs["loss"])
        self.seconds.append(time.perf_counter() - self.begin)


def timed(model, x, y):
    """Give the seconds of some steps of `fit`; the first step of a call warms up."""
    times = StepTimes()
    model.fit(
        x,
        y,
        batch_size=FLAGS.batch,
        steps_per_epoch=1 + FLAGS.steps,
        shuffle=False,
        verbose=0,
        callbacks=[times],
    )
    return sum(times.seconds[1:])


def interval(ratios, rng):
    """Give median and 95 % bootstrap interval of the median."""
    ratios = np.asarray(ratios)
    draws = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def main(argv):
    """Time every ratio."""
    del argv
    rng = np.random.default_rng(0)
    count = (1 + FLAGS.steps) * FLAGS.batch
    x = rng.normal(size=(count, 32, 32, 3)).astype("float32")
    y = keras.utils.to_categorical(rng.integers(0, 10, count), 10)
    sides = {side: make(side) for side in dict.fromkeys(sum(RATIOS.values(), ()))}
    for model in sides.values():
        timed(model, x, y)
    report = {}
    for name, (above, below) in RATIOS.items():
        ratios = []
        for pair in range(FLAGS.pairs):
            order = (above, below) if pair % 2 else (below, above)
            seconds = {side: timed(sides[side], x, y) for side in order}
            ratios.append(seconds[above] / seconds[below])
        report[name] = interval(ratios, rng)
        bound = BOUNDS.get(name)
        verdict = "" if bound is None else f"  bound {bound}"
        if bound is not None and report[name]["low"] > bound:
            verdict += "  BROKEN"
        row = report[name]
        print(
            f"{name:28} {row['median']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]{verdict}",
            flush=True,
        )
    if FLAGS.json:
        out = {"ratio": report}
        setup = {"depth": FLAGS.depth, "batch": FLAGS.batch, "pairs": FLAGS.pairs}
        path = pathlib.Path(FLAGS.results or pathlib.Path(__file__).with_name("results.json"))
        path.write_text(json.dumps({**out, "setup": setup}, indent=2) + "\n")
        print(json.dumps(out))


if __name__ == "__main__":
    app.run(main)
