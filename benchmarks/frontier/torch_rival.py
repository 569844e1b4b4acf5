"""ResNet-110 in PyTorch, on the CPU: end-to-end, with checkpoints, with accumulation.

The layers are those of the network beside it: blocks with shortcuts that pad, the same head. Bytes
are the sum of what PyTorch's allocator has given, from its profiler's events.
"""

import json
import pathlib
import tempfile

import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint_sequential

CLASSES, GROUPS = 10, (16, 32, 64)


class Block(nn.Module):
    """A basic block: two convolutions, and a shortcut that pads."""

    def __init__(self, before, width, stride):
        super().__init__()
        self.stride, self.more = stride, width - before
        self.branch = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        """Give relu(shortcut + branch)."""
        skip = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.more:
            skip = functional.pad(skip, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return functional.relu(self.branch(x) + skip)


def network(depth, side, convolution):
    """Give stem with blocks, as a Sequential, and head."""
    stem = [nn.Conv2d(3, GROUPS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(GROUPS[0]), nn.ReLU()]
    blocks, before = [nn.Sequential(*stem)], GROUPS[0]
    for width in GROUPS:
        for place in range((depth - 2) // 6):
            blocks.append(Block(before, width, 2 if place == 0 and width > GROUPS[0] else 1))
            before = width
    if not convolution:
        return nn.Sequential(*blocks), nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES)
        )
    left = side // 4
    pool = 8 if left % 8 == 0 else 4
    head = nn.Sequential(
        nn.Conv2d(before, before, 3, 1, 1, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(pool),
        nn.BatchNorm2d(before),
        nn.Flatten(),
        nn.Linear(before * (left // pool) ** 2, CLASSES),
    )
    return nn.Sequential(*blocks), head


class Training:
    """Updates of one network on one batch.

    Args:
        depth: int, of the ResNet.
        side: int, pixels.
        batch: int, images.
        segment: int, blocks between two tensors that are kept, or 0 for all.
        parts: int ≥ 1. Parts of a batch whose gradients are added up.
    """

    def __init__(self, depth, side, batch, segment=0, parts=1):
        torch.manual_seed(0)
        self.blocks, self.head = network(depth, side, convolution=batch > 1)
        self.segments, self.parts = (-(-len(self.blocks) // segment) if segment else 0), parts
        weights = [*self.blocks.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(weights, lr=0.002, momentum=0.9)
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.x, self.y = torch.randn(batch, 3, side, side), torch.randint(0, CLASSES, (batch,))

    def update(self):
        """Do one update."""
        self.optimizer.zero_grad(set_to_none=True)
        for x, y in zip(self.x.chunk(self.parts), self.y.chunk(self.parts), strict=True):
            if self.segments:
                features = checkpoint_sequential(self.blocks, self.segments, x, use_reentrant=False)
            else:
                features = self.blocks(x)
            (self.loss(self.head(features), y) / self.parts).backward()
        self.optimizer.step()


def peak_bytes(*settings, **options):
    """Give the most that the allocator had given at once, in three updates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        training = Training(*settings, **options)
        for _ in range(3):
            training.update()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return max(one["args"]["Total Allocated"] for one in events if one.get("name") == "[memory]")
