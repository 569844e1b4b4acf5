"""What `fit` meets at the door: the model's settings, and data in an order to replay."""

import dataclasses
import itertools
import tempfile
import types
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.datasets.batch_stream import BatchStream, as_written, ordered_py_dataset

CHECKPOINT = "iterator"
"""Name of the checkpoint that holds an iterator's place."""


@dataclasses.dataclass
class TrainingData:
    """The arguments of Keras's own `fit` that carry data.

    Attributes:
        x: dataset or array that `keras.Model.fit` takes.
        y: targets, where `x` holds none.
        sample_weight: weights, where `x` holds none.
        steps_per_epoch: int or `None`.
        source: what batches can be had from anew: `BatchStream`, `PyDataset`, dataset, or what
            the user gave.
        seed: int ≥ 0. Seed of the order.
        is_shuffled: bool. Whether the order is another one in every epoch.
        passes: `tf.data` pipeline of which every epoch is a pass, so that its place is a number
            of passes and batches, or `None`; then `x` stands for the data in Keras's loop only.
        kept_iterator: iterator of another `tf.data` pipeline whose place can be saved, or `None`;
            then `x` stands for the data in Keras's loop only.
        class_weight: dict of class index to weight that batches do not carry yet, or `None`.
        row: the endless batches of a stream from its step `row_begins` on, or `None`.
        row_begins: int.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    steps_per_epoch: int | None = None
    source: Any = None
    seed: int = 0
    is_shuffled: bool = False
    passes: Any = None
    kept_iterator: Any = None
    class_weight: Any = None
    row: Any = None
    row_begins: int = 0

    @property
    def stream(self) -> BatchStream | None:
        """The data as a `BatchStream`, if they are one."""
        return self.source if isinstance(self.source, BatchStream) else None

    @property
    def element_spec(self) -> Any:
        """Shapes and types of a batch, or `None` where only the first batch would tell."""
        is_ours = self.kept_iterator is not None or self.passes is not None
        data = self.source if is_ours else self.x
        return getattr(data, "element_spec", None)

    def from_step(self, step: int) -> tf.data.Dataset:
        """Give a stream's endless batches from a step on, counted over all epochs."""
        if self.row is not None and step == self.row_begins:
            return self.row
        stream = self.source
        return stream.from_step(step)

    def first_spec(self) -> Any:
        """Give shapes and types of a batch, if need be from the first one, which comes again."""
        if self.element_spec is not None:
            return self.element_spec
        if isinstance(self.source, keras.utils.PyDataset):
            first = self.source[0]
        elif isinstance(self.x, types.GeneratorType):
            first, self.x = _looked_into(self.x)
        else:
            return None
        return keras.tree.map_structure(
            lambda leaf: tf.TensorSpec([None, *np.shape(leaf)[1:]], _keras_type(leaf)),
            tuple(first),
        )

    @property
    def is_replayable(self) -> bool:
        """Whether any step's batch can be had again in another process."""
        by_index = isinstance(self.source, (BatchStream, keras.utils.PyDataset))
        return by_index or self.passes is not None


def _looked_into(generator: Any) -> tuple[Any, Any]:
    """Give a generator's first batch, and a generator that still has it.

    Raises:
        ValueError: it has none.
    """
    try:
        first = next(generator)
    except StopIteration:
        raise ValueError(
            "A generator must give a batch. Received: one that is at its end. Make a new one."
        ) from None
    return first, (batch for batch in itertools.chain([first], generator))


def _keras_type(leaf: Any) -> Any:
    """Give the type that Keras makes of an array."""
    kind = np.asarray(leaf).dtype
    return keras.config.floatx() if kind.kind == "f" else kind


def is_array_like(x: Any) -> bool:
    """Tell whether `x` holds arrays or tensors, rather than being a dataset or a generator."""
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(hasattr(leaf, "__array__") for leaf in leaves)


