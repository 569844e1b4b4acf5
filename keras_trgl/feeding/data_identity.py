"""What tells the data of a run, how many batches there are, how a state of theirs comes back."""

import random
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.feeding.training_data import TrainingData

GLOBAL_RANDOM = (
    "The `PyDataset` draws from Python's or NumPy's global random state, which a restored run "
    "cannot draw again: it goes on with other batches, not bit for bit. Draw from a generator of "
    "its own, `numpy.random.default_rng(seed)`, in `on_epoch_end`."
)


def data_identity(data: TrainingData, class_weight: Any) -> dict[str, Any]:
    """Give what tells data and their order, without a look into them.

    Args:
        data: what `ordered` gave.
        class_weight: as given to `fit`.

    Returns:
        Dict that JSON can hold. Values of the examples are not in it.
    """
    source, stream = data.source, data.stream
    told: dict[str, Any] = {"steps_per_epoch": data.steps_per_epoch}
    if stream is not None:
        transform = stream.transform
        told = {
            "examples": stream.num_samples,
            "batch_size": stream.batch_size,
            "shuffle": stream.shuffle,
            "seed": stream.seed,
            "transform": None if transform is None else type(transform).__qualname__,
            **told,
        }
    elif isinstance(source, (keras.utils.PyDataset, tf.data.Dataset)):
        told = {"batches": _count(source), "shuffle": data.is_shuffled, **told}
    kinds = {"arrays": stream, "tf.data": isinstance(source, tf.data.Dataset)}
    kind = next((name for name, held in kinds.items() if held), type(source).__name__)
    weights = sorted([int(k), float(v)] for k, v in (class_weight or {}).items())
    return {"type": kind, **told, "batch": _spec(data), "class_weight": weights}


def _spec(data: TrainingData) -> list[str]:
    """Give shapes and types of a batch, where they are known without one."""
    spec = data.element_spec
    if spec is None:
        return []
    leaves = [leaf for leaf in tf.nest.flatten(spec) if hasattr(leaf, "dtype")]
    # An order of kept places may know the size of a batch, that of another way may not.
    return [f"{tuple(leaf.shape)[1:]} {leaf.dtype.name}" for leaf in leaves]


def _count(source: Any) -> int | None:
    if isinstance(source, tf.data.Dataset):
        return int(source.cardinality())
    try:
        return None if source.num_batches is None else int(source.num_batches)
    except (AttributeError, NotImplementedError):
        return None


def num_batches(data: TrainingData) -> int | None:
    """Give the batches of an epoch as callbacks hear of them; `None` if only the end tells."""
    steps, limit = data.steps_per_epoch, keras.config.max_steps_per_epoch()
    if limit and (not steps or limit < steps):
        steps = limit
    if steps:
        return int(steps)
    if isinstance(data.x, (keras.utils.PyDataset, tf.data.Dataset)):
        count = _count(data.x)
        return None if count is None or count < 0 else count
    return None


def has_state(source: Any) -> bool:
    """Tell whether data may change between epochs by hooks of their own."""
    plain, kind = keras.utils.PyDataset, type(source)
    return isinstance(source, plain) and (
        kind.on_epoch_end is not plain.on_epoch_end
        or kind.on_epoch_begin is not plain.on_epoch_begin
    )


def replay(source: Any, epochs: int) -> None:
    """Call the hooks of epochs that were done before, so that data stand where they stood."""
    if not has_state(source):
        return
    before = global_random()
    for _ in range(epochs):
        source.on_epoch_begin()
        source.on_epoch_end()
    warn_of_draws(source, before)


def global_random() -> Any:
    """Give the state of Python's and NumPy's global generators."""
    _, keys, place, *_ = np.random.get_state()
    return random.getstate(), place, np.asarray(keys).tolist()


def warn_of_draws(source: Any, before: Any) -> None:
    """Warn if data with hooks of their own have drawn from the global generators."""
    if has_state(source) and global_random() != before:
        warnings.warn(GLOBAL_RANDOM, stacklevel=2)
