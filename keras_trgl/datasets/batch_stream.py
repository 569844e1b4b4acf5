"""Batches whose order is a function of (seed, epoch, step).

Keras's own `fit(shuffle=True)` on arrays repeats one permutation in every epoch once
`keras.utils.set_random_seed` was called, and a `tf.data` shuffle begins anew in a new process. Here
epoch e is the permutation that a stateless generator draws from (seed, e): another one in every
epoch, the same one when replayed from any step.
"""

import copy as copying
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.recording import Words, shown, told
from keras_trgl.registration import public

ENDLESS = 2**40
"""Epochs, more than anyone trains."""

Transform = Callable[[Any, Any], Any]


@public
class BatchStream:
    """Arrays as an endless row of batches that can be entered at any step.

    Args:
        x: array `(examples, …)`, or a nested structure of them. Floats become `floatx`, as in
            Keras; other types stay. Rows of a `numpy.memmap` are read and converted batch by
            batch, so a file may be larger than memory; keep it unchanged meanwhile.
        y: array of targets `(examples, …)`, or a structure of them, or `None`. Defaults to `None`.
        sample_weight: array `(examples,)` or `None`. Defaults to `None`.
        batch_size: int > 0. The last batch of an epoch may be shorter. Defaults to `32`.
        shuffle: bool. Whether each epoch has an order of its own. Defaults to `True`.
        seed: int ≥ 0. Seed of the order and of the transform. Defaults to `0`.
        transform: function of `(images, seeds)` that gives the `x` of a batch changed, with
            `seeds` `(batch, 2)`, int32, one per epoch and place in it; or `None`. Its attribute
            `is_random` says whether it uses the seeds; without one it counts as random. Defaults
            to `None`.

    `GreedyModel.fit` takes it as `x`, and makes one of the arrays that it is given.

    Raises:
        ValueError: arrays of different lengths or of length 0; `batch_size` below 1, `seed`
            below 0.
        TypeError: a part is no array with an axis of examples, or `transform` no function.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.datasets import BatchStream
        >>> stream = BatchStream(np.arange(5), batch_size=2, shuffle=False)
        >>> [batch.tolist() for batch in stream.from_step(1).take(2).as_numpy_iterator()]
        [[2, 3], [4]]
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        transform: Transform | None = None,
    ) -> None:
        check_integer("batch_size", batch_size, 1)
        check_integer("seed", seed, 0)
        if transform is not None and not callable(transform):
            raise TypeError(
                "`transform` must be a function of (images, seeds), or None. "
                f"Received: transform={transform!r}."
            )
        parts: tuple[Any, ...] = (x,) if y is None and sample_weight is None else (x, y)
        parts = parts if sample_weight is None else (x, y, sample_weight)
        self.num_samples = _common_length(parts)
        # One copy in host memory for all datasets made from it, which hold it by reference.
        with tf.device("CPU:0"):
            self._tensors = keras.tree.map_structure(_as_tensor, as_tuples(parts))
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.seed = int(seed)
        self.transform = transform

    def __repr__(self) -> str:
        leaves = keras.tree.flatten(self._tensors[0])
        kinds = " and ".join(
            f"{tuple(leaf.shape[1:])} {tf.as_dtype(leaf.dtype).name}" for leaf in leaves
        )
        data = {"num_samples": self.num_samples, "x": Words(kinds), "batch_size": self.batch_size}
        return shown(self, **data, **{k: v for k, v in told(self).items() if k not in data})

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, a short last one counted."""
        return -(-self.num_samples // self.batch_size)

    @property
    def is_random(self) -> bool:
        """Whether an example may differ from epoch to epoch."""
        return self.transform is not None and bool(getattr(self.transform, "is_random", True))

    def from_step(self, step: int = 0) -> tf.data.Dataset:
        """Give the endless batches from a step on.

        Args:
            step: int ≥ 0, counted over all epochs. Steps before it are not computed. Defaults
                to `0`.

        Returns:
            `tf.data.Dataset` of `x`, `(x, y)` or `(x, y, sample_weight)`; the batch axis is
            `None` in its shapes.

        Raises:
            ValueError: `step` is below 0.
        """
        check_integer("step", step, 0)
        first_epoch, skipped = divmod(int(step), self.steps_per_epoch)

        def epoch_of(epoch: Any) -> tf.data.Dataset:
            order = tf.range(self.num_samples)
            if self.shuffle:
                order = tf.random.experimental.stateless_shuffle(order, [self.seed, epoch])
            places = tf.data.Dataset.from_tensor_slices((order, tf.range(self.num_samples)))
            batches = places.batch(self.batch_size)
            return batches.map(lambda taken, place: (taken, place, epoch))

        def gather(arrays: Any, at: Any) -> Any:
            batch = self._gather(arrays, *at)
            # A tuple alone would be read as (x, y).
            return batch[0] if len(batch) == 1 and not isinstance(batch[0], tuple) else batch

        dataset = tf.data.Dataset.range(first_epoch, ENDLESS).flat_map(epoch_of).skip(skipped)
        return self._ahead(dataset, self._tensors, gather)

    def examples(self, copy: int = 0, batch_size: int | None = None) -> tf.data.Dataset:
        """Give every `x` once, transformed, in the order of the arrays.

        Args:
            copy: int ≥ 0, an epoch: the transform's seeds are those of it, with an example's
                place in the data for its place in the epoch. Defaults to `0`.
            batch_size: int > 0 or `None`, the stream's own. The last batch may be shorter, or
                longer by one: kernels compute a single example in another way. Defaults to `None`.

        Returns:
            `tf.data.Dataset` of `x`; the batch axis is `None` in its shapes.

        Raises:
            ValueError: `copy` is below 0, or `batch_size` below 1.
        """
        check_integer("copy", copy, 0)
        size = self.batch_size if batch_size is None else batch_size
        check_integer("batch_size", size, 1)
        starts = list(range(0, self.num_samples, size))
        if 1 < size < self.num_samples and self.num_samples % size == 1:
            starts.pop()
        stops = [*starts[1:], self.num_samples]

        def gather(arrays: Any, at: Any) -> Any:
            taken, epoch = tf.range(*at), tf.constant(copy, tf.int64)
            return self._gather(arrays, taken, taken, epoch)[0]

        dataset = tf.data.Dataset.from_tensor_slices((starts, stops))
        return self._ahead(dataset, self._tensors[:1], gather)

    def over(self, features: Any, copies: int = 1) -> "BatchStream":
        """Give the same batches in the same order with features for `x`.

        Args:
            features: array `(examples, …)` of `copies * num_samples` rows, in host memory or a
                `numpy.memmap`, or what has its `shape`, `dtype` and indexing; or a tuple of
                those. Rows are read batch by batch, and keep their type; epoch e takes those of
                copy `e % copies`.
            copies: int ≥ 1. Defaults to `1`.

        Returns:
            `BatchStream` without a transform.

        Raises:
            ValueError: another number of rows, or `copies` below 1.
        """
        check_integer("copies", copies, 1)
        for one in keras.tree.flatten(features):
            if one.shape[0] != copies * self.num_samples:
                raise ValueError(
                    "`features` must have a row per copy and example, "
                    f"{copies} * {self.num_samples}. Received: shape {tuple(one.shape)}."
                )
        stream = copying.copy(self)
        rows = keras.tree.map_structure(lambda one: _HostRows(one, copies), features)
        stream._tensors = (rows, *self._tensors[1:])
        stream.transform = None
        return stream

    def _ahead(self, places: tf.data.Dataset, arrays: Any, gather: Transform) -> tf.data.Dataset:
        """Give a dataset of batches made ahead of their use, no more of them than it takes.

        Tensors reach `gather` as elements: a graph that captures one keeps it, after the dataset
        is gone, until Python's garbage collector runs.
        """
        held = tuple(one for one in keras.tree.flatten(arrays) if tf.is_tensor(one))
        rest = keras.tree.map_structure(lambda one: ... if tf.is_tensor(one) else one, arrays)

        def make(at: Any, tensors: Any = ()) -> Any:
            left = iter(tensors)
            return gather(
                keras.tree.map_structure(lambda one: next(left) if one is ... else one, rest), at
            )

        parts = (places, tf.data.Dataset.from_tensors(held).repeat()) if held else (places,)
        dataset = tf.data.Dataset.zip(parts)
        if self.transform is None:
            return copied_ahead(dataset.map(make))
        dataset = dataset.map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return as_written(dataset.prefetch(tf.data.AUTOTUNE), tuned=True)

    def _gather(self, arrays: Any, taken: Any, place: Any, epoch: Any) -> Any:
        """Give rows of the arrays, the first of them transformed."""
        batch = keras.tree.map_structure(lambda array: _take(array, taken, epoch), arrays)
        if self.transform is None:
            return batch
        return (self.transform(batch[0], _seeds(self.seed, epoch, place)), *batch[1:])


def as_written(dataset: tf.data.Dataset, tuned: bool = False) -> tf.data.Dataset:
    """Give a dataset whose graph is not rewritten, nor tuned while it runs unless `tuned`.

    A rewrite copies every tensor in it once. An iterator with a tuner may take seconds to end, more
    the longer it lived: now and then its thread misses the call to stop (TensorFlow 2.21).
    """
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    if not tuned:
        options.autotune.enabled = False
    return dataset.with_options(options)


def copied_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Give batches of copied rows, one of them made ahead where a GPU trains beside.

    A copy takes no time worth hiding on a CPU, where a batch ahead takes the memory that training
    is short of.
    """
    ahead = int(bool(tf.config.list_logical_devices("GPU")))
    return as_written(dataset.prefetch(ahead))


class _HostRows:
    """An array that stays where it is, and is read batch by batch.

    TensorFlow keeps what a `numpy_function` refers to until the process ends.
    """

    def __init__(self, array: Any, copies: int = 1, floats: str | None = None) -> None:
        self._array = array
        self._copies = copies
        self._num_samples = int(array.shape[0]) // copies
        self._native = np.dtype(array.dtype).newbyteorder("=")
        self._dtype = tf.as_dtype(self._native)
        self._cast = floats if floats and self._dtype.is_floating else self._dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._num_samples, *self._array.shape[1:])

    @property
    def dtype(self) -> Any:
        return self._cast

    def _read(self, places: Any) -> Any:
        return np.asarray(self._array[places], self._native)

    def take(self, places: Any, epoch: Any) -> Any:
        """Give rows of the copy that an epoch takes."""
        first = tf.cast(epoch % self._copies, tf.int64) * self._num_samples
        rows = tf.numpy_function(self._read, [first + tf.cast(places, tf.int64)], self._dtype)
        rows.set_shape([None, *self._array.shape[1:]])
        return tf.cast(rows, self._cast)


def _seeds(seed: int, epoch: Any, place: Any) -> Any:
    """Give a stateless seed per example: a stream of its own for every (seed, epoch)."""
    start = tf.constant([seed, 0], tf.int64)
    base = tf.cast(tf.random.experimental.stateless_fold_in(start, epoch), tf.int32)
    high = tf.fill(tf.shape(place), base[0])
    return tf.stack([high, base[1] + tf.cast(place, tf.int32)], axis=1)


def _common_length(parts: Any) -> int:
    """Give the number of examples that all arrays have."""
    lengths = set()
    for leaf in keras.tree.flatten(parts):
        if leaf is None:
            continue
        shape: Any = getattr(leaf, "shape", ())
        if not len(shape):
            raise TypeError(
                "Data, targets and weights must be arrays with an axis of examples. Received: "
                f"{leaf!r} of type {type(leaf).__name__}. Pass `numpy.asarray(…)` of a list."
            )
        lengths.add(int(shape[0]))
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            "Data, targets and weights must have as many examples, at least one. "
            f"Received: lengths {sorted(lengths)}. Cut them to the same length."
        )
    return lengths.pop()


def as_tuples(structure: Any) -> Any:
    """Give the structure with tuples for lists, which `tf.data` would stack."""
    if isinstance(structure, (list, tuple)) and not hasattr(structure, "_fields"):
        return tuple(as_tuples(part) for part in structure)
    if isinstance(structure, dict):
        return {key: as_tuples(part) for key, part in structure.items()}
    return structure


def _as_tensor(array: Any) -> Any:
    """Give a tensor in the types that Keras's own array input has."""
    if array is None:
        return None
    floatx = keras.config.floatx()
    if isinstance(array, np.memmap) or (hasattr(array, "select") and hasattr(array, "dtype")):
        # Read batch by batch: it may be more than fits. A table of pandas is none of these.
        return _HostRows(array, floats=floatx)
    if tf.is_tensor(array):
        return tf.cast(array, floatx) if array.dtype.is_floating else tf.identity(array)
    array = np.asarray(array)
    floats = np.issubdtype(array.dtype, np.floating)
    return tf.convert_to_tensor(array.astype(floatx, copy=False) if floats else array)


def _take(array: Any, places: Any, epoch: Any) -> Any:
    if isinstance(array, _HostRows):
        return array.take(places, epoch)
    return None if array is None else tf.gather(array, places)


def pass_order(seed: int, epoch: int, count: int) -> Any:
    """Give the order in which an epoch takes the batches of a `PyDataset`.

    Args:
        seed: int ≥ 0.
        epoch: int ≥ 0.
        count: int. Batches there are.

    Returns:
        int array, `(count,)`.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


class _Ordered(keras.utils.PyDataset):  # type: ignore[misc]
    """Reads another `PyDataset` in an order that is a function of (seed, epoch)."""

    def __init__(
        self,
        dataset: keras.utils.PyDataset,
        seed: int,
        first_epoch: int,
        steps_per_epoch: int | None,
    ) -> None:
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self._dataset = dataset
        self._seed = seed
        self._steps = steps_per_epoch
        self._first_step = first_epoch * (steps_per_epoch or 0)
        self._epoch = first_epoch
        self._is_within_epoch = self._is_reset = False
        self._order: tuple[Any, Any] = (None, None)

    @property
    def num_batches(self) -> int | None:
        # Where epochs are no passes Keras reads on over their ends, ahead of time: the place in
        # the row of all batches must then tell the pass, as no call does.
        return None if self._steps else int(self._dataset.num_batches)

    def __len__(self) -> int:
        # Tools that wrap Keras's `fit` count the data: an epoch is all they shall find.
        return self._steps or int(self._dataset.num_batches)

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Any:
        count = int(self._dataset.num_batches)
        epoch = self._epoch
        if self._steps:
            epoch, index = divmod(self._first_step + index, count)
        key, order = self._order
        if key != (epoch, count):
            key, order = (epoch, count), pass_order(self._seed, epoch, count)
            self._order = key, order
        return self._dataset[int(order[index])]

    def on_epoch_begin(self) -> None:
        self._dataset.on_epoch_begin()
        self._is_within_epoch = True

    def on_epoch_end(self) -> None:
        self._dataset.on_epoch_end()
        # `fit` resets its iterator once before the first epoch, under a strategy after it has
        # read a batch to build from. Epochs count here and not at their begin, before which the
        # workers are at work already.
        self._epoch += int(self._is_reset and self._is_within_epoch)
        self._is_within_epoch, self._is_reset = False, True


def ordered_py_dataset(
    dataset: keras.utils.PyDataset,
    seed: int,
    first_epoch: int = 0,
    steps_per_epoch: int | None = None,
) -> keras.utils.PyDataset:
    """Give a `PyDataset` with the batches of another in an order of its own in every epoch.

    It serves one call of `fit`, which must have `shuffle=False` and the same `steps_per_epoch`.

    Args:
        dataset: `keras.utils.PyDataset`. One without an end, or data of another type, is given
            back as it is.
        seed: int ≥ 0.
        first_epoch: int ≥ 0. Epoch that comes first. Defaults to `0`.
        steps_per_epoch: int > 0, where an epoch is not one pass over the batches; the order is
            then another in every pass. Defaults to `None`.

    Returns:
        `keras.utils.PyDataset`.

    Raises:
        ValueError: `seed` or `first_epoch` is below 0, or `steps_per_epoch` below 1.
    """
    check_integer("seed", seed, 0)
    check_integer("first_epoch", first_epoch, 0)
    if steps_per_epoch is not None:
        check_integer("steps_per_epoch", steps_per_epoch, 1)
    try:
        is_endless = dataset.num_batches is None
    except (AttributeError, NotImplementedError):
        is_endless = True
    return dataset if is_endless else _Ordered(dataset, seed, first_epoch, steps_per_epoch)
