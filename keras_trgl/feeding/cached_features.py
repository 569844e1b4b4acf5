"""The inputs of the stage in training, computed once by the frozen stages before it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.datasets.batch_stream import (
    BatchStream,
    as_tuples,
    as_written,
    copied_ahead,
    pass_order,
)
from keras_trgl.feeding.batch_forms import (
    bytes_of,
    leaves_of,
    length,
    merged,
    rows_of,
    served_batches,
    spec_of,
    split,
)
from keras_trgl.feeding.feature_store import MIB, open_store
from keras_trgl.network.passing import apart, together
from keras_trgl.progress import Progress, tell
from keras_trgl.regimes.feature_cache import FeatureCache

Apply = Callable[[Any], Any]


@dataclasses.dataclass
class _Kept:
    """Features of all copies.

    Attributes:
        features: structure of `FeatureStore`, as `apart` gives what crosses the cut.
        stops: list of int. Row after each chunk.
        rests: list of what came with each chunk: targets and weights, in NumPy arrays.
        data: `FeatureStore` of the network's own inputs, row by row beside the features, or `None`.
    """

    features: Any
    stops: list[int]
    rests: list[Any]
    data: Any = None

    @property
    def _stores(self) -> list[Any]:
        return leaves_of((self.features, self.data))

    def __len__(self) -> int:
        return len(self._stores[0])

    @property
    def nbytes(self) -> int:
        """Bytes of features, targets and weights."""
        return sum(store.nbytes for store in self._stores) + sum(map(bytes_of, self.rests))

    @property
    def served(self) -> Any:
        """What batches have for `x`: the features, or a pair with the data."""
        return self.features if self.data is None else (self.features, self.data)

    def close(self) -> None:
        """Drop everything, datasets that still refer to it or not."""
        for store in self._stores:
            store.close()
        self.rests.clear()

    def bounds(self, place: int) -> slice:
        """Give the rows of a chunk."""
        return slice(self.stops[place - 1] if place else 0, self.stops[place])


class CachedFeatures:
    """Batches for a stage whose earlier stages are frozen; to be closed after use.

    Of a `BatchStream` every example is kept, and its batches are those of the stream with features
    for `x`. Of a `keras.utils.PyDataset` or a `tf.data.Dataset` the batches of `cache.copies`
    passes are kept as they come, with targets and weights in memory, and epoch e plays pass
    `e % copies`. These data are read once more at first, to count their rows: so too little room
    shows before any feature is computed.

    Args:
        source: `BatchStream`, or `keras.utils.PyDataset` or `tf.data.Dataset` with a known number
            of batches `(x, y)` or `(x, y, sample_weight)`.
        cache: `FeatureCache`. Its `copies` count where data may be random; otherwise one copy
            serves.
        seed: int ≥ 0. Seed of the order of a `PyDataset`'s batches. Defaults to `0`.
        shuffle: bool. Whether a `PyDataset`'s batches have another order in each epoch. Defaults
            to `True`.
        needs_data: bool. Whether the network's own inputs, the very draw that features were
            computed from, are kept too; then `x` is a pair (features, data). Defaults to `False`.
        take: function that gives `x` of the data as the first stage takes it. Defaults to `None`,
            as it is.
        verbose: 0, 1, 2 or `"auto"`, as in `fit`: whether a line tells of features that are
            computed, and, but for 2, a bar where that takes a while. Defaults to `0`.

    Attributes:
        level: int. Stage, counted from 0, whose inputs are there; at 0 nothing is kept.

    Raises:
        ValueError: data of another kind or without an end, or data that may be random and no
            `copies`.
    """

    def __init__(
        self,
        source: Any,
        cache: FeatureCache,
        seed: int = 0,
        shuffle: bool = True,
        needs_data: bool = False,
        take: Apply | None = None,
        verbose: Any = 0,
    ) -> None:
        check_integer("seed", seed, 0)
        self.level = 0
        self._verbose = verbose
        self._cache = cache
        self._kept: _Kept | None = None
        self._needs_data = needs_data
        self._take = take or (lambda x: x)
        if isinstance(source, BatchStream):
            copies = _copies(cache, "data augmented at random") if source.is_random else 1
            self._source: Any = _Examples(source, copies)
            return
        count = _num_batches(source)
        copies = _copies(cache, f"a `{type(source).__name__}`, which may draw at random")
        if isinstance(source, tf.data.Dataset):
            self._source = _Passes(source, count, copies)
        else:
            self._source = _PyPasses(source, count, copies, seed if shuffle else None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return int(self._source.steps_per_epoch)

    @property
    def nbytes(self) -> int:
        """Bytes held: features, and the targets and weights kept with them."""
        return 0 if self._kept is None else self._kept.nbytes

    def advance(self, level: int, stages: Sequence[Apply]) -> None:
        """Compute the inputs of a stage, and drop those that were there.

        Stages before `self.level` must be as they were then. To compute from the data again, pass
        a level not above `self.level`, or pass 0 first.

        Args:
            level: int ≥ 0. The stage, counted from 0; 0 keeps nothing.
            stages: list of functions; stage j turns a batch of inputs of stage j into inputs of
                stage j + 1.

        Raises:
            ValueError: too few stages, more bytes than the cache allows, or passes over the data
                that differ in batches or examples.
            OSError: too little room on disk.
        """
        check_integer("level", level, 0)
        if level > len(stages):
            raise ValueError(
                f"Inputs of stage {level + 1} need {level} stages before it. "
                f"Received: {len(stages)}."
            )
        if level == 0:
            self.close()
            return
        present = self._kept if self.level < level else None
        kept = self._compute(present, stages[self.level if present else 0 : level], level)
        if present is not None:
            # The new features' now: closing the old ones leaves it open.
            kept.data, present.data = present.data, None
        # Not before: the new features come from the old ones.
        self.close()
        self._kept, self.level = kept, level

    def from_step(self, step: int = 0) -> tf.data.Dataset:
        """Give the endless batches from a step on.

        Args:
            step: int ≥ 0, counted over all epochs. Defaults to `0`.

        Returns:
            `tf.data.Dataset`, to be read until `advance` or `close` is called. Features are as
            `apart` gives them.

        Raises:
            ValueError: `step` is below 0.
        """
        check_integer("step", step, 0)
        return self._source.from_step(int(step), self._kept)

    def close(self) -> None:
        """Drop what is kept. Calling it again does nothing."""
        if self._kept is not None:
            self._kept.close()
        self._kept, self.level = None, 0

    def _compute(self, present: _Kept | None, stages: Sequence[Apply], level: int) -> _Kept:
        done = Progress(1, "auto" if self._verbose in (1, "auto") else 0, "row")
        num_rows, held = self._source.room(present)
        done.total = num_rows
        stops: list[int] = []
        rests: list[Any] = []
        made: list[Any] = []
        # If a stage fails half-way, the store that was opened is closed, and the old one stays.
        with contextlib.ExitStack() as undo:
            for inputs, rest in self._source.chunks(present):
                data = inputs = self._take(inputs) if present is None else together(inputs)
                for stage in stages:
                    inputs = stage(inputs)
                keeps_data = self._needs_data and present is None
                kept = (apart(inputs), data if keeps_data else None)
                for leaf in leaves_of(kept) if not stops else ():
                    beside = held + self.nbytes + sum(store.nbytes for store in made)
                    shape, dtype = leaf.shape[1:], leaf.dtype
                    made.append(open_store(self._cache, num_rows, shape, dtype, beside))
                    undo.callback(made[-1].close)
                if not stops:
                    self._tell(made, level)
                start = stops[-1] if stops else 0
                for store, leaf in zip(made, leaves_of(kept), strict=True):
                    store.write(start, np.asarray(leaf))
                stops.append(start + length(inputs))
                rests.append(rest)
                done(length(inputs))
            undo.pop_all()
        features, data = tf.nest.pack_sequence_as(kept, [*made, *[None] * (not keeps_data)])
        return _Kept(features, stops, rests, data)

    def _tell(self, stores: Sequence[Any], level: int) -> None:
        if self._verbose:
            size = sum(store.nbytes for store in stores) / MIB
            tell(f"caching features: {size:,.1f} MiB, the input of stage {level + 1}")


class _Examples:
    """A `BatchStream`, whose features are kept example by example."""

    def __init__(self, stream: BatchStream, copies: int) -> None:
        self._stream = stream
        self._copies = copies
        self.steps_per_epoch = stream.steps_per_epoch

    def room(self, present: _Kept | None) -> tuple[int, int]:
        """Give the rows of all copies, and the bytes kept beside them."""
        del present
        return self._copies * self._stream.num_samples, 0

    def chunks(self, present: _Kept | None) -> Iterator[tuple[Any, None]]:
        """Give every example of every copy, in batches."""
        stream = self._over(None if present is None else present.features)
        for copy in range(self._copies):
            for inputs in stream.examples(copy):
                yield inputs, None

    def from_step(self, step: int, present: _Kept | None) -> tf.data.Dataset:
        """Give the endless batches from a step on."""
        return self._over(None if present is None else present.served).from_step(step)

    def _over(self, rows: Any) -> BatchStream:
        return self._stream if rows is None else self._stream.over(rows, self._copies)


class _Passes:
    """A `tf.data.Dataset`, whose batches are kept as they come."""

    def __init__(self, source: Any, steps_per_epoch: int, copies: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._source = source
        self._copies = copies
        self._num_rows: int | None = None
        self._rest_bytes = 0

    def room(self, present: _Kept | None) -> tuple[int, int]:
        """Give the rows of all copies, and the bytes that will be kept beside them."""
        if present is not None:
            return len(present), 0
        if self._num_rows is None:
            rows = 0
            for inputs, rest in map(split, self._raw_batches()):
                rows += length(inputs)
                self._rest_bytes += bytes_of(rest)
            self._num_rows = rows
        return self._copies * self._num_rows, self._copies * self._rest_bytes

    def chunks(self, present: _Kept | None) -> Iterator[tuple[Any, Any]]:
        """Give the batches of every pass, with what comes beside `x`."""
        if present is not None:
            for place, rest in enumerate(present.rests):
                kept = present.bounds(place)
                yield rows_of(present.features, kept, tf.convert_to_tensor), rest
            return
        for _ in range(self._copies):
            rows = count = 0
            for inputs, rest in map(split, self._raw_pass()):
                rows, count = rows + length(inputs), count + 1
                if rows > (self._num_rows or 0):
                    break
                yield keras.tree.map_structure(tf.convert_to_tensor, inputs), rest
            if (rows, count) != (self._num_rows, self.steps_per_epoch):
                raise ValueError(
                    "Every pass over the data must have as many batches and examples, "
                    f"{self.steps_per_epoch} and {self._num_rows}. Received: {count} and {rows} "
                    "or more. Cut the data to one length, or use cache=None."
                )

    def from_step(self, step: int, present: _Kept | None) -> tf.data.Dataset:
        """Give the endless batches from a step on."""
        if present is None:
            return self._raw_from_step(step)
        kept = present

        def read(step: int) -> Any:
            epoch, place = divmod(step, self.steps_per_epoch)
            place = int(self._order(epoch)[place])
            place += epoch % self._copies * self.steps_per_epoch
            rows = kept.bounds(place)
            x = rows_of(kept.served, rows, np.array)
            return (x, *kept.rests[place])

        rest = merged([spec_of(one) for one in kept.rests])
        x = keras.tree.map_structure(
            lambda store: tf.TensorSpec([None, *store.shape[1:]], tf.as_dtype(store.dtype)),
            kept.served,
        )
        spec = (x, *rest)
        return copied_ahead(served_batches(read, spec, step))

    def _order(self, epoch: int) -> Any:
        del epoch
        return range(self.steps_per_epoch)

    def _raw_batches(self) -> Any:
        return self._source

    def _raw_pass(self) -> Any:
        return self._source

    def _raw_from_step(self, step: int) -> tf.data.Dataset:
        return self._source.repeat().skip(step % self.steps_per_epoch)


class _PyPasses(_Passes):
    """A `keras.utils.PyDataset`, whose batches are kept as they come; `seed=None`: no shuffle."""

    def __init__(self, source: Any, steps_per_epoch: int, copies: int, seed: int | None) -> None:
        super().__init__(source, steps_per_epoch, copies)
        self._seed = seed

    def _order(self, epoch: int) -> Any:
        if self._seed is None:
            return super()._order(epoch)
        return pass_order(self._seed, epoch, self.steps_per_epoch)

    def _raw_batches(self) -> Any:
        return (self._source[place] for place in range(int(self._source.num_batches)))

    def _raw_pass(self) -> Any:
        self._source.on_epoch_begin()
        yield from self._raw_batches()
        self._source.on_epoch_end()

    def _raw_from_step(self, step: int) -> tf.data.Dataset:
        def read(step: int) -> Any:
            epoch, place = divmod(step, self.steps_per_epoch)
            if place == 0:
                self._source.on_epoch_begin()
            inputs, rest = split(self._source[int(self._order(epoch)[place])])
            if place == self.steps_per_epoch - 1:
                self._source.on_epoch_end()
            return (as_tuples(inputs), *rest)

        inputs, rest = split(self._source[0])
        spec = (spec_of(as_tuples(inputs)), *spec_of(rest))
        # Python reads the next batches while one trains.
        return as_written(served_batches(read, spec, step).prefetch(2))


def _copies(cache: FeatureCache, what: str) -> int:
    """Give the copies to keep of data that may be random."""
    if cache.copies is None:
        raise ValueError(
            f"A cache of {what} must know how many passes to keep. Received: copies=None. Pass "
            "`FeatureCache(copies=...)`; 1 keeps one pass as it comes."
        )
    return cache.copies


def _num_batches(source: Any) -> int:
    """Give the batches of a pass over the data, or raise."""
    count: int | None = None
    if isinstance(source, tf.data.Dataset):
        count = int(source.cardinality())
    elif isinstance(source, keras.utils.PyDataset):
        with contextlib.suppress(AttributeError, NotImplementedError):
            count = source.num_batches
    if count is None or count < 1:
        raise ValueError(
            "Features can be cached of a `BatchStream`, a `PyDataset` or a `tf.data` pipeline "
            "with a known number of batches. Received: "
            f"{type(source).__name__}{'' if count is None else ' without one'}. Tell a pipeline's "
            "length by `.apply(tf.data.experimental.assert_cardinality(batches))`, or use "
            "cache=None."
        )
    return int(count)
