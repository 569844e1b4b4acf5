"""A recipe: all that a published experiment is made of, and the number that it reached."""

import dataclasses
import math
from typing import Any

import keras

from keras_trgl import architectures, callbacks, datasets, heads, methods, regimes
from keras_trgl.checks import check_integer
from keras_trgl.greedy_model import GreedyModel
from keras_trgl.recipes.settings import DATASETS
from keras_trgl.recording import shown
from keras_trgl.registration import public

WARM_UP_EPOCHS, FLOOR = 10, 0.01
"""InfoPro's schedule: epochs of its beginning, and the rate that it begins with."""


@dataclasses.dataclass(frozen=True, repr=False)
class Part:
    """A class or function by its name in this package or in Keras, and its arguments."""

    name: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"

    def make(self, room: Any, **more: Any) -> Any:
        """Give the object.

        Args:
            room: module that has the name.
            **more: further arguments.
        """
        return getattr(room, self.name)(**self.settings, **more)


@public
@dataclasses.dataclass(frozen=True, repr=False)
class Recipe:
    """A published experiment: network, stages, method, training, data, and what it reached.

    Parts are names in this package with their arguments, so a recipe is read, compared and changed
    (`dataclasses.replace`) as data. `make` gives the model, `load` the data, `stream` its batches.

    Args:
        name: str, `method/data/network/kK`, and what tells rows of it apart.
        blocks: `Part`, a function of `architectures`.
        stage_sizes: tuple of K ints, blocks per stage.
        heads: tuple of K `Part`, classes of `heads`; below the last stage some methods bring
            their own.
        method: `Part`, a class of `methods`.
        regime: `Part`, a class of `regimes`.
        optimizer: `Part`, a class of `keras.optimizers`.
        schedule: `Part`: `"constant"`, `"steps"`, `"cosine"`, `"warm_cosine"` or `"infopro"`.
        callbacks: tuple of `Part`, classes of `callbacks`.
        smoothing: float in [0, 1). Share of the labels that is spread over all classes.
        dataset: str, of `settings.DATASETS`.
        train_size: int or `None`, number of training images; `None` where it is open.
        batch_size: int ≥ 1, examples.
        epochs: int ≥ 1. In turn, those of the first stage.
        padding: int ≥ 0, pixels of the random crop.
        padding_mode: `"constant"` or `"reflect"`.
        accuracy: float. Published test accuracy, in %.
        half_width: float or `None`. Of the 95 % interval of the accuracy, in %.
        memory_saved: int or `None`. Share of end-to-end training's bytes, in %.
        source: str. Who says so.
        open: tuple of str. What the paper leaves open, and what stands in. Defaults to `()`.
        differs: tuple of str. What is done in another way here. Defaults to `()`.
        lacks: tuple of str. What this package has no form of; `make` then refuses. Defaults to
            `()`.

    Example:
        >>> import keras_trgl as trgl
        >>> recipe = trgl.recipes.get("infopro/stl10/resnet110/k4")
        >>> recipe.stage_sizes, recipe.epochs, recipe.accuracy
        ((12, 14, 14, 14), 160, 78.72)

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, tables 1 to 6, and the papers that it cites.
    """

    name: str
    blocks: Part
    stage_sizes: tuple[int, ...]
    heads: tuple[Part, ...]
    method: Part
    regime: Part
    optimizer: Part
    schedule: Part
    callbacks: tuple[Part, ...]
    smoothing: float
    dataset: str
    train_size: int | None
    batch_size: int
    epochs: int
    padding: int
    padding_mode: str
    accuracy: float
    half_width: float | None
    memory_saved: int | None
    source: str
    open: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kept = {key: getattr(self, key) for key in ("blocks", "method", "dataset", "epochs")}
        return shown(self, name=self.name, **kept, accuracy=self.accuracy, open=self.open)

    @property
    def num_stages(self) -> int:
        """K, the number of stages."""
        return len(self.stage_sizes)

    def load(self, data_dir: Any = None, seed: int = 0) -> Any:
        """Load the data, as many training images as the experiment had.

        Args:
            data_dir: as in `datasets.load`. Defaults to `None`.
            seed: int ≥ 0. Which images are drawn. Defaults to `0`.

        Returns:
            `ImageData`. Its test part is the whole one; the published numbers are of half of it.
        """
        name, shape, _, all_of_them = DATASETS[self.dataset]
        more: dict[str, Any] = {"image_size": shape[:2]} if name == "folder" else {}
        data = datasets.load(name, data_dir=data_dir, **more)
        size = self.train_size
        return data if size is None or size == all_of_them else data.subset(size, seed)

    def stream(self, data: Any, seed: int = 0) -> Any:
        """Give the training part as the experiment's batches: its crops, one-hot labels.

        Args:
            data: `ImageData`.
            seed: int ≥ 0. Seed of order and augmentation. Defaults to `0`.

        Returns:
            `BatchStream`.
        """
        return datasets.BatchStream(
            data.x_train,
            keras.utils.to_categorical(data.y_train, data.num_classes),
            batch_size=self.batch_size,
            seed=seed,
            transform=datasets.Chain(
                datasets.PadCropFlip(self.padding, data.flip, self.padding_mode),
                datasets.Normalize(data.mean, data.std),
            ),
        )

    def make_callbacks(self) -> list[Any]:
        """Give the callbacks that the experiment needs, for `fit`.

        Returns:
            List of callbacks; empty for most.
        """
        return [one.make(callbacks) for one in self.callbacks]

    def make(
        self, data: Any = None, epochs: int | None = None, seed: int | None = None, **kwargs: Any
    ) -> GreedyModel:
        """Make the model, compiled with the experiment's optimizer, schedule and loss.

        Args:
            data: `ImageData` that it is to be trained on; its shape, classes and number of
                images then count. Defaults to `None`: the published ones.
            epochs: int ≥ 1, that the schedule runs over. Defaults to `None`: the published.
            seed: as in `GreedyModel`. Defaults to `None`.
            **kwargs: as in `compile`: `metrics`, `micro_batches`, `remat`, …

        Returns:
            `GreedyModel`.

        Raises:
            ValueError: a part of it is not in this package; or data that the network does not
                take.
        """
        if epochs is not None:
            check_integer("epochs", epochs, 1)
        if self.lacks:
            raise ValueError(
                f"A recipe is made of what this package has. Received: {self.name!r}, which needs "
                f"{' and '.join(self.lacks)}. Take another of `recipes.list()`."
            )
        _, shape, classes, images = DATASETS[self.dataset]
        images = self.train_size or images
        if data is not None:
            shape, classes, images = data.input_shape, data.num_classes, len(data.y_train)
        steps = -(-images // self.batch_size)
        regime = dict(self.regime.settings)
        if epochs is not None and "epochs" in regime:
            regime["epochs"] = epochs
        model = GreedyModel.from_blocks(
            self.blocks.make(architectures, input_shape=shape),
            list(self.stage_sizes),
            [head.make(heads, units=classes) for head in self.heads],
            method=self._method(data),
            regime=Part(self.regime.name, regime).make(regimes),
            seed=seed,
        )
        settings = dict(self.optimizer.settings)
        excluded = settings.pop("no_decay", None)
        rate = rates(self.schedule, steps, epochs or self.epochs)
        optimizer = Part(self.optimizer.name, settings).make(keras.optimizers, learning_rate=rate)
        if excluded:
            optimizer.exclude_from_weight_decay(var_names=list(excluded))
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=self.smoothing
        )
        model.compile(optimizer, loss, **{"metrics": ["accuracy"], **kwargs})
        return model

    def _method(self, data: Any) -> Any:
        """Give the method; one that rebuilds images is told how they were normalized."""
        if self.method.name != "InfoPro" or data is None:
            return self.method.make(methods)
        return self.method.make(methods, mean=list(data.mean), std=list(data.std))