def ordered(
    arrays: tuple[Any, Any, Any],
    *,
    batch_size: int | None,
    shuffle: bool,
    steps_per_epoch: int | None,
    first: tuple[int, int],
    seed: int,
    keeps_place: bool,
    class_weight: Any = None,
) -> TrainingData:
    """Give data whose order is a function of (seed, epoch, step), where that is ours to say.

    Arrays become a `BatchStream`, a `PyDataset` is read in a permuted order. A `tf.data` pipeline
    or a generator keeps its own order.

    Args:
        arrays: `(x, y, sample_weight)`, as given to `fit`.
        batch_size: int or `None`, which is 32.
        shuffle: bool. Whether to shuffle arrays and `PyDataset`s.
        steps_per_epoch: int or `None`.
        first: epoch and step of it that come first.
        seed: int ≥ 0.
        keeps_place: bool. Whether to keep the place in a `tf.data` pipeline, if it can be kept.
        class_weight: dict of class index to weight, or `None`. Defaults to `None`.
    """
    x, y, sample_weight = arrays
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
            data = ordered_py_dataset(x, seed, first[0], steps_per_epoch)
        return TrainingData(
            data,
            y,
            sample_weight,
            steps_per_epoch,
            x,
            seed,
            shuffle,
            class_weight=class_weight,
        )
    elif is_array_like(x):
        stream = BatchStream(
            x, y, sample_weight, batch_size=batch_size or 32, shuffle=shuffle, seed=seed
        )
    elif keeps_place and isinstance(x, tf.data.Dataset):
        return _with_kept_place(x, steps_per_epoch, class_weight)
    else:
        return TrainingData(
            x, y, sample_weight, steps_per_epoch, source=x, class_weight=class_weight
        )
    steps = steps_per_epoch or stream.steps_per_epoch
    begins = first[0] * steps + first[1]
    row = stream.from_step(begins)
    return TrainingData(
        of_length(row, steps),
        row=row,
        row_begins=begins,
        steps_per_epoch=steps,
        source=stream,
        seed=stream.seed,
        is_shuffled=stream.shuffle,
        class_weight=class_weight,
    )


def _with_kept_place(
    dataset: tf.data.Dataset, steps_per_epoch: int | None, class_weight: Any
) -> TrainingData:
    """Give a pipeline whose place can be kept, if that can be.

    Where an epoch is a pass, its place is told by numbers: every iterator over a pipeline draws
    its shuffle's next order, so a restored run makes as many. An endless one is read through one
    iterator, whose checkpoint holds the batches to come but not the orders of later passes. A
    checkpoint holds no random state outside the pipeline, nor that of Python functions: trying
    one tells whether there is any.
    """
    count = int(dataset.cardinality())
    plain = TrainingData(
        dataset, steps_per_epoch=steps_per_epoch, source=dataset, class_weight=class_weight
    )
    if count == tf.data.UNKNOWN_CARDINALITY or (count < 0 and steps_per_epoch is None):
        return plain
    options = tf.data.Options()
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.FAIL
    dataset = weighed(dataset, class_weight)
    endless = (dataset if count < 0 else dataset.repeat()).with_options(options)
    iterator = iter(endless)
    try:
        iterator_files(iterator)
    except (tf.errors.OpError, ValueError, TypeError):
        return plain
    is_pass = count > 0 and steps_per_epoch in (None, count)
    return TrainingData(
        # Another iterator over the same pipeline would draw from the same shuffle.
        as_written(_blank_batches(dataset).repeat(steps_per_epoch or count)),
        steps_per_epoch=steps_per_epoch or count,
        source=dataset,
        passes=dataset if is_pass else None,
        kept_iterator=None if is_pass else iterator,
    )


