"""Predicted bytes of plans against the allocator's peak, each in fresh processes."""

import dataclasses
import json
import os
import pathlib
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from processes import in_fresh_process

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line, and write it to a file.")
flags.DEFINE_integer("runs", 3, "Fresh processes per plan.", lower_bound=1)
flags.DEFINE_string("results", "", "File for the JSON; the default is beside this script.")
flags.DEFINE_list("only", [], "Networks to measure; all when empty.")
flags.DEFINE_list("regimes", ["parallel", "sequential"], "Regimes to measure.")
flags.DEFINE_list("shares", ["1.0", "0.4", "0.1"], "Budgets: 0 is the least, 1 end-to-end's.")
flags.DEFINE_string("network", "", "Measure this network in this process.")
flags.DEFINE_bool("parts", False, "With --network: print what the prediction is made of.")

NETWORKS = ("resnet110", "blockwise", "vgg", "swin", "vit", "mobilenet")
"""What `network` knows. The last is brought: a model of `keras.applications`."""

CLASSES = 10


def network(name):
    """Give blocks or a model, shape of the data, batch size, and what else `plan` takes."""
    import keras

    import keras_trgl as trgl

    nets, heads = trgl.architectures, trgl.heads
    shape, batch_size, method = (32, 32, 3), 32, "trgl"
    optimizer, head = keras.optimizers.SGD(0.002, momentum=0.9), heads.ConvHead(CLASSES)
    if name in ("swin", "vit"):
        optimizer, head = keras.optimizers.AdamW(1e-4), heads.NormHead(CLASSES)
    if name == "resnet110":
        given = nets.resnet(110, shape)
    elif name == "blockwise":
        given = nets.blockwise_resnet(shape, 10, 32, encoder="simple", separate_encoder=True)
    elif name == "vgg":
        given, method, head = nets.vgg(16, shape, width=32), "vangl", heads.LinearHead(CLASSES)
    elif name == "swin":
        given = nets.swin_tiny(shape, patch_size=2, window=4, width=48)
    elif name == "vit":
        given = nets.vit(shape, patch_size=4, width=96, depth=8, num_heads=4, class_token=False)
    elif name == "mobilenet":
        shape, head = (64, 64, 3), heads.LinearHead(CLASSES)
        make = keras.applications.MobileNetV2
        given = make(input_shape=shape, include_top=False, weights=None)
    else:
        raise ValueError(f"A network must be one of {', '.join(NETWORKS)}. Received: {name}.")
    options = {"head": head, "optimizer": optimizer, "method": method}
    options |= {} if isinstance(given, keras.Model) else {"input_shape": shape}
    return given, shape, batch_size, options


def measure(name, regime, share):
    """Plan and train in this process, and give predicted and measured bytes."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_trgl as trgl

    given, shape, batch_size, options = network(name)
    options["regime"] = trgl.regimes.Sequential(epochs=1) if regime == "sequential" else regime
    plan = trgl.plan(given, batch_size, 2**40, **options)
    least = min(one.predicted_bytes for one in plan.weighed)
    budget = int(least + share * (plan.predicted_bytes - least))
    # What `plan` takes for this budget; asked once more it would trace all blocks once more.
    taken = next(one for one in plan.weighed if one.predicted_bytes <= budget)
    names = ("stage_sizes", "remat", "micro_batches", "predicted_bytes")
    found = {name: getattr(taken, name) for name in names}
    plan = dataclasses.replace(plan, max_bytes=budget, **found)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model = plan.make(loss, metrics=["accuracy"], seed=0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, *shape)).astype("float32")
    y = keras.utils.to_categorical(rng.integers(0, CLASSES, batch_size), CLASSES)
    data = tf.data.Dataset.from_tensors((x, y.astype("float32"))).repeat(4)
    peak = trgl.measure_peak(lambda: model.fit(data, verbose=0))
    return {
        "measured": peak,
        "predicted": plan.predicted_bytes,
        "budget": plan.max_bytes,
        "plan": [list(plan.stage_sizes), plan.micro_batches, plan.remat],
    }


def main(argv):
    """Measure every plan, or one in this process."""
    del argv
    if FLAGS.network:
        print(json.dumps(measure(FLAGS.network, FLAGS.regimes[0], float(FLAGS.shares[0]))))
        return
    path = pathlib.Path(FLAGS.results or pathlib.Path(__file__).with_name("results.json"))
    results = {}
    for name in FLAGS.only or NETWORKS:
        for regime in FLAGS.regimes:
            for share in FLAGS.shares:
                told = {"network": name, "regimes": regime, "shares": share}
                runs = [in_fresh_process(__file__, **told) for _ in range(FLAGS.runs)]
                spread = sorted(run["measured"] for run in runs)
                row = {**runs[0], "measured": spread[-1], "spread": spread}
                row["ratio"] = row["predicted"] / spread[-1]
                row["median_ratio"] = row["predicted"] / statistics.median(spread)
                results[f"{name}_{regime}_{share}"] = row
                print(
                    f"{name:10} {regime:10} {share:4} {row['predicted'] / 2**20:7.2f} MiB of "
                    f"{row['budget'] / 2**20:7.2f}, measured {spread[0] / 2**20:7.2f} to "
                    f"{spread[-1] / 2**20:7.2f}, ratio {row['ratio']:.3f}  {row['plan']}",
                    flush=True,
                )
    if FLAGS.json:
        path.write_text(json.dumps(results, indent=2) + "\n")
        print(json.dumps(results))


if __name__ == "__main__":
    app.run(main)