def rates(schedule: Part, steps: int, epochs: int) -> Any:
    """Give a rate, or a schedule of Keras's.

    Args:
        schedule: `Part`, its name and numbers.
        steps: int ≥ 1, of an epoch.
        epochs: int ≥ 1.
    """
    made = keras.optimizers.schedules
    at = schedule.settings
    rate = at["rate"]
    if schedule.name == "constant":
        return rate
    if schedule.name == "cosine":
        return made.CosineDecay(rate, at["steps"], alpha=at["floor"] / rate)
    if schedule.name == "warm_cosine":
        warm = min(at["warm_up"], epochs - 1) * steps
        rest = epochs * steps - warm
        alpha = at["floor"] / rate
        if not warm:
            return made.CosineDecay(rate, rest, alpha=alpha)
        return made.CosineDecay(at["start"], rest, alpha, warmup_target=rate, warmup_steps=warm)
    if schedule.name == "steps":
        changes = [epoch for epoch in at["at"] if epoch < epochs]
        values = [rate * at["factor"] ** k for k in range(len(changes) + 1)]
    else:
        changes = list(range(1, epochs))
        values = [infopro_rate(rate, epoch, epochs) for epoch in range(1, epochs + 1)]
    if not changes:
        return values[0]
    # Keras takes the value before a boundary up to and with that step, counted from 0.
    return made.PiecewiseConstantDecay([epoch * steps - 1 for epoch in changes], values)


def infopro_rate(rate: float, epoch: int, epochs: int) -> float:
    """Give the rate of an epoch, 1 to `epochs`, by InfoPro's code: a cosine, warmed up."""
    cosine = 0.5 * rate * (1 + math.cos(math.pi * epoch / epochs))
    if epoch > WARM_UP_EPOCHS:
        return cosine
    return (cosine * (epoch - 1) + FLOOR * (WARM_UP_EPOCHS + 1 - epoch)) / WARM_UP_EPOCHS
