"""What a comparison is of: methods, network, data, recipe, budget. All is checked at the door."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_trgl import architectures, datasets, heads, splitting
from keras_trgl.checks import check_choice, check_integer, check_positive
from keras_trgl.compare.own_network import check_file, is_own, own_network
from keras_trgl.compare.spaces import Range, check_method
from keras_trgl.greedy_model import GreedyModel

BLOCK_NETS: dict[str, Callable[..., Any]] = {
    "resnet50": architectures.resnet50,
    "resnet101": architectures.resnet101,
    "resnet152": architectures.resnet152,
    "blockwise_resnet": architectures.blockwise_resnet,
}
DATASETS = (
    *("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "stl10", "tiny_imagenet"),
    "folder",
)
IN_FOLDERS = ("folder", "stl10", "tiny_imagenet")
"""Data sets that are read from a folder that is named."""

HELD_OUT = 0.2
"""Share of the training images that choices are made on."""

CHOICE_SEED = 1000
"""Seed of weights, order and held-out images of all choices; reported seeds begin at 0."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        methods: tuple of names; the others are compared with the first.
        network: `"resnetN"` with N = 6n + 2, `"resnet50"`, `101`, `152`, `"vggN"`, or
            `"blockwise_resnet"`; or the path of a `.keras` file, a model of one's own without its
            classifier, whose weights are drawn anew for every training.
        dataset: as in `datasets.load`.
        data_dir: as in `datasets.load`.
        image_size: side that images of a folder are resized to, in pixels, or 0 for their own.
        limit: training images that are drawn, or 0 for all.
        stages: K.
        split: `"depth"` or `"memory"`.
        seeds: number of reported seeds.
        epochs: of every training.
        trials: of every method.
        batch_size: examples.
        low_rate: lowest first rate that is tried.
        high_rate: highest first rate that is tried.
        weight_decay: coupled, of blocks and `ConvHead`; the layers of a file keep their own.
        smoothing: share of the labels that is spread over all classes.
        augment: whether to crop and flip as the data set has it.
    """

    methods: tuple[str, ...]
    network: str = "resnet20"
    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int = 0
    limit: int = 0
    stages: int = 4
    split: str = "depth"
    seeds: int = 3
    epochs: int = 10
    trials: int = 3
    batch_size: int = 32
    low_rate: float = 0.003
    high_rate: float = 0.1
    weight_decay: float = 1e-4
    smoothing: float = 0.0
    augment: bool = True

    def check(self) -> None:
        """Raise unless all of it can be asked for.

        Raises:
            ValueError: a number out of range, another word, a method twice.
        """
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(
                "`--methods` must be different ones, at least one. Received: "
                f"{', '.join(self.methods) or 'none'}."
            )
        for name in self.methods:
            check_method(name)
        for name in ("stages", "seeds", "epochs", "trials", "batch_size"):
            check_integer(name, getattr(self, name), 1)
        for name in ("limit", "image_size"):
            check_integer(name, getattr(self, name), 0)
        for name in ("low_rate", "high_rate"):
            check_positive(name, getattr(self, name))
        if self.low_rate > self.high_rate:
            raise ValueError(
                "`--rates` must be the lowest and the highest. Received: "
                f"{self.low_rate:g},{self.high_rate:g}."
            )
        for name in ("weight_decay", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be at least 0 and below 1. Received: {getattr(self, name)}."
                )
        check_choice("split", self.split, ("depth", "memory"))
        check_choice("dataset", self.dataset, DATASETS)
        if self.data_dir and self.dataset not in IN_FOLDERS:
            raise ValueError(
                f"`--data_dir` goes with --dataset={' or '.join(IN_FOLDERS)}. Received: "
                f"{self.dataset}, which needs none. Add --dataset=folder for images of your own."
            )
        if is_own(self.network):
            check_file(self.network)
        else:
            _builder(self.network)

    @property
    def rates(self) -> Range:
        """The range of first rates."""
        return Range(self.low_rate, self.high_rate)

    def load(self) -> Any:
        """Load the data."""
        side = self.image_size
        more: dict[str, Any] = {"image_size": (side, side)} if side else {}
        data = datasets.load(self.dataset, data_dir=self.data_dir, **more)
        if self.limit > len(data.y_train):
            raise ValueError(
                f"`--limit` must be at most the training images, {len(data.y_train)}. Received: "
                f"{self.limit}. Leave it out for all of them."
            )
        data = data.subset(self.limit) if self.limit else data
        counts = np.bincount(data.y_train, minlength=data.num_classes)
        if len(counts) < 2 or counts.min() < 2:
            # One of a class is trained on, and one held out for choices.
            raise ValueError(
                "The data must have two classes or more, and two training images of each. "
                f"Received: {len(counts)} classes, of which class {counts.argmin()} has "
                f"{counts.min()} images. Take a larger `--limit`, or add images."
            )
        return data

    def make(self, data: Any, method: Any, seed: int) -> GreedyModel:
        """Give the network, with the head that methods without heads of their own have.

        Args:
            data: `ImageData`.
            method: `Method`.
            seed: int ≥ 0.
        """
        shape, decay = data.input_shape, self.weight_decay
        head = heads.ConvHead(data.num_classes, weight_decay=decay)
        if is_own(self.network):
            own = own_network(self.network, shape, seed)
            sizes = self._stage_sizes(own, head)
            return GreedyModel.from_model(own, sizes, head, method=method, seed=seed)
        blocks = _builder(self.network)(input_shape=shape, weight_decay=decay)
        sizes = self._stage_sizes(blocks, head)
        return GreedyModel.from_blocks(blocks, sizes, head, method=method, seed=seed)

    def _stage_sizes(self, given: Any, head: Any) -> list[int]:
        """Give the sizes of the stages, the same for all methods."""
        if self.split == "memory":
            return splitting.by_memory(given, self.stages, head=head)
        return splitting.by_depth(given, self.stages)


def _builder(network: str) -> Callable[..., list[Any]]:
    """Give the function that makes a network's blocks.

    Raises:
        ValueError: no such network.
    """
    if network in BLOCK_NETS:
        return BLOCK_NETS[network]
    found = re.fullmatch(r"(resnet|vgg)(\d+)", network)
    if not found:
        raise ValueError(
            "`--network` must be resnetN with N = 6n + 2, vgg11, vgg13, vgg16, vgg19, "
            f"{', '.join(BLOCK_NETS)}, or a `.keras` file. Received: {network!r}."
        )
    make = architectures.resnet if found[1] == "resnet" else architectures.vgg
    return lambda **options: make(int(found[2]), **options)
