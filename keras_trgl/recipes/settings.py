"""What the published experiments share, as rows keyed by names that this package takes.

A row of `targets` names a training (`TRAININGS`), a split (`SPLITS`, or a name of
`splitting.published`) and a method (`METHODS`); its own name has the data set and the network.
"""

from typing import Any

Row = tuple[str, dict[str, Any]]
"""The name of a class or function, and its arguments."""

DATASETS: dict[str, tuple[str, tuple[int, int, int], int, int]] = {
    "stl10": ("stl10", (96, 96, 3), 10, 5000),
    "cifar10": ("cifar10", (32, 32, 3), 10, 50000),
    "cifar100": ("cifar100", (32, 32, 3), 100, 50000),
    "tiny_imagenet": ("tiny_imagenet", (64, 64, 3), 200, 100000),
    "imagenet": ("folder", (224, 224, 3), 1000, 1281167),
}
"""Name in `datasets.load`, shape of an image, classes, training images."""

STEMS = {"cifar10": "cifar", "cifar100": "cifar"}
"""Of the bottleneck networks; elsewhere the data set's own name."""

NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet110": ("resnet", {"depth": 110}, 54),
    "resnet50": ("resnet50", {}, 16),
    "resnet101": ("resnet101", {}, 33),
    "resnet152": ("resnet152", {}, 50),
    "vgg19": ("vgg", {"depth": 19}, 16),
    "swin_tiny": ("swin_tiny", {}, 12),
    "resnet10-1": ("blockwise_resnet", {"num_blocks": 10}, 10),
    "resnet2-7": ("blockwise_resnet", {"num_blocks": 14}, 14),
}
"""Function of `architectures`, its arguments, and its number of blocks."""

GRIDS: dict[str, dict[str, int]] = {
    "stl10": {"patch_size": 4, "window": 6},
    "cifar10": {"patch_size": 2, "window": 4},
    "cifar100": {"patch_size": 2, "window": 4},
}
"""Patches and windows of Swin, by data set."""

METHODS: dict[str, Row] = {
    "end_to_end": ("EndToEnd", {}),
    "vangl": ("VanGL", {}),
    "trgl_100": ("TRGL", {"tau": 100.0, "rule": "doubled"}),
    "trgl_1": ("TRGL", {"tau": 1.0, "rule": "doubled"}),
    "trgl_1e6": ("TRGL", {"tau": 1e6, "rule": "doubled"}),
    "trgl_10": ("TRGL", {"tau": 10.0}),
    "trgl_open": ("TRGL", {"tau": 1.0}),
    "trgl_multiplier": ("TRGL", {"tau": 0.5}),
    "pred_sim": ("PredSim", {"beta": 0.99, "plain_last": True}),
    "dgl": ("DGL", {}),
    "ddg": ("DDG", {}),
    "fr": ("FeaturesReplay", {}),
    "sedona": ("VanGL", {}),
    "infopro_l": ("InfoProL", {}),
}
"""Methods by a short name; those of InfoPro are in `INFO_PRO`."""

INFO_PRO: dict[str, dict[str, Any]] = {
    "stl10_k2": {"reconstruction_weight": 10, "label_weight": 1},
    "stl10_k4": {"reconstruction_weight": (20, 5), "label_weight": (0.2, 2)},
    "stl10_k8": {"reconstruction_weight": (20, 5), "label_weight": (0.2, 1)},
    "stl10_k16": {"reconstruction_weight": (20, 10), "label_weight": (0.5, 0.1)},
    "stl10_k2_balanced": {"reconstruction_weight": 20, "label_weight": 1},
    "stl10_k4_balanced": {"reconstruction_weight": (20, 10), "label_weight": (0.5, 1)},
    "cifar10_k2": {"reconstruction_weight": 5, "label_weight": 0.5},
    "cifar10_k4": {"reconstruction_weight": (1, 0), "label_weight": (0, 1)},
    "open": {"reconstruction_weight": 1, "label_weight": 1},
}
"""λ1 and λ2 of stages 1 and K − 1, as InfoPro's authors chose them for contrast."""

