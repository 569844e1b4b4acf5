"""Train a recorded run of the published code again, and say how far the numbers are apart.

`python benchmarks/parity/run.py FILE.npz --json` loads the initial weights of the recording, trains
its batches with `fit`, and compares every stage's task loss at every step and all final weights.
The whole run is in float64.
"""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import keras_trgl as trgl

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object on the last line.")

BRANCH = {"0": 0, "1": 1, "3": 2, "4": 3}
"""Position in the recorded branch to position among our layers that hold weights."""

MOMENTUM = 0.9
"""Of the moving statistics."""


def block_names(recording):
    """Give the recorded names of all blocks, `K/blocks.I`, in the order of the network."""
    cuts = [int(cut) for cut in recording["cuts"]]
    return [
        f"{stage}/blocks.{i}" for stage, size in enumerate(np.diff(cuts)) for i in range(int(size))
    ]


def method_of(recording):
    """Give what the stages minimise: with the multiplier scheme on, taus do not count."""
    if int(recording["uza"]):
        return trgl.methods.TRGL(tau=float(recording["lambda0"]) / 2)
    if int(recording["tra"]):
        return trgl.methods.TRGL(tau=[float(tau) for tau in recording["taus"]])
    return trgl.methods.VanGL()


def multiplier_of(recording):
    """Give the callbacks of the multiplier scheme, none where λ stays as it is."""
    h, s = np.float64(recording["h"]), int(recording["s"])
    if not int(recording["uza"]) or h == 0 or s == 0:
        return []
    return [trgl.callbacks.MultiplierUpdate(h=h, s=s, initial=np.float64(recording["lambda0"]))]


def make_model(recording):
    """Give the recorded network, untrained."""
    names, input_shape = block_names(recording), recording["x"].shape[2:]
    kernels = [recording[f"init/{name}.residual.0.weight"] for name in names]
    widths = tuple(kernel.shape[3] for kernel in kernels[:: int(recording["blocks_per_width"])])
    blocks = trgl.architectures.resnet(
        2 * len(names) + 2, tuple(map(int, input_shape)), widths=widths
    )
    sizes = [int(size) for size in np.diff(recording["cuts"])]
    # The recorded heads pool half the side of their features, whatever the size.
    ends = np.cumsum(sizes)
    shape, pools = (None, *input_shape), []
    for i, block in enumerate(blocks, start=1):
        shape = block.compute_output_shape(shape)
        if i in ends:
            pools.append(int(shape[1]) // 2)
    units = recording["init/0/classifier.5.bias"].shape[0]
    heads = [trgl.heads.ConvHead(units, pool=pool) for pool in pools]
    return trgl.GreedyModel.from_blocks(blocks, sizes, heads, method=method_of(recording), seed=0)


def layer_of(model, input_shape, name):
    """Give (layer, values per channel and example that it normalizes) for a recorded name."""
    stage, parts = int(name.split("/")[0]), name.split("/")[1].split(".")
    shape = input_shape
    for done in model.stages[:stage]:
        shape = done.compute_output_shape(shape)
    if parts[0] == "classifier":
        for done in model.stages[stage].blocks:
            shape = done.compute_output_shape(shape)
        return model.heads[stage].layers_in_a_row[int(parts[1])], 4
    for done in model.stages[stage].blocks[: int(parts[1])]:
        shape = done.compute_output_shape(shape)
    block = model.stages[stage].blocks[int(parts[1])]
    chain = block.entry if parts[2] == "encoder" else block.branch
    weighted = [layer for layer in chain if layer.weights]
    layer = weighted[int(parts[3]) if parts[2] == "encoder" else BRANCH[parts[3]]]
    out = shape if parts[2] == "encoder" else block.compute_output_shape(shape)
    return layer, int(out[1]) * int(out[2])


def variable_of(layer, kind):
    """Give the variable of ours for a kind of recorded array."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return {
            "weight": layer.gamma,
            "bias": layer.beta,
            "running_mean": layer.moving_mean,
            "running_var": layer.moving_variance,
        }[kind]
    return {"weight": layer.kernel, "bias": layer.bias}[kind]


def in_our_layout(model, recording, name):
    """Give a recorded array with a dense kernel's rows in (row, column, channel) order."""
    array, stage = recording[name], int(name.split("/")[1])
    if not name.endswith("classifier.5.weight"):
        return array
    channels = model.heads[stage].layers_in_a_row[0].filters
    side = round((array.shape[0] // channels) ** 0.5)
    rows = np.arange(array.shape[0]).reshape(channels, side, side)
    return array[rows.transpose(1, 2, 0).ravel()]


def recorded(model, recording, when):
    """Yield (name, layer, values per example, variable, array) for `init` or `final`."""
    for name in recording.files:
        if name.startswith(f"{when}/"):
            path, kind = name.split("/", 1)[1].rsplit(".", 1)
            layer, values = layer_of(model, (None, *recording["x"].shape[2:]), path)
            array = in_our_layout(model, recording, name)
            yield name, layer, values, variable_of(layer, kind), array


class TaskLosses(keras.callbacks.Callback):
    """Keeps every stage's task loss of every step: one step an epoch, so logs are no means."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        """Keep the losses of the epoch's single step."""
        stages = range(1, len(self.model.stages) + 1)
        self.losses.append([logs[f"stage_{k}_loss"] for k in stages])


def compare(recording):
    """Train as recorded and give the two errors."""
    model = make_model(recording)
    for _, _, _, variable, array in recorded(model, recording, "init"):
        variable.assign(array)
    x, y = recording["x"], recording["y"]
    targets = keras.utils.to_categorical(y, model.heads[0].units).astype("float64")
    model.compile(
        # NumPy numbers: Keras casts Python ones through float32.
        optimizer=keras.optimizers.SGD(
            np.float64(recording["lr"]), momentum=np.float64(recording["momentum"])
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=np.float64(recording["label_smoothing"])
        ),
    )
    steps, batch = x.shape[:2]
    losses = TaskLosses()
    model.fit(
        x.reshape(-1, *x.shape[2:]),
        targets.reshape(-1, targets.shape[-1]),
        batch_size=batch,
        shuffle=False,
        epochs=steps,
        steps_per_epoch=1,
        callbacks=[losses, *multiplier_of(recording)],
        verbose=0,
    )
    loss_error = np.max(np.abs(np.array(losses.losses) / recording["losses"] - 1.0))
    weight_error = 0.0
    for name, _, values, variable, array in recorded(model, recording, "final"):
        ours = variable.numpy()
        if name.endswith("running_var"):
            # PyTorch keeps the unbiased variance; the share that is left of the first is the same.
            kept = MOMENTUM**steps * recording[name.replace("final/", "init/")]
            count = batch * values
            ours = kept + (ours - kept) * count / (count - 1)
        weight_error = max(weight_error, np.max(np.abs(ours - array)) / np.max(np.abs(array)))
    return {"max_loss_error": float(loss_error), "max_weight_error": float(weight_error)}


def main(argv):
    """Compare one recording."""
    if len(argv) != 2:
        raise app.UsageError("Give one recording, a .npz file.")
    keras.config.set_floatx("float64")
    with np.load(argv[1], allow_pickle=False) as recording:
        errors = compare(recording)
    for name, value in errors.items():
        print(f"{name:18} {value:.3e}")
    if FLAGS.json:
        print(json.dumps(errors))


if __name__ == "__main__":
    app.run(main)
