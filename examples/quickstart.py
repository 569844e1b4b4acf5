"""Train a network stage by stage with TRGL, beside VanGL and end-to-end training.

    python examples/quickstart.py
    python examples/quickstart.py --dataset=fashion_mnist --depth=20 --num_stages=3 --epochs=3

The same network, data and seed for each; accuracy is reported on the test part after the last
epoch, for every depth. A run folder gets the history (CSV) and the model (`.keras`) of each method,
a table (JSON) and a picture.
"""

import gc
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# On a CPU TensorFlow counts the bytes it allocates only if asked before it starts.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

import keras
import tensorflow as tf
from absl import app, flags
from matplotlib.figure import Figure

import keras_trgl as trgl

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "dataset",
    "digits",
    ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "stl10", "tiny_imagenet"],
    "Data set. The default comes with scikit-learn and needs no network.",
)
flags.DEFINE_string("data_dir", None, "Folder of the data, for tiny_imagenet and stl10.")
flags.DEFINE_integer("depth", 26, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_integer("num_stages", 4, "Number of stages, K.", lower_bound=1)
flags.DEFINE_enum("split", "memory", ["depth", "memory"], "How blocks are shared among stages.")
flags.DEFINE_float("tau", 1.0, "Step of the minimizing movement scheme; small is strong.")
flags.DEFINE_integer("epochs", 30, "Epochs of each method.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Batch size.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.02, "First rate of SGD with momentum 0.9; falls as a cosine.")
flags.DEFINE_integer("seed", 0, "Seed of weights and of the order of the data.", lower_bound=0)
flags.DEFINE_integer("limit", 0, "Train on this many examples only; 0 for all.", lower_bound=0)
flags.DEFINE_bool("augment", True, "Crop and flip as the paper does, where the data set allows it.")
flags.DEFINE_list("methods", ["trgl", "vangl", "end_to_end"], "What to compare.")
flags.DEFINE_string("run_dir", "runs/quickstart", "Folder that gets the results.")

SETTINGS = [
    "dataset",
    "depth",
    "num_stages",
    "split",
    "tau",
    "epochs",
    "batch_size",
    "learning_rate",
    "seed",
    "limit",
    "augment",
]
NAMES = {"trgl": "TRGL", "vangl": "VanGL", "end_to_end": "end-to-end"}


def make_model(method, data):
    """Give the compiled network for one method; weights are the same for all."""
    blocks = trgl.architectures.resnet(depth=FLAGS.depth, input_shape=data.input_shape)
    head = trgl.heads.ConvHead(units=data.num_classes)
    if FLAGS.split == "memory":
        sizes = trgl.splitting.by_memory(blocks, FLAGS.num_stages, head=head)
    else:
        sizes = trgl.splitting.by_depth(blocks, FLAGS.num_stages)
    model = trgl.GreedyModel.from_blocks(
        blocks,
        stage_sizes=sizes,
        head=head,
        method=trgl.methods.TRGL(tau=FLAGS.tau) if method == "trgl" else method,
        seed=FLAGS.seed,
    )
    steps = FLAGS.epochs * -(-len(data.x_train) // FLAGS.batch_size)
    model.compile(
        optimizer=keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, steps), momentum=0.9
        ),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
    )
    return model


def run(method, data, stream, folder):
    """Train and test one method, and give its row of the table."""
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    model = make_model(method, data)
    if method == FLAGS.methods[0]:
        model.summary()
    print(f"\n{NAMES[method]}", flush=True)
    # What the methods share, the data, is not theirs; nor is what the method before left behind.
    gc.collect()
    tf.config.experimental.reset_memory_stats(device)
    before = tf.config.experimental.get_memory_info(device)["current"]
    begin = time.perf_counter()
    model.fit(
        stream,
        epochs=FLAGS.epochs,
        callbacks=[keras.callbacks.CSVLogger(folder / f"{method}.csv")],
    )
    seconds = time.perf_counter() - begin
    peak = tf.config.experimental.get_memory_info(device)["peak"] - before
    x, y = data.arrays("test")
    logs = model.evaluate(
        x, keras.utils.to_categorical(y, data.num_classes), return_dict=True, verbose=0
    )
    model.save(folder / f"{method}.keras")
    depths = range(1, model.num_stages + 1)
    return {
        "method": method,
        "stage_sizes": [len(stage.blocks) for stage in model.stages],
        "test_accuracy_by_depth": [logs[f"stage_{k}_accuracy"] for k in depths],
        "test_accuracy_last_depth": logs["accuracy"],
        "peak_mib": peak / 2**20,
        "seconds": seconds,
    }


def draw(rows, path):
    """Draw accuracy by depth and the memory peak of each method."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    accuracy = {NAMES[row["method"]]: row["test_accuracy_by_depth"] for row in rows}
    peaks = {NAMES[row["method"]]: row["peak_mib"] * 2**20 for row in rows}
    trgl.plot.accuracy_by_depth(accuracy, axes=left)
    trgl.plot.memory(peaks, axes=right)
    figure.suptitle(
        f"{FLAGS.dataset}, ResNet-{FLAGS.depth}, batch {FLAGS.batch_size}, "
        f"{FLAGS.epochs} epochs, seed {FLAGS.seed}",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)


def table(rows):
    """Give the results as text."""
    lines = [f"{'method':12}{'last depth':>11}{'peak MiB':>10}{'seconds':>9}  accuracy by depth"]
    for row in rows:
        depths = "  ".join(f"{value:.4f}" for value in row["test_accuracy_by_depth"])
        lines.append(
            f"{NAMES[row['method']]:12}{row['test_accuracy_last_depth']:11.4f}"
            f"{row['peak_mib']:10.1f}{row['seconds']:9.1f}  {depths}"
        )
    return "\n".join(lines)


def main(argv):
    """Train every method, and write the run folder."""
    del argv
    folder = pathlib.Path(FLAGS.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    data = trgl.datasets.load(FLAGS.dataset, data_dir=FLAGS.data_dir)
    if FLAGS.limit:
        data = data.subset(FLAGS.limit, seed=FLAGS.seed)
    stream = data.stream(FLAGS.batch_size, seed=FLAGS.seed, augment=FLAGS.augment, one_hot=True)
    rows = []
    for method in FLAGS.methods:
        rows.append(run(method, data, stream, folder))
        keras.utils.clear_session()
    settings = {name: getattr(FLAGS, name) for name in SETTINGS}
    report = {"settings": settings, "results": rows}
    (folder / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(rows, folder / "picture.png")
    print(f"\nTest part of {FLAGS.dataset}, after the last epoch:\n{table(rows)}")
    print(f"\nPicture, histories and models: {folder}")


if __name__ == "__main__":
    app.run(main)
