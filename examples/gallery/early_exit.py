"""Early exit.

Easy rows leave at the first depth that is sure enough. Thresholds are chosen on held-out images,
and the test images are looked at once.
"""

# %%
# A network with a quick first stage.
import keras
import keras_trgl as trgl
import numpy as np

data = trgl.datasets.load("digits").hold_out(0.3)
blocks = trgl.architectures.resnet(depth=14, input_shape=data.input_shape)
head = trgl.heads.LinearHead(units=data.num_classes)
model = trgl.GreedyModel.from_blocks(blocks, [1, 2, 3], head, seed=0)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(data.stream(batch_size=32, seed=0), epochs=8, verbose=0)

# %%
# At most one point may be lost against the last depth.
choice = trgl.export.choose_exit(model, data.arrays("validation"), max_drop=0.01)
print("accuracy of each depth:", [round(value, 3) for value in choice.accuracy])
print("thresholds:", [round(value, 3) for value in choice.thresholds])
choice.plot("curve.png")

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
