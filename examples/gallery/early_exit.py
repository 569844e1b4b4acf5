"""Early exit.

Easy rows leave at the first depth that is sure enough. Thresholds are chosen on held-out images,
and the test images are looked at once.
"""

# %%
# A network with a quick first stage.
import keras
import keras_trgl as trgl
import numpy as np
from matplotlib.figure import Figure

data = trgl.datasets.load("digits").hold_out(0.3)
blocks = trgl.architectures.resnet(depth=14, input_shape=data.input_shape)
head = trgl.heads.LinearHead(units=data.num_classes)
model = trgl.GreedyModel.from_blocks(blocks, [1, 2, 3], head, seed=0)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(data.stream(batch_size=32, seed=0), epochs=8, verbose=0)

# %%
# The most accurate choice of a mean depth of at most 1.5, with one threshold for all exits. A point
# of the curve is a threshold.
one_for_all = trgl.export.Calibration(per_exit=False)
choice = trgl.export.choose_exit(
    model, data.arrays("validation"), max_depth=1.5, calibration=one_for_all
)
print("accuracy of each depth:", [round(value, 3) for value in choice.accuracy])
print("thresholds:", [round(value, 3) for value in choice.thresholds])
figure = Figure(figsize=(5.6, 3.2), layout="constrained")
axes = figure.add_subplot()
axes.plot(choice.curve["mean_depth"], choice.curve["accuracy"], label="early exit")
axes.plot([1, 2, 3], choice.accuracy, "o", label="depth k alone")
axes.set(xlabel="mean depth", ylabel="accuracy on held-out images")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig("curve.png", dpi=110)

# %%
# What those thresholds do on test images: each row takes the first depth that is sure enough.
x, y = data.arrays("test")
exits = [keras.ops.softmax(logits).numpy() for logits in model.predict_exits(x, verbose=0)]
thresholds = [*choice.thresholds, 0.0]
sure = np.stack([one.max(1) >= bound for one, bound in zip(exits, thresholds, strict=True)])
depth = sure.argmax(0)
label = np.stack([one.argmax(1) for one in exits])[depth, np.arange(len(x))]
print("rows that leave at depth 1, 2, 3:", np.bincount(depth, minlength=3).tolist())
print(
    f"accuracy {np.mean(label == y):.3f}, of the last depth {np.mean(exits[-1].argmax(1) == y):.3f}"
)
