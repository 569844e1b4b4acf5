"""Published accuracies, a row each: what reached what, how it was trained, who says so.

Columns: name `method/data/network/kK` (`/regime`, `/size`, where there are several), training of
`settings.TRAININGS`, split (`splitting.published`'s, or `"all"` one stage, `"one"` a block each),
method of `settings.METHODS` or `INFO_PRO`, test accuracy in %, half-width of the 95 % interval or
`None`, memory saved against end-to-end in % or `None`, source of `SOURCES`.
"""

from typing import TypeAlias

Target: TypeAlias = tuple[str, str, str, str, float, float | None, int | None, str]

SOURCES = {
    "trgl": "Karkar et al., NeurIPS 2023",
    "sedona": "Pyeon et al., ICLR 2021, as cited by Karkar et al., NeurIPS 2023",
    "infopro": "Wang et al., ICLR 2021, as cited by Karkar et al., NeurIPS 2023",
    "infopro_l": "Pathak et al., 2022, as cited by Karkar et al., NeurIPS 2023",
    "fr": "Huo et al., NeurIPS 2018, as cited by Karkar et al., NeurIPS 2023",
    "cited": "as cited by Karkar et al., NeurIPS 2023",
}

# fmt: off
TARGETS: tuple[Target, ...] = (
    # TinyImageNet, K = 4. The last four columns of the paper are Sedona's, with its recipe.
    ("vangl/tiny_imagenet/vgg19/k4", "trgl_cifar100", "trgl_vgg19", "vangl", 56.17, 0.29, 27, "trgl"),
    ("trgl/tiny_imagenet/vgg19/k4", "trgl_cifar100", "trgl_vgg19", "trgl_1e6", 57.28, 0.20, 21, "trgl"),
    ("pred_sim/tiny_imagenet/vgg19/k4", "pred_sim", "trgl_vgg19", "pred_sim", 44.70, None, None, "sedona"),
    ("dgl/tiny_imagenet/vgg19/k4", "sedona", "dgl_vgg19", "dgl", 51.40, None, None, "sedona"),
    ("sedona/tiny_imagenet/vgg19/k4", "sedona", "sedona_vgg19", "sedona", 56.56, None, None, "sedona"),
    ("end_to_end/tiny_imagenet/vgg19/k1", "sedona", "all", "end_to_end", 58.74, None, None, "sedona"),
    ("vangl/tiny_imagenet/resnet50/k4", "trgl_cifar100", "trgl_resnet50", "vangl", 58.43, 0.45, 26, "trgl"),
    ("trgl/tiny_imagenet/resnet50/k4", "trgl_cifar100", "trgl_resnet50", "trgl_1e6", 60.30, 0.58, 20, "trgl"),
    ("pred_sim/tiny_imagenet/resnet50/k4", "pred_sim", "trgl_resnet50", "pred_sim", 47.48, None, None, "sedona"),
    ("dgl/tiny_imagenet/resnet50/k4", "sedona", "dgl_resnet50", "dgl", 53.96, None, None, "sedona"),
    ("sedona/tiny_imagenet/resnet50/k4", "sedona", "sedona_resnet50", "sedona", 54.40, None, None, "sedona"),
    ("end_to_end/tiny_imagenet/resnet50/k1", "sedona", "all", "end_to_end", 58.10, None, None, "sedona"),
    ("vangl/tiny_imagenet/resnet101/k4", "trgl_cifar100", "trgl_resnet101", "vangl", 63.64, 0.30, 24, "trgl"),
    ("trgl/tiny_imagenet/resnet101/k4", "trgl_cifar100", "trgl_resnet101", "trgl_1e6", 63.71, 0.40, 11, "trgl"),
    ("pred_sim/tiny_imagenet/resnet101/k4", "pred_sim", "trgl_resnet101", "pred_sim", 53.92, None, None, "sedona"),
    ("dgl/tiny_imagenet/resnet101/k4", "sedona", "dgl_resnet101", "dgl", 53.80, None, None, "sedona"),
    ("sedona/tiny_imagenet/resnet101/k4", "sedona", "sedona_resnet101", "sedona", 59.12, None, None, "sedona"),
    ("end_to_end/tiny_imagenet/resnet101/k1", "sedona", "all", "end_to_end", 62.01, None, None, "sedona"),
    ("vangl/tiny_imagenet/resnet152/k4", "trgl_cifar100", "trgl_resnet152", "vangl", 63.87, 0.16, 21, "trgl"),
    ("trgl/tiny_imagenet/resnet152/k4", "trgl_cifar100", "trgl_resnet152", "trgl_1e6", 64.23, 0.14, 10, "trgl"),
    ("pred_sim/tiny_imagenet/resnet152/k4", "pred_sim", "trgl_resnet152", "pred_sim", 51.76, None, None, "sedona"),
    ("dgl/tiny_imagenet/resnet152/k4", "sedona", "dgl_resnet152", "dgl", 57.64, None, None, "sedona"),
    ("sedona/tiny_imagenet/resnet152/k4", "sedona", "sedona_resnet152", "sedona", 64.10, None, None, "sedona"),
    ("end_to_end/tiny_imagenet/resnet152/k1", "sedona", "all", "end_to_end", 62.32, None, None, "sedona"),
    # Swin-Tiny, K = 4. The last three columns are InfoProL's.
    ("vangl/stl10/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "vangl", 67.00, 1.36, 55, "trgl"),
    ("trgl/stl10/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "trgl_10", 67.92, 1.12, 50, "trgl"),
    ("infopro/stl10/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "softmax stl10_k4", 64.61, None, 38, "infopro_l"),
    ("infopro_l/stl10/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "infopro_l", 66.89, None, 45, "infopro_l"),
    ("end_to_end/stl10/swin_tiny/k1", "trgl_swin", "all", "end_to_end", 72.19, None, None, "infopro_l"),
    ("vangl/cifar10/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "vangl", 83.94, 0.42, 33, "trgl"),
    ("trgl/cifar10/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "trgl_10", 86.48, 0.54, 29, "trgl"),
    ("infopro/cifar10/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "softmax cifar10_k4", 83.38, None, 38, "infopro_l"),
    ("infopro_l/cifar10/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "infopro_l", 86.28, None, 45, "infopro_l"),
    ("end_to_end/cifar10/swin_tiny/k1", "trgl_swin", "all", "end_to_end", 91.37, None, None, "infopro_l"),
    ("vangl/cifar100/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "vangl", 69.34, 0.91, 33, "trgl"),
    ("trgl/cifar100/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "trgl_10", 74.11, 0.31, 29, "trgl"),
    ("infopro/cifar100/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "softmax cifar10_k4", 68.36, None, 38, "infopro_l"),
    ("infopro_l/cifar100/swin_tiny/k4", "trgl_swin", "trgl_swin_tiny", "infopro_l", 73.00, None, 45, "infopro_l"),
    ("end_to_end/cifar100/swin_tiny/k1", "trgl_swin", "all", "end_to_end", 75.03, None, None, "infopro_l"),
    # STL-10, ResNet-110. DGL, InfoPro and end-to-end are InfoPro's, with its recipe.
    ("vangl/stl10/resnet110/k2", "trgl_stl10", "trgl_resnet110", "vangl", 79.85, 0.93, None, "trgl"),
    ("trgl/stl10/resnet110/k2", "trgl_stl10", "trgl_resnet110", "trgl_100", 80.04, 0.85, None, "trgl"),
    ("dgl/stl10/resnet110/k2", "infopro", "infopro_resnet110", "dgl", 75.03, 1.18, None, "infopro"),
    ("infopro/stl10/resnet110/k2", "infopro", "infopro_resnet110", "softmax stl10_k2", 78.98, 0.51, None, "infopro"),
    ("infopro_contrast/stl10/resnet110/k2", "infopro", "infopro_resnet110", "contrast stl10_k2", 79.01, 0.64, None, "infopro"),
    ("vangl/stl10/resnet110/k4", "trgl_stl10", "trgl_resnet110", "vangl", 77.11, 2.31, 27, "trgl"),
    ("trgl/stl10/resnet110/k4", "trgl_stl10", "trgl_resnet110", "trgl_1", 79.72, 0.81, 24, "trgl"),
    ("dgl/stl10/resnet110/k4", "infopro", "infopro_resnet110", "dgl", 73.23, 0.64, None, "infopro"),
    ("infopro/stl10/resnet110/k4", "infopro", "infopro_resnet110", "softmax stl10_k4", 78.72, 0.27, 18, "infopro"),
    ("infopro_contrast/stl10/resnet110/k4", "infopro", "infopro_resnet110", "contrast stl10_k4", 77.27, 0.40, None, "infopro"),
    ("vangl/stl10/resnet110/k8", "trgl_stl10", "trgl_resnet110", "vangl", 75.71, 0.55, 50, "trgl"),
    ("trgl/stl10/resnet110/k8", "trgl_stl10", "trgl_resnet110", "trgl_1", 77.82, 0.73, 48, "trgl"),
    ("dgl/stl10/resnet110/k8", "infopro", "infopro_resnet110", "dgl", 72.67, 0.24, None, "infopro"),
    ("infopro/stl10/resnet110/k8", "infopro", "infopro_resnet110", "softmax stl10_k8", 76.40, 0.49, 37, "infopro"),
    ("infopro_contrast/stl10/resnet110/k8", "infopro", "infopro_resnet110", "contrast stl10_k8", 74.85, 0.52, None, "infopro"),
    ("vangl/stl10/resnet110/k16", "trgl_stl10", "trgl_resnet110", "vangl", 73.57, 0.95, 61, "trgl"),
    ("trgl/stl10/resnet110/k16", "trgl_stl10", "trgl_resnet110", "trgl_1", 77.22, 1.20, 58, "trgl"),
    ("dgl/stl10/resnet110/k16", "infopro", "infopro_resnet110", "dgl", 72.27, 0.58, None, "infopro"),
    ("infopro/stl10/resnet110/k16", "infopro", "infopro_resnet110", "softmax stl10_k16", 73.95, 0.71, 59, "infopro"),
    ("infopro_contrast/stl10/resnet110/k16", "infopro", "infopro_resnet110", "contrast stl10_k16", 73.73, 0.48, None, "infopro"),
    ("end_to_end/stl10/resnet110/k1", "infopro", "all", "end_to_end", 77.73, 1.61, None, "infopro"),
    # The same, stages of equal weight.
    ("vangl/stl10/resnet110/k2/balanced", "trgl_stl10", "trgl_resnet110_balanced", "vangl", 79.05, 1.33, None, "trgl"),
    ("trgl/stl10/resnet110/k2/balanced", "trgl_stl10", "trgl_resnet110_balanced", "trgl_1", 79.47, 1.36, None, "trgl"),
    ("infopro/stl10/resnet110/k2/balanced", "infopro", "infopro_resnet110_balanced", "softmax stl10_k2_balanced", 79.05, 0.57, None, "infopro"),
    ("vangl/stl10/resnet110/k4/balanced", "trgl_stl10", "trgl_resnet110_balanced", "vangl", 77.14, 1.23, 41, "trgl"),
    ("trgl/stl10/resnet110/k4/balanced", "trgl_stl10", "trgl_resnet110_balanced", "trgl_1", 78.94, 1.13, 39, "trgl"),
    ("infopro/stl10/resnet110/k4/balanced", "infopro", "infopro_resnet110_balanced", "softmax stl10_k4_balanced", 78.78, 0.72, 33, "infopro"),
    # CIFAR-100, ten blocks of one, by training images. In turn the encoder is a stage of its own.
    ("vangl/cifar100/resnet10-1/k11/sequential/50000", "in_turn", "one", "vangl", 68.74, 0.45, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k11/sequential/50000", "in_turn", "one", "trgl_open", 68.79, 0.56, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k11/multi_lap/50000", "in_turn", "one", "vangl", 69.48, 0.53, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k11/multi_lap/50000", "in_turn", "one", "trgl_open", 69.95, 0.50, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k10/parallel/50000", "parallel", "one", "vangl", 72.59, 0.40, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k10/parallel/50000", "parallel", "one", "trgl_open", 72.63, 0.40, None, "trgl"),
    ("end_to_end/cifar100/resnet10-1/k1/parallel/50000", "end_to_end", "all", "end_to_end", 75.85, 0.70, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k11/sequential/25000", "in_turn", "one", "vangl", 60.48, 0.15, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k11/sequential/25000", "in_turn", "one", "trgl_open", 60.59, 0.14, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k11/multi_lap/25000", "in_turn", "one", "vangl", 61.33, 0.23, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k11/multi_lap/25000", "in_turn", "one", "trgl_open", 61.71, 0.32, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k10/parallel/25000", "parallel", "one", "vangl", 64.84, 0.19, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k10/parallel/25000", "parallel", "one", "trgl_open", 65.01, 0.27, None, "trgl"),
    ("end_to_end/cifar100/resnet10-1/k1/parallel/25000", "end_to_end", "all", "end_to_end", 65.36, 0.31, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k11/sequential/12500", "in_turn", "one", "vangl", 51.64, 0.33, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k11/sequential/12500", "in_turn", "one", "trgl_open", 51.74, 0.26, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k11/multi_lap/12500", "in_turn", "one", "vangl", 51.30, 0.22, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k11/multi_lap/12500", "in_turn", "one", "trgl_open", 51.89, 0.30, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k10/parallel/12500", "parallel", "one", "vangl", 55.13, 0.24, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k10/parallel/12500", "parallel", "one", "trgl_open", 55.40, 0.35, None, "trgl"),
    ("end_to_end/cifar100/resnet10-1/k1/parallel/12500", "end_to_end", "all", "end_to_end", 52.39, 0.97, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k11/sequential/5000", "in_turn", "one", "vangl", 36.37, 0.33, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k11/sequential/5000", "in_turn", "one", "trgl_open", 36.40, 0.40, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k11/multi_lap/5000", "in_turn", "one", "vangl", 33.68, 0.48, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k11/multi_lap/5000", "in_turn", "one", "trgl_open", 34.61, 0.59, None, "trgl"),
    ("vangl/cifar100/resnet10-1/k10/parallel/5000", "parallel", "one", "vangl", 39.45, 0.23, None, "trgl"),
    ("trgl/cifar100/resnet10-1/k10/parallel/5000", "parallel", "one", "trgl_open", 40.36, 0.23, None, "trgl"),
    ("end_to_end/cifar100/resnet10-1/k1/parallel/5000", "end_to_end", "all", "end_to_end", 36.38, 0.31, None, "trgl"),
    # CIFAR-100, K = 2. DDG, FR and end-to-end are FR's.
    ("vangl/cifar100/resnet101/k2", "trgl_cifar100", "trgl_resnet101", "vangl", 77.31, 0.27, None, "trgl"),
    ("trgl/cifar100/resnet101/k2", "trgl_cifar100", "trgl_resnet101", "trgl_multiplier", 77.87, 0.44, None, "trgl"),
    ("ddg/cifar100/resnet101/k2", "ddg", "trgl_resnet101", "ddg", 75.75, None, None, "fr"),
    ("fr/cifar100/resnet101/k2", "ddg", "trgl_resnet101", "fr", 76.90, None, None, "fr"),
    ("end_to_end/cifar100/resnet101/k1", "ddg", "all", "end_to_end", 76.52, None, None, "fr"),
    ("vangl/cifar100/resnet152/k2", "trgl_cifar100", "trgl_resnet152", "vangl", 75.40, 0.75, None, "trgl"),
    ("trgl/cifar100/resnet152/k2", "trgl_cifar100", "trgl_resnet152", "trgl_multiplier", 76.55, 1.90, None, "trgl"),
    ("ddg/cifar100/resnet152/k2", "ddg", "trgl_resnet152", "ddg", 73.61, None, None, "fr"),
    ("fr/cifar100/resnet152/k2", "ddg", "trgl_resnet152", "fr", 76.39, None, None, "fr"),
    ("end_to_end/cifar100/resnet152/k1", "ddg", "all", "end_to_end", 74.80, None, None, "fr"),
    ("vangl/cifar100/resnet101/k2/sequential", "in_turn", "trgl_resnet101", "vangl", 73.31, None, None, "trgl"),
    ("trgl/cifar100/resnet101/k2/sequential", "in_turn", "trgl_resnet101", "trgl_open", 73.61, None, None, "trgl"),
    ("vangl/cifar100/resnet101/k2/multi_lap", "in_turn", "trgl_resnet101", "vangl", 74.34, None, None, "trgl"),
    ("trgl/cifar100/resnet101/k2/multi_lap", "in_turn", "trgl_resnet101", "trgl_open", 74.78, None, None, "trgl"),
    # CIFAR-10, two stages of seven blocks.
    ("vangl/cifar10/resnet2-7/k2", "parallel", "half", "vangl", 94.01, 0.17, None, "trgl"),
    ("trgl/cifar10/resnet2-7/k2", "parallel", "half", "trgl_open", 94.05, 0.18, None, "trgl"),
    ("dgl/cifar10/resnet2-7/k2", "dgl", "half", "dgl", 93.50, None, None, "cited"),
    ("ddg/cifar10/resnet2-7/k2", "ddg", "half", "ddg", 93.41, None, None, "cited"),
    ("infopro/cifar10/resnet2-7/k2", "infopro", "half", "softmax cifar10_k2", 93.58, None, None, "cited"),
    # ImageNet, K = 2.
    ("vangl/imagenet/resnet101/k2", "imagenet", "trgl_resnet101", "vangl", 78.11, None, None, "trgl"),
    ("trgl/imagenet/resnet101/k2", "imagenet", "trgl_resnet101", "trgl_open", 79.41, None, None, "trgl"),
    ("dgl/imagenet/resnet101/k2", "imagenet", "half", "dgl", 78.47, None, None, "cited"),
    ("sedona/imagenet/resnet101/k2", "imagenet", "sedona_resnet101", "sedona", 79.28, None, None, "cited"),
    ("infopro/imagenet/resnet101/k2", "imagenet", "half", "softmax open", 78.15, None, None, "cited"),
    ("end_to_end/imagenet/resnet101/k1", "imagenet", "all", "end_to_end", 78.71, None, None, "cited"),
    # CIFAR-10, ten blocks of one, last block, by size of the training set: `size1` all, `size5` 2 %.
    ("vangl/cifar10/resnet10-1/k11/sequential/size1", "in_turn", "one", "vangl", 88.02, None, None, "trgl"),
    ("trgl/cifar10/resnet10-1/k11/sequential/size1", "in_turn", "one", "trgl_open", 88.20, None, None, "trgl"),
    ("end_to_end/cifar10/resnet10-1/k1/parallel/size1", "end_to_end", "all", "end_to_end", 91.88, None, None, "trgl"),
    ("vangl/cifar10/resnet10-1/k11/sequential/size2", "in_turn", "one", "vangl", 83.95, None, None, "trgl"),
    ("trgl/cifar10/resnet10-1/k11/sequential/size2", "in_turn", "one", "trgl_open", 84.28, None, None, "trgl"),
    ("end_to_end/cifar10/resnet10-1/k1/parallel/size2", "end_to_end", "all", "end_to_end", 88.75, None, None, "trgl"),
    ("vangl/cifar10/resnet10-1/k11/sequential/size3", "in_turn", "one", "vangl", 76.00, None, None, "trgl"),
    ("trgl/cifar10/resnet10-1/k11/sequential/size3", "in_turn", "one", "trgl_open", 77.18, None, None, "trgl"),
    ("end_to_end/cifar10/resnet10-1/k1/parallel/size3", "end_to_end", "all", "end_to_end", 82.61, None, None, "trgl"),
    ("vangl/cifar10/resnet10-1/k11/sequential/size4", "in_turn", "one", "vangl", 67.74, None, None, "trgl"),
    ("trgl/cifar10/resnet10-1/k11/sequential/size4", "in_turn", "one", "trgl_open", 69.67, None, None, "trgl"),
    ("end_to_end/cifar10/resnet10-1/k1/parallel/size4", "end_to_end", "all", "end_to_end", 73.93, None, None, "trgl"),
    ("vangl/cifar10/resnet10-1/k11/sequential/size5", "in_turn", "one", "vangl", 45.67, None, None, "trgl"),
    ("trgl/cifar10/resnet10-1/k11/sequential/size5", "in_turn", "one", "trgl_open", 51.34, None, None, "trgl"),
    ("end_to_end/cifar10/resnet10-1/k1/parallel/size5", "end_to_end", "all", "end_to_end", 50.63, None, None, "trgl"),
)
# fmt: on

TRAIN_SIZES = {
    "50000": 50000,
    "25000": 25000,
    "12500": 12500,
    "5000": 5000,
    "size1": 50000,
    "size5": 1000,
}
"""Training images of the last word of a name; the sizes between CIFAR-10's are open."""

OPEN_SIZES = ("size2", "size3", "size4")

OPEN: tuple[tuple[set[str], str], ...] = (
    ({"trgl_open"}, "τ: to be chosen on held-out images"),
    ({"trgl", "balanced"}, "τ of stages of equal weight"),
    ({"trgl", "swin_tiny", "cifar10"}, "τ"),
    ({"trgl", "swin_tiny", "cifar100"}, "τ"),
    ({"infopro_l"}, "λ1, λ2 and the decoder: there is no public code"),
    ({"softmax"}, "λ1 and λ2 of softmax: those of contrast stand in"),
    ({"infopro", "swin_tiny"}, "λ1 and λ2 for Swin: those of ResNet-110 stand in"),
    ({"cifar10", "swin_tiny"}, "patch size and window"),
    ({"cifar100", "swin_tiny"}, "patch size and window"),
    ({"size2"}, "number of training images"),
    ({"size3"}, "number of training images"),
    ({"size4"}, "number of training images"),
    ({"k2", "sequential"}, "epochs: those of ten blocks stand in"),
    ({"k2", "multi_lap"}, "epochs: those of ten blocks stand in"),
    ({"vgg19", "trgl_vgg19", "vangl"}, "heads: there is no public code"),
    ({"vgg19", "trgl_vgg19", "trgl"}, "heads: there is no public code"),
    ({"resnet2-7", "vangl"}, "optimizer, rate and epochs: those of ten blocks stand in"),
    ({"resnet2-7", "trgl"}, "optimizer, rate and epochs: those of ten blocks stand in"),
)
"""What a paper leaves open, for the rows that have all of some words.

Words of a row are the parts of its name, its training, its split and its method.
"""

LACKS: dict[str, str] = {
    "trgl/tiny_imagenet/vgg19/k4": "an energy of convolutions without a sum, T(x) − x",
}
"""What this package has no form of."""