TRAININGS: dict[str, dict[str, Any]] = {
    "trgl_stl10": {
        "optimizer": ("SGD", {"momentum": 0.9}),
        "schedule": ("constant", {"rate": 0.002}),
        "batch_size": 64,
        "epochs": 300,
        "gain": 0.1,
        "smoothing": 0.1,
        "decay": 2e-4,
    },
    "trgl_cifar100": {
        "optimizer": ("SGD", {"momentum": 0.9}),
        "schedule": ("constant", {"rate": 0.003}),
        "batch_size": 256,
        "epochs": 300,
        "gain": 0.1,
        "smoothing": 0.1,
        "decay": 2e-4,
    },
    "trgl_swin": {
        "optimizer": ("AdamW", {"weight_decay": 0.05, "epsilon": 1e-8}),
        "schedule": ("warm_cosine", {"rate": 0.007, "floor": 7e-4, "start": 7e-5, "warm_up": 20}),
        "batch_size": 1024,
        "epochs": 300,
        "gain": None,
        "smoothing": 0.1,
        "decay": 0.0,
        "open": ("rates: the published file has others than its README",),
    },
    "in_turn": {
        "optimizer": ("SGD", {"momentum": 0.9}),
        "schedule": ("constant", {"rate": 0.007}),
        "batch_size": 128,
        "epochs": 50,
        "more_epochs": 10,
        "gain": 0.05,
        "smoothing": 0.0,
        "decay": 1e-4,
        "open": ("rate: a digit is lost in the paper, 0.007 is the code's",),
    },
    "parallel": {
        "optimizer": ("SGD", {"momentum": 0.9}),
        "schedule": ("constant", {"rate": 0.003}),
        "batch_size": 128,
        "epochs": 300,
        "gain": 0.05,
        "smoothing": 0.0,
        "decay": 1e-4,
    },
    "end_to_end": {
        "optimizer": ("SGD", {"momentum": 0.9}),
        "schedule": ("steps", {"rate": 0.1, "factor": 0.2, "at": (120, 160, 200)}),
        "batch_size": 128,
        "epochs": 300,
        "gain": 0.05,
        "smoothing": 0.0,
        "decay": 1e-4,
        "differs": ("Keras's momentum keeps the old rate for a while after a step",),
    },
    "infopro": {
        "optimizer": ("SGD", {"momentum": 0.9, "nesterov": True}),
        "schedule": ("infopro", {"rate": 0.1}),
        "batch_size": 128,
        "epochs": 160,
        "gain": 1.0,
        "smoothing": 0.0,
        "decay": 1e-4,
        "differs": (
            "kernels start orthogonal, there normal of variance 2/(k²·channels)",
            "decay is of the blocks, there of heads and decoders too",
            "Keras's momentum keeps the old rate for a while after a step",
        ),
    },
    "sedona": {
        "optimizer": ("SGD", {"momentum": 0.9}),
        "schedule": ("cosine", {"rate": 0.1, "floor": 0.001, "steps": 30000}),
        "batch_size": 256,
        "epochs": 77,
        "gain": 1.0,
        "smoothing": 0.1,
        "smooths": "others",
        "decay": 0.0,
        "open": ("weight decay", "start of kernels"),
        "differs": ("no rotations by up to 20°", "30,000 steps are rounded up to whole epochs"),
    },
    "pred_sim": {
        "optimizer": ("Adam", {"epsilon": 1e-8}),
        "schedule": ("steps", {"rate": 5e-4, "factor": 0.25, "at": (38, 58, 69, 72)}),
        "batch_size": 256,
        "epochs": 77,
        "gain": 1.0,
        "smoothing": 0.0,
        "decay": 0.0,
        "open": ("rates and epochs of Sedona's runs of it", "start of kernels"),
        "differs": (
            "batches are drawn plainly, there of 40 classes in the first half",
            "the head takes the mean over positions, there a pool to at most 2,048 numbers",
        ),
    },
    "ddg": {
        "optimizer": ("SGD", {"momentum": 0.9, "nesterov": True}),
        "schedule": ("steps", {"rate": 0.01, "factor": 0.1, "at": (150, 225)}),
        "batch_size": 128,
        "epochs": 300,
        "gain": 1.0,
        "smoothing": 0.0,
        "decay": 5e-4,
        "open": ("start of kernels",),
        "differs": (
            "normalized by CIFAR-10's statistics, there by others for CIFAR-100",
            "the last batch of an epoch is short, there filled up",
            "Keras's momentum keeps the old rate for a while after a step",
        ),
    },
    "dgl": {
        "optimizer": ("SGD", {"momentum": 0.9}),
        "schedule": ("steps", {"rate": 0.1, "factor": 0.2, "at": (15, 30, 45)}),
        "batch_size": 128,
        "epochs": 50,
        "gain": 1.0,
        "smoothing": 0.0,
        "decay": 5e-4,
        "open": ("start of kernels",),
        "differs": ("decay is of the blocks, there of heads too",),
    },
}
"""How a row was trained. `decay` is coupled, of blocks and, where they are `ConvHead`, heads."""

TRAININGS["imagenet"] = {
    **TRAININGS["trgl_cifar100"],
    "padding": 0,
    "open": ("optimizer, rates, epochs, batch size: those of CIFAR-100 stand in",),
    "differs": ("images are resized to 224, there resized to 256 and cropped",),
}

# InfoPro's batch and rate on 32x32 images.
TRAININGS["infopro_cifar"] = {
    **TRAININGS["infopro"],
    "schedule": ("infopro", {"rate": 0.8}),
    "batch_size": 1024,
}

REFLECTED = ("trgl_swin", "infopro_cifar")
"""Trainings whose crops of 32x32 images mirror the border; the others pad zeros."""
