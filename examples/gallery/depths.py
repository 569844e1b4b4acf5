"""Every depth, epoch by epoch.

Logs hold each stage's task loss, energy and metrics. Side by side they say why one depth is worse
than another: whether it fits the training data less, or fits them and does not carry over.
"""

# %%
# A network of three stages, on few images, so that stages can overfit.
import keras
import keras_trgl as trgl
from matplotlib.figure import Figure

data = trgl.datasets.load("digits").hold_out(0.5)
blocks = trgl.architectures.resnet(depth=14, input_shape=data.input_shape)
model = trgl.GreedyModel.from_blocks(
    blocks,
    trgl.splitting.by_depth(blocks, num_stages=3),
    trgl.heads.ConvHead(units=data.num_classes),
    method=trgl.methods.TRGL(tau=1.0),
    seed=0,
)
model.compile(
    keras.optimizers.SGD(0.02, momentum=0.9),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
x, y = data.subset(300, seed=0).arrays("train")
history = model.fit(
    x, y, batch_size=30, epochs=10, validation_data=data.arrays("validation"), verbose=0
).history

# %%
# The last epoch, by depth. Training figures are means over the epoch, in training mode; they
# lag behind.
depths = range(1, model.num_stages + 1)
print("depth  task loss  energy  accuracy  validation")
for k in depths:
    loss, energy, accuracy, held_out = (
        history[name][-1]
        for name in (
            f"stage_{k}_loss",
            f"stage_{k}_energy",
            f"stage_{k}_accuracy",
            f"val_stage_{k}_accuracy",
        )
    )
    print(f"{k:5}{loss:11.3f}{energy:8.2f}{accuracy:10.3f}{held_out:12.3f}")

# %%
# In this run depth 3 fits the training images, and is no better than depth 2 on others. In general:
#
# - A stage whose **training** accuracy is below that of the stage before does not learn: its rate
#   is too high, its τ too small, or its head too weak.
# - One that is better in training and no better on held-out images overfits, or gets features that
#   hold nothing more: a smaller τ in *early* stages keeps what later ones need.
# - An energy that stays near the number of blocks was never felt; one near zero leaves the features
#   as they are.
figure = Figure(figsize=(8.6, 3.2), layout="constrained")
left, right = figure.subplots(1, 2)
for k in depths:
    line = left.plot(history[f"val_stage_{k}_accuracy"], label=f"depth {k}")[0]
    left.plot(history[f"stage_{k}_accuracy"], linestyle=":", color=line.get_color())
    right.plot(history[f"stage_{k}_energy"], label=f"stage {k}")
left.set(xlabel="epoch", ylabel="accuracy (dotted: training)")
right.set(xlabel="epoch", ylabel="energy before its weight")
for axes in (left, right):
    axes.grid(alpha=0.3)
    axes.legend()
figure.savefig("by_epoch.png", dpi=110)
