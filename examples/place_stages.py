r"""Train the stages of a network on different devices at once.

    python examples/place_stages.py
    python examples/place_stages.py --spawn=2
    python examples/place_stages.py --workers=10.0.0.2:7000,10.0.0.3:7000 \
        --coordinator_address=10.0.0.1:7001

By default the GPUs of this machine hold the stages, or two logical devices of its CPU. `--spawn`
starts workers on this machine; `--workers` takes those that run already, each started by
`python -m keras_trgl.distribute.worker --host=… --port=7000`. The protocol between them has no
authentication: private networks only.
"""

import contextlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from absl import app, flags

import keras_trgl as trgl

FLAGS = flags.FLAGS
flags.DEFINE_integer("spawn", 0, "Workers to start on this machine; 0 for none.", lower_bound=0)
flags.DEFINE_list("workers", [], "Addresses of workers that run, host:port.")
flags.DEFINE_string("coordinator_address", None, "Where workers reach this process, host:port.")
flags.DEFINE_enum("schedule", "skewed", ["skewed", "synchronous"], "How stages take batches.")
flags.DEFINE_integer("depth", 26, "Depth of the ResNet, 6n + 2.")
flags.DEFINE_integer("num_stages", 4, "Number of stages, K.", lower_bound=1)
flags.DEFINE_integer("epochs", 5, "Epochs.", lower_bound=1)
flags.DEFINE_string("backup_dir", "", "Folder of the backup to go on from, if a worker is lost.")


def local_devices():
    """Give this machine's GPUs, or two logical devices of its CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        return [f"GPU:{k}" for k in range(len(gpus))]
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return ["CPU:0", "CPU:1"]


def find_devices(stack):
    """Give the devices that the flags ask for."""
    if FLAGS.spawn:
        workers = stack.enter_context(trgl.distribute.LocalWorkers(FLAGS.spawn))
        return trgl.distribute.connect(workers.addresses)
    if FLAGS.workers:
        return trgl.distribute.connect(FLAGS.workers, FLAGS.coordinator_address)
    return local_devices()


def make_model(input_shape, num_classes):
    """Give the compiled model; its stages land where the strategy in force wants them."""
    blocks = trgl.architectures.resnet(FLAGS.depth, input_shape)
    model = trgl.GreedyModel.from_blocks(
        blocks,
        trgl.splitting.by_depth(blocks, FLAGS.num_stages),
        trgl.heads.ConvHead(units=num_classes),
        seed=0,
    )
    model.compile(
        keras.optimizers.SGD(0.02, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main(argv):
    """Place, train, evaluate, and say what is where."""
    del argv
    with contextlib.ExitStack() as stack:
        devices = find_devices(stack)
        data = trgl.datasets.load("digits").hold_out(0.1)
        strategy = trgl.distribute.StageParallelStrategy(devices, schedule=FLAGS.schedule)
        with strategy.scope():
            model = make_model(data.input_shape, data.num_classes)
        model.summary()
        callbacks = []
        if FLAGS.backup_dir:
            callbacks.append(trgl.callbacks.BackupAndRestore(FLAGS.backup_dir))
        model.fit(
            data.stream(batch_size=32, seed=0),
            validation_data=data.arrays("validation"),
            epochs=FLAGS.epochs,
            callbacks=callbacks,
        )
        print("\nWhat each device holds:")
        for device, row in strategy.report(model).items():
            stages = ", ".join(map(str, row["stages"]))
            print(f"  {device}: stages {stages}, {row['variable_bytes'] / 2**20:.2f} MiB")


if __name__ == "__main__":
    app.run(main)
