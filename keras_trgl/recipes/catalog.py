"""Recipes by name: rows of tables put together."""

import difflib
from typing import Any

from keras_trgl import methods
from keras_trgl.heads.sedona import DEPTHS
from keras_trgl.recipes.recipe import Part, Recipe
from keras_trgl.recipes.settings import (
    DATASETS,
    GRIDS,
    INFO_PRO,
    METHODS,
    NETWORKS,
    REFLECTED,
    STEMS,
    TRAININGS,
)
from keras_trgl.recipes.targets import (
    LACKS,
    OPEN,
    OPEN_SIZES,
    SOURCES,
    TARGETS,
    TRAIN_SIZES,
    Target,
)
from keras_trgl.registration import public
from keras_trgl.splitting.by_depth import by_depth
from keras_trgl.splitting.published import published

OTHERS_HEADS = ("infopro", "infopro_cifar", "sedona", "pred_sim", "ddg", "dgl")
BRINGS_HEADS = ("dgl", "sedona", "softmax open")
"""Trainings and methods of other papers, whose last head is the network's own classifier."""

NOT_LIKE_OURS = "the number is a maximum over depths and epochs, on half of the test images"


class RecipeTable(tuple[Recipe, ...]):
    """Recipes in the order of the published tables; shown as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        lines = [f"{'name':58} {'accuracy, %':>13} {'saved':>5} {'epochs':>6}  open, lacking"]
        for one in self:
            half = "" if one.half_width is None else f" ± {one.half_width:.2f}"
            saved = "" if one.memory_saved is None else f"{one.memory_saved} %"
            notes = [*(f"lacks {what}" for what in one.lacks), *one.open]
            reached = f"{one.accuracy:.2f}{half}"
            lines.append(
                f"{one.name:58} {reached:>13} {saved:>5} {one.epochs:>6}  {'; '.join(notes)}"
            )
        return "\n".join(line.rstrip() for line in lines)


@public
def get(name: str) -> Recipe:
    """Give a published experiment as data.

    Args:
        name: str, such as `"trgl/stl10/resnet110/k4"`; `recipes.list()` has all of them.

    Returns:
        `Recipe`.

    Raises:
        ValueError: no such name.

    Example:
        >>> import keras_trgl as trgl
        >>> trgl.recipes.get("trgl/stl10/resnet110/k4").method
        TRGL(tau=1.0, rule='doubled')
    """
    rows = {row[0]: row for row in TARGETS}
    if name not in rows:
        near = difflib.get_close_matches(str(name), rows, n=3, cutoff=0.3)
        raise ValueError(
            f"`name` must be one of `recipes.list()`. Received: name={name!r}. "
            f"Near it: {', '.join(map(repr, near or [*rows][:3]))}."
        )
    return _recipe(rows[name])


@public
def list(contains: str = "") -> RecipeTable:
    """Give all published experiments, or those with some words in their names.

    Args:
        contains: str. Words, apart from each other, that a name must have between its slashes:
            `"trgl stl10"`. Defaults to `""`.

    Returns:
        Tuple of `Recipe`, shown as a table: accuracy, memory saved, epochs, what is open.

    Example:
        >>> import keras_trgl as trgl
        >>> [one.name for one in trgl.recipes.list("trgl stl10 balanced")]
        ['trgl/stl10/resnet110/k2/balanced', 'trgl/stl10/resnet110/k4/balanced']
    """
    wanted = set(contains.split())
    return RecipeTable(_recipe(row) for row in TARGETS if wanted <= set(row[0].split("/")))


def _recipe(row: Target) -> Recipe:
    """Put a row together with what it names."""
    name, trained, split, told, accuracy, half, saved, source = row
    words = name.split("/")
    dataset, network = words[1:3]
    training = TRAININGS[trained]
    regime = words[4] if len(words) > 4 and words[4] != "balanced" else "parallel"
    sizes = _sizes(split, network, int(words[3][1:]), regime)
    method = _method(told)
    known = {*words, trained, split, *told.split()}
    lacks = [f"`methods.{method.name}`"] if not hasattr(methods, method.name) else []
    lacks += [LACKS[name]] if name in LACKS else []
    smoothing, (_, _, classes, images) = training["smoothing"], DATASETS[dataset]
    if training.get("smooths") == "others":
        # 1 − ε on the label and ε/(C − 1) elsewhere.
        smoothing *= classes / (classes - 1)
    mirrored = trained in REFLECTED and dataset.startswith("cifar")
    optimizer = Part(*training["optimizer"])
    if optimizer.name == "AdamW":
        decays = {"no_decay": ("bias", "gamma", "beta", "relative_position_bias")}
        optimizer = Part("AdamW", {**optimizer.settings, **decays})
    return Recipe(
        name=name,
        blocks=_blocks(network, dataset, trained, regime),
        stage_sizes=tuple(sizes),
        heads=_heads(network, len(sizes), trained, told),
        method=method,
        regime=_regime(regime, training, len(sizes)),
        optimizer=optimizer,
        schedule=Part(*training["schedule"]),
        callbacks=_callbacks(told),
        smoothing=smoothing,
        dataset=dataset,
        train_size=None if words[-1] in OPEN_SIZES else TRAIN_SIZES.get(words[-1], images),
        batch_size=training["batch_size"],
        epochs=training["epochs"],
        padding=training.get("padding", 4),
        padding_mode="reflect" if mirrored else "constant",
        accuracy=accuracy,
        half_width=half,
        memory_saved=saved,
        source=SOURCES[source],
        open=(*training.get("open", ()), *(text for those, text in OPEN if those <= known)),
        differs=(*training.get("differs", ()), NOT_LIKE_OURS),
        lacks=tuple(lacks),
    )


def _sizes(split: str, network: str, num_stages: int, regime: str) -> Any:
    blocks = NETWORKS[network][2]
    if split == "one":
        # In turn the encoder is a stage of its own.
        return [1] * (blocks + (regime != "parallel"))
    if split == "all":
        return [blocks]
    if split == "half":
        return by_depth(range(blocks), num_stages)
    return published(split, num_stages)


def _method(told: str) -> Part:
    variant, _, weights = told.partition(" ")
    if not weights:
        return Part(*METHODS[told])
    return Part("InfoPro", {"variant": variant, **INFO_PRO[weights]})


def _blocks(network: str, dataset: str, trained: str, regime: str) -> Part:
    function, settings, _ = NETWORKS[network]
    settings, training = dict(settings), TRAININGS[trained]
    if function == "swin_tiny":
        return Part(function, {**settings, **GRIDS[dataset]})
    if function == "blockwise_resnet" and regime != "parallel":
        settings["separate_encoder"] = True
    if function == "resnet" and trained == "infopro":
        settings["shortcut"] = "conv"
    if function in ("resnet50", "resnet101", "resnet152"):
        settings["stem"] = STEMS.get(dataset, dataset)
    return Part(function, {**settings, "gain": training["gain"], "weight_decay": training["decay"]})


def _heads(network: str, num_stages: int, trained: str, told: str) -> tuple[Part, ...]:
    training = TRAININGS[trained]
    if network == "swin_tiny":
        return (Part("NormHead"),) * num_stages
    if trained not in OTHERS_HEADS and told not in BRINGS_HEADS:
        conv = {"gain": training["gain"], "weight_decay": training["decay"]}
        return (Part("ConvHead", conv),) * num_stages
    last = Part("DenseHead", {"pool": 2}) if network == "vgg19" else Part("LinearHead")
    if told == "sedona":
        depths = DEPTHS[network][num_stages]
        return (*(Part("SedonaHead", {"depth": depth}) for depth in depths), last)
    return (*(Part("LinearHead"),) * (num_stages - 1), last)


def _regime(regime: str, training: Any, num_stages: int) -> Part:
    if regime == "parallel":
        return Part("Parallel")
    more = training["more_epochs"]
    epochs = [training["epochs"] + more * k for k in range(num_stages)]
    laps = {"num_laps": 5} if regime == "multi_lap" else {}
    return Part("MultiLap" if laps else "Sequential", {"epochs": epochs, **laps})


def _callbacks(told: str) -> tuple[Part, ...]:
    if told != "trgl_multiplier":
        return ()
    return (Part("MultiplierUpdate", {"h": 1.0, "s": 50, "initial": 1.0}),)
