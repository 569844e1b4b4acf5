"""Three methods on one network.

The same blocks, weights, order of data and number of epochs; only what a stage minimises differs.
It is `examples/quickstart.py` in small: `make demo` runs that.
"""

# %%
# Images of digits that come with scikit-learn, and a ResNet-14 in three stages.
import keras
import keras_trgl as trgl
from matplotlib.figure import Figure

data = trgl.datasets.load("digits").hold_out(0.2)


def train(method):
    blocks = trgl.architectures.resnet(depth=14, input_shape=data.input_shape)
    head = trgl.heads.ConvHead(units=data.num_classes)
    model = trgl.GreedyModel.from_blocks(blocks, [2, 2, 2], head, method=method, seed=0)
    model.compile(
        keras.optimizers.SGD(0.02, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data.stream(batch_size=32, seed=0), epochs=6, verbose=0)
    return model


methods = {
    "TRGL, τ = 1": trgl.methods.TRGL(tau=1.0),
    "TRGL, τ = 10": trgl.methods.TRGL(tau=10.0),
    "VanGL": trgl.methods.VanGL(),
    "end-to-end": trgl.methods.EndToEnd(),
}
models = {name: train(method) for name, method in methods.items()}

# %%
# Every stage is evaluated, on images that were held out. End-to-end training has one exit, the
# last.
found = {}
for name, model in models.items():
    logs = model.evaluate(*data.arrays("validation"), return_dict=True, verbose=0)
    found[name] = [logs[f"stage_{k}_accuracy"] for k in range(1, model.num_stages + 1)]
    print(f"{name:13}", "  ".join(f"{value:.3f}" for value in found[name]))

# %%
# Epochs are few here: small τ holds features back, and takes longer. Besides, of one seed and one
# split a difference of a few images is no result; the benchmarks repeat over seeds.
figure = Figure(figsize=(5.6, 3.2), layout="constrained")
axes = figure.add_subplot()
for name, values in found.items():
    if len(values) > 1:
        axes.plot(range(1, len(values) + 1), values, "o-", label=name)
    else:
        axes.axhline(values[0], linestyle="--", color="0.4", label=name)
axes.set(xlabel="depth k", ylabel="validation accuracy", xticks=[1, 2, 3])
axes.grid(alpha=0.3)
axes.legend()
figure.savefig("accuracy_by_depth.png", dpi=110)
