"""What `fit` meets at the door: the model's settings, and data in an order to replay."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_trgl.datasets.batch_stream import BatchStream, ordered_py_dataset


@dataclasses.dataclass
class TrainingData:
    """The arguments of Keras's own `fit` that carry data.

    Attributes:
        x: dataset or array that `keras.Model.fit` takes.
        y: targets, where `x` holds none.
        sample_weight: weights, where `x` holds none.
        shuffle: bool. Whether Keras shuffles; never, where the order is ours.
        steps_per_epoch: int or `None`.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    shuffle: bool = False
    steps_per_epoch: int | None = None

    @property
    def element_spec(self) -> Any:
        """Shapes and types of a batch, or `None` where only the first batch would tell."""
        return getattr(self.x, "element_spec", None)


def is_array_like(x: Any) -> bool:
    """Tell whether `x` holds arrays or tensors, rather than being a dataset or a generator."""
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(hasattr(leaf, "__array__") for leaf in leaves)


def ordered(
    x: Any,
    y: Any,
    sample_weight: Any,
    *,
    batch_size: int | None,
    shuffle: bool,
    steps_per_epoch: int | None,
    initial_epoch: int,
    seed: int,
) -> TrainingData:
    """Give data whose order is a function of (seed, epoch, step), where that is ours to say.

    Arrays become a `BatchStream`, a `PyDataset` is read in a permuted order. A `tf.data` pipeline
    or a generator keeps its own order.
    """
    if isinstance(x, BatchStream):
        if y is not None or sample_weight is not None:
            raise ValueError(
                "A `BatchStream` holds targets and weights itself. Received: y or sample_weight "
                "beside it. Pass them to `BatchStream(x, y, sample_weight)`."
            )
        stream = x
    elif isinstance(x, keras.utils.PyDataset):
        # Keras would draw the order from Python's random state: not a function of the epoch.
        data = x
        if shuffle:
            data = ordered_py_dataset(x, seed, initial_epoch, steps_per_epoch)
        return TrainingData(data, y, sample_weight, False, steps_per_epoch)
    elif is_array_like(x):
        stream = BatchStream(
            x, y, sample_weight, batch_size=batch_size or 32, shuffle=shuffle, seed=seed
        )
    else:
        return TrainingData(x, y, sample_weight, False, steps_per_epoch)
    steps = steps_per_epoch or stream.steps_per_epoch
    return TrainingData(stream.from_step(initial_epoch * steps), steps_per_epoch=steps)


def split_validation(arrays: tuple[Any, ...], fraction: float) -> tuple[tuple[Any, ...], Any]:
    """Give (training arrays, validation arrays): the last `fraction` of the examples validates.

    Raises:
        ValueError: `fraction` leaves one of the two without an example, or the data are no
            arrays.
    """
    if not is_array_like(arrays[0]):
        raise ValueError(
            "`validation_split` needs arrays. Received: "
            f"{type(arrays[0]).__name__}. Pass `validation_data` instead."
        )
    total = len(keras.tree.flatten(arrays[0])[0])
    cut = int(total * (1.0 - fraction))
    if not 0 < cut < total:
        raise ValueError(
            "`validation_split` must leave examples on both sides. Received: "
            f"validation_split={fraction} of {total} examples."
        )

    def take(part: slice) -> tuple[Any, ...]:
        return tuple(
            None if one is None else keras.tree.map_structure(lambda a: a[part], one)
            for one in arrays
        )

    return take(slice(0, cut)), take(slice(cut, None))


def check_labels(y: Any, units: int, where: str) -> None:
    """Raise unless the class indices in an array lie in [0, units); other data pass."""
    if y is None or not isinstance(y, np.ndarray) or not y.size:
        return
    low, high = y.min(), y.max()
    if low < 0 or high >= units:
        raise ValueError(
            f"Labels must be class indices 0 to {units - 1}, as the heads have {units} units. "
            f"Received: {where} with values {low} to {high}. Renumber the classes, or give the "
            f"heads `units={int(high) + 1}`."
        )


def check_ready(model: keras.Model) -> None:
    """Raise where Keras itself would fail later, or train something else without a word.

    Raises:
        ValueError: the model is not compiled, has no loss, or has settings that Keras does not
            support with several replicas.
    """
    if not model.compiled:
        raise ValueError(
            "A model must be compiled before it is trained or evaluated. Received: a model that "
            "is not. Call `model.compile(optimizer=…, loss=…)` first."
        )
    if model.loss is None:
        raise ValueError(
            "Every head needs a loss. Received: loss=None. Call `model.compile` with one."
        )
    replicas = model.distribute_strategy.num_replicas_in_sync
    optimizers = model.optimizer.optimizers
    accumulates = any(getattr(one, "gradient_accumulation_steps", None) for one in optimizers)
    if replicas > 1 and (accumulates or model.steps_per_execution > 1):
        raise ValueError(
            "Keras supports neither `gradient_accumulation_steps` nor `steps_per_execution` above "
            f"1 with several replicas. Received: {replicas} replicas. Leave them out."
        )
