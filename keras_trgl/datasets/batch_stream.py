"""Batches whose order is a function of (seed, epoch, step).

Keras's own `fit(shuffle=True)` on arrays repeats one permutation in every epoch once
`keras.utils.set_random_seed` was called, and a `tf.data` shuffle begins anew in a new process. Here
epoch e is the permutation that a stateless generator draws from (seed, e): another one in every
epoch, the same one when replayed from any step.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.registration import public

ENDLESS = 2**40
"""Epochs, more than anyone trains."""

Transform = Callable[[Any, Any], Any]


@public
class BatchStream:
    """Arrays as an endless row of batches that can be entered at any step.

    Args:
        x: array `(examples, …)`, or a nested structure of them.
        y: targets, likewise, or `None`. Defaults to `None`.
        sample_weight: array `(examples,)` or `None`. Defaults to `None`.
        batch_size: int > 0. The last batch of an epoch may be shorter. Defaults to `32`.
        shuffle: bool. Whether each epoch has an order of its own. Defaults to `True`.
        seed: int ≥ 0. Defaults to `0`.
        transform: function of `(images, seeds)` that gives the images of a batch changed, with
            `seeds` `(batch, 2)`, int32, one per example and epoch; or `None`. Defaults to
            `None`.

    `GreedyModel.fit` takes it as `x`, and makes one of the arrays that it is given.

    Raises:
        ValueError: arrays of different lengths or of length 0; `batch_size` below 1.

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
        parts = (x,) if y is None and sample_weight is None else (x, y)
        self._arrays = parts if sample_weight is None else (x, y, sample_weight)
        lengths = {len(leaf) for leaf in keras.tree.flatten(self._arrays) if leaf is not None}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(
                "Data, targets and weights must have as many examples, at least one. "
                f"Received: lengths {sorted(lengths)}."
            )
        self.num_samples = lengths.pop()
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.seed = int(seed)
        self.transform = transform

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, a short last one counted."""
        return -(-self.num_samples // self.batch_size)

    def from_step(self, step: int = 0) -> tf.data.Dataset:
        """Give the endless batches from a step on.

        Args:
            step: int ≥ 0, counted over all epochs. Steps before it are not computed. Defaults
                to `0`.

        Returns:
            `tf.data.Dataset` of `x`, `(x, y)` or `(x, y, sample_weight)`.
        """
        check_integer("step", step, 0)
        first_epoch, skipped = divmod(int(step), self.steps_per_epoch)
        tensors = keras.tree.map_structure(_as_tensor, self._arrays)

        def epoch_of(epoch: Any) -> tf.data.Dataset:
            order = tf.range(self.num_samples)
            if self.shuffle:
                order = tf.random.experimental.stateless_shuffle(order, [self.seed, epoch])
            places = tf.data.Dataset.from_tensor_slices((order, tf.range(self.num_samples)))
            batches = places.batch(self.batch_size)
            return batches.map(lambda taken, place: (taken, place, epoch))

        def gather(taken: Any, place: Any, epoch: Any) -> Any:
            batch = keras.tree.map_structure(lambda array: tf.gather(array, taken), tensors)
            if self.transform is not None:
                seeds = _seeds(self.seed, epoch, place)
                batch = (self.transform(batch[0], seeds), *batch[1:])
            return batch if len(batch) > 1 else batch[0]

        dataset = tf.data.Dataset.range(first_epoch, ENDLESS).flat_map(epoch_of).skip(skipped)
        dataset = dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return dataset.prefetch(tf.data.AUTOTUNE)


def _seeds(seed: int, epoch: Any, place: Any) -> Any:
    """Give a stateless seed per example: a stream of its own for every (seed, epoch)."""
    base = tf.random.experimental.stateless_fold_in([seed, 0], epoch)
    high = tf.fill(tf.shape(place), tf.cast(base[0], tf.int32))
    return tf.stack([high, tf.cast(base[1], tf.int32) + tf.cast(place, tf.int32)], axis=1)


def _as_tensor(array: Any) -> Any:
    """Give a tensor in the types that Keras's own array input has."""
    if array is None:
        return None
    if not isinstance(array, tf.Tensor):
        array = np.asarray(array)
    if np.issubdtype(getattr(array.dtype, "as_numpy_dtype", array.dtype), np.floating):
        return tf.cast(tf.convert_to_tensor(array), keras.config.floatx())
    return tf.convert_to_tensor(array)


class _Ordered(keras.utils.PyDataset):  # type: ignore[misc]
    """Reads another `PyDataset` in an order that is a function of (seed, epoch)."""

    def __init__(self, dataset: keras.utils.PyDataset, seed: int, first_epoch: int) -> None:
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self._dataset = dataset
        self._seed = seed
        self._epoch = first_epoch

    @property
    def num_batches(self) -> int:
        return int(self._dataset.num_batches)

    def __getitem__(self, index: int) -> Any:
        rng = np.random.default_rng([self._seed, self._epoch])
        return self._dataset[int(rng.permutation(self.num_batches)[index])]

    def on_epoch_begin(self) -> None:
        self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._dataset.on_epoch_end()
        self._epoch += 1


def ordered_py_dataset(
    dataset: keras.utils.PyDataset, seed: int, first_epoch: int = 0
) -> keras.utils.PyDataset:
    """Give a `PyDataset` with the batches of another in an order of its own in every epoch.

    Args:
        dataset: `keras.utils.PyDataset`. One without an end is given back as it is.
        seed: int ≥ 0.
        first_epoch: int ≥ 0. Epoch that comes first. Defaults to `0`.

    Returns:
        `keras.utils.PyDataset`.
    """
    if dataset.num_batches is None:
        return dataset
    return _Ordered(dataset, seed, first_epoch)