def of_length(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Give the first batches of a dataset, as one that says how many they are."""
    first = dataset.take(count)
    return first.apply(tf.data.experimental.assert_cardinality(count))


def _blank_batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Give one batch of zeros in the shapes and types of a dataset, open axes of length 1."""

    def blank(spec: Any) -> Any:
        if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None:
            return tf.zeros([1])
        shape = [side or 1 for side in spec.shape]
        return tf.fill(shape, "") if spec.dtype == tf.string else tf.zeros(shape, spec.dtype)

    batch = tf.nest.map_structure(blank, dataset.element_spec)
    return tf.data.Dataset.from_tensors(batch)


def iterator_files(iterator: Any) -> dict[str, bytes]:
    """Give the place of an iterator as the files of a checkpoint.

    Raises:
        tf.errors.OpError: a part of the pipeline has a state that cannot be saved.
    """
    with tempfile.TemporaryDirectory() as folder:
        tf.train.Checkpoint(iterator=iterator).write(str(Path(folder) / CHECKPOINT))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def restore_iterator(iterator: Any, files: dict[str, bytes]) -> None:
    """Go to the place that `iterator_files` told."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / Path(name).name).write_bytes(content)
        tf.train.Checkpoint(iterator=iterator).read(str(Path(folder) / CHECKPOINT))


def weighed(dataset: tf.data.Dataset, class_weight: Any) -> tf.data.Dataset:
    """Give batches `(x, y)` with Keras's class weights as sample weights."""
    if not class_weight:
        return dataset
    table = tf.constant(
        [class_weight.get(k, 1.0) for k in range(max(class_weight) + 1)], keras.config.floatx()
    )

    def weigh(x: Any, y: Any) -> Any:
        one_hot = y.shape.rank is not None and y.shape.rank > 1 and y.shape[-1] != 1
        index = tf.argmax(y, -1) if one_hot else tf.reshape(tf.cast(y, tf.int64), [-1])
        return x, y, tf.gather(table, index)

    return dataset.map(weigh)


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
    # As Keras rounds it, so that both cut at the same example.
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


def check_labels(y: Any, units: int, where: str, ignored: int | None = None) -> None:
    """Raise unless the class indices in an array lie in [0, units); other data pass.

    Args:
        y: the labels.
        units: int ≥ 1.
        where: str. What they are called.
        ignored: int or `None`. A label that the loss leaves out. Defaults to `None`.

    Raises:
        ValueError: they do not, or are text.
    """
    if y is None or not isinstance(y, np.ndarray) or not y.size:
        return
    if y.dtype.kind not in "biuf":
        # Inside the step the type is told of, once for all sources.
        return
    y = y if ignored is None else y[y != ignored]
    if not y.size or (y.ndim == 2 and y.shape[1] == units > 1):
        return
    low, high = y.min(), y.max()
    if low < 0 or high >= units:
        raise ValueError(
            f"Labels must be class indices 0 to {units - 1}, as the heads have {units} units. "
            f"Received: {where} with values {low} to {high}. Renumber the classes, or give the "
            f"heads `units={int(high) + 1}`."
        )


def check_ends(data: TrainingData) -> None:
    """Raise if an epoch of the data has no end that is known, where stages train in turn.

    Raises:
        ValueError: it has none.
    """
    if data.steps_per_epoch is not None:
        return
    source = data.source
    endless = isinstance(source, tf.data.Dataset) and (
        int(source.cardinality()) == tf.data.INFINITE_CARDINALITY
    )
    endless = endless or (isinstance(source, keras.utils.PyDataset) and source.num_batches is None)
    if endless or isinstance(source, types.GeneratorType):
        came = "a generator, which cannot begin anew" if not endless else "data without an end"
        raise ValueError(
            "Where stages train in turn, a stage's epochs must end for the next one to begin. "
            f"Received: {came}. Pass `steps_per_epoch`."
        )


def check_fit_numbers(epochs: Any, batch_size: Any, initial_epoch: Any, steps: Any) -> None:
    """Raise unless the numbers given to `fit` are whole, and in their range.

    Raises:
        TypeError: one is no integer.
        ValueError: one is too small.
    """
    numbers = (
        ("epochs", epochs, 0),
        ("batch_size", batch_size, 1),
        ("initial_epoch", initial_epoch, 0),
        ("steps_per_epoch", steps, 1),
    )
    for name, value, minimum in numbers:
        if value is not None:
            check_integer(name, value, minimum)


def check_ready(model: keras.Model, trains: bool = False, has_loss: bool = False) -> None:
    """Raise where Keras itself would fail later, or train something else without a word.

    Args:
        model: a `GreedyModel`.
        trains: bool. Whether it is about to train. Defaults to `False`.
        has_loss: bool. Whether a subclass says what the loss is. Defaults to `False`.

    Raises:
        ValueError: the model is not compiled, has no loss, or has settings that Keras does not
            support with several replicas.
    """
    if not model.compiled:
        raise ValueError(
            "A model must be compiled before it is trained or evaluated. Received: a model that "
            "is not. Call `model.compile(optimizer=…, loss=…)` first."
        )
    if model.loss is None and not has_loss:
        raise ValueError(
            "Every head needs a loss. Received: loss=None. Call `model.compile` with one."
        )
    if model.optimizer is None:
        if trains:
            raise ValueError(
                "Training needs an optimizer. Received: compile(optimizer=None). Call "
                "`model.compile(optimizer=…, loss=…)` with one; `evaluate` needs none."
            )
        return
    replicas = model.distribute_strategy.num_replicas_in_sync
    optimizers = model.optimizer.optimizers
    accumulates = any(getattr(one, "gradient_accumulation_steps", None) for one in optimizers)
    if replicas > 1 and (accumulates or model.steps_per_execution > 1):
        raise ValueError(
            "Keras supports neither `gradient_accumulation_steps` nor `steps_per_execution` above "
            f"1 with several replicas. Received: {replicas} replicas. Leave them out."
        )
