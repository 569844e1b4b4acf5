"""A budget of memory.

`trgl.plan` counts the bytes of every way to train a network, and takes the one with the least more
work that fits. Nothing is trained here.
"""

# %%
# A ResNet-32 on 32x32 images at batch 64, with ever smaller budgets.
import keras_trgl as trgl
from matplotlib.figure import Figure

blocks = trgl.architectures.resnet(depth=32, input_shape=(32, 32, 3))
head = trgl.heads.LinearHead(units=10)
plans = {}
for mib in (1024, 128, 64, 32, 24):
    plans[mib] = trgl.plan(blocks, 64, mib * 2**20, head=head, optimizer="sgd")
    found = plans[mib]
    print(
        f"{mib:5} MiB: K = {len(found.stage_sizes)}, {found.micro_batches} parts, "
        f"remat {found.remat}, {found.predicted_bytes / 2**20:.0f} MiB predicted"
    )

# %%
# A budget that nothing meets says what would do.
try:
    trgl.plan(blocks, 64, 2**20, head=head, optimizer="sgd")
except ValueError as error:
    print(error)

# %%
# All ways that were weighed: bytes fall as work is added, and the choice is the leftmost below
# the line.
figure = Figure(figsize=(6.4, 3.6), layout="constrained")
axes = figure.add_subplot()
for remat, marker in ((False, "o"), (True, "^")):
    ways = [one for one in plans[1024].weighed if one.remat is remat]
    bytes_of = [one.predicted_bytes / 2**20 for one in ways]
    label = "remat" if remat else "no remat"
    axes.scatter([one.work for one in ways], bytes_of, marker=marker, s=18, label=label)
axes.axhline(64, linestyle="--", color="0.4", label="64 MiB")
axes.set(xlabel="more work, as a share of a step", ylabel="predicted peak, MiB", yscale="log")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig("ways.png", dpi=110)
