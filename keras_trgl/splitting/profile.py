"""Seconds and bytes of every block and head, measured and counted."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.devices import current_device
from keras_trgl.layers.chain import build_layer, passes_several
from keras_trgl.layers.copying import copy_layer
from keras_trgl.layers.inner import config_of, follow_format
from keras_trgl.progress import Progress
from keras_trgl.recording import shown
from keras_trgl.registration import public
from keras_trgl.splitting.activation_bytes import activation_bytes
from keras_trgl.splitting.kinds import kind_of
from keras_trgl.splitting.network_bytes import NetworkBytes, shape_after
from keras_trgl.splitting.stage_bytes import check_layers, data_shape, stage_bytes
from keras_trgl.splitting.units import units_of
from keras_trgl.types import Shape

WARM_UP = 2
"""Runs before the measured ones: the first is slower, as memory is found and kernels are chosen."""


@public
@dataclasses.dataclass(frozen=True, repr=False)
class Profile:
    """What blocks, and the heads at the stages' ends, cost for one batch.

    Args:
        block_seconds: tuple of float, seconds, one per block: forward and backward pass.
        head_seconds: tuple of float, seconds, one per block: a head on that block's output, 0
            without.
        block_bytes: tuple of int, one per block: activations that backpropagation keeps.
        head_bytes: tuple of int, one per block: those of a head on that block's output.
        bytes_of_stage: function of (start, end): bytes, as `stage_bytes`.

    Example:
        >>> from keras_trgl.splitting import Profile
        >>> costs = Profile((1.0, 2.0), (0.5, 0.5), (8, 8), (4, 4), lambda start, end: 20)
        >>> costs.stage_seconds(0, 2)
        3.5
    """

    block_seconds: tuple[float, ...]
    head_seconds: tuple[float, ...]
    block_bytes: tuple[int, ...]
    head_bytes: tuple[int, ...]
    bytes_of_stage: Callable[[int, int], int]

    def __repr__(self) -> str:
        sums = {
            name: float(f"{sum(getattr(self, name)):.3g}")
            for name in ("block_seconds", "head_seconds")
        }
        return shown(self, blocks=len(self.block_bytes), **sums, block_bytes=sum(self.block_bytes))

    def stage_seconds(self, start: int, end: int) -> float:
        """Give the seconds of a stage of blocks start to end − 1, its head included.

        Args:
            start: int ≥ 0. Position of the first block, from 0.
            end: int. Position after the last block.

        Returns:
            float, seconds per batch.
        """
        return sum(self.block_seconds[start:end]) + self.head_seconds[end - 1]

    def stage_bytes(self, start: int, end: int) -> int:
        """Give the bytes of a stage of blocks start to end − 1, as `by_memory` counts them.

        Args:
            start: int ≥ 0. Position of the first block, from 0.
            end: int. Position after the last block.

        Returns:
            int, bytes per batch.
        """
        return self.bytes_of_stage(start, end)


@public
def profile(
    blocks: Any,
    batch: Any,
    head: Any = None,
    input_shape: Shape | None = None,
    repeats: int = 5,
    verbose: Any = "auto",
) -> Profile:
    """Measure the seconds of blocks and heads, and count their bytes.

    Forward and backward pass in training mode, on the device of the `tf.device` in force. Blocks
    that are alike (class, configuration, shape of the input) are measured once, on copies: the
    given ones stay as they are. Every unit of a model is a kind of its own; its bytes are those of
    its traced pass, not of rules by kinds of layers. The median of the repetitions is taken, in
    which kinds alternate, so that a slow spell of the machine meets all of them.

    Args:
        blocks: list of layers, built or not, or a `keras.Model` that `from_model` takes, whose
            units are its blocks.
        batch: array of data `(batch, …)`, or an int ≥ 1, a number of examples of noise.
        head: unbuilt layer that every stage gets a copy of, or `None`. Defaults to `None`.
        input_shape: tuple without the batch axis, where `batch` is a number. `None` asks the first
            block, which blocks of `architectures` answer. Defaults to `None`.
        repeats: int ≥ 1. Measured runs of every kind. Defaults to `5`.
        verbose: int 0, 1 or 2, or `"auto"`, as in Keras: whether progress is shown; `"auto"` shows
            it once two seconds are over. Defaults to `"auto"`.

    Returns:
        `Profile`.

    Raises:
        TypeError: a block or the head is no Keras layer.
        ValueError: there are no blocks; the shape of the data is not known; a number below 1.

    Example:
        >>> from keras_trgl.architectures import resnet
        >>> from keras_trgl.splitting import profile
        >>> costs = profile(resnet(depth=8, input_shape=(8, 8, 1)), batch=2, repeats=1, verbose=0)
        >>> len(costs.block_seconds), min(costs.block_seconds) > 0
        (3, True)
    """
    units = units_of(blocks, to_run=True)
    blocks = units.layers
    if not blocks:
        raise ValueError("A profile needs blocks. Received: blocks=[].")
    check_layers(blocks, head)
    check_integer("repeats", repeats, 1)
    if hasattr(batch, "shape"):
        size, shape = int(batch.shape[0]), tuple(batch.shape)
    else:
        check_integer("batch", batch, 1, "Give a number of examples, or an array of data.")
        size = int(batch)
        shape = (size, *data_shape(blocks[0], units.shape if input_shape is None else input_shape))
    if head is not None and not head.built:
        head = copy_layer(head)
        follow_format(head, blocks)
    kinds: dict[str, tuple[Any, Shape, bool]] = {}
    block_kinds, head_kinds, block_bytes, head_bytes = [], [], [], []
    counted: Any = None
    if units.is_model:
        data = tuple(side or 1 for side in shape[1:])
        counted = NetworkBytes(blocks, head, data, size, None, None, units.dtype)
        of_stage = counted.stage
    else:
        per_example = stage_bytes(blocks, head, (None, *shape[1:]))
        of_stage = functools.partial(_of_batch, per_example, size)
    for place, block in enumerate(blocks):
        block_kinds.append(_kind(kinds, block, shape, needs_gradient=place > 0))
        block_bytes.append(
            counted.blocks[place].at(size).held
            if counted
            else size * activation_bytes(block, (None, *shape[1:]))
        )
        shape = (size, *shape_after(block, (None, *shape[1:]))[1:])
        head_kinds.append(None if head is None else _kind(kinds, head, shape, True))
        head_bytes.append(0 if head is None else size * _head_bytes(head, shape))
    seconds = measured(kinds, repeats, verbose)
    return Profile(
        tuple(seconds[kind] for kind in block_kinds),
        tuple(0.0 if kind is None else seconds[kind] for kind in head_kinds),
        tuple(block_bytes),
        tuple(head_bytes),
        of_stage,
    )


def _of_batch(per_example: Callable[[int, int], int], size: int, start: int, end: int) -> int:
    return size * per_example(start, end)


def measured(
    kinds: dict[str, tuple[Any, Shape, bool]], repeats: int, verbose: Any = 0
) -> dict[str, float]:
    """Give each kind's median seconds of a forward and backward pass.

    Args:
        kinds: dict of key to (layer, shape of the input, whether its gradient is needed).
        repeats: int ≥ 1.
        verbose: int 0, 1 or 2, or `"auto"`: whether progress is shown. Defaults to `0`.
    """
    # Tracing is most of it; each kind's runs are one step more.
    done = Progress(len(kinds) * (1 + WARM_UP + repeats), verbose, "kind")
    runs = {key: _pass(*kind) for key, kind in done.of(kinds.items())}
    times: dict[str, list[float]] = {key: [] for key in runs}
    for place in range(WARM_UP + repeats):
        for key, run in runs.items():
            began = time.perf_counter()
            run().numpy()
            if place >= WARM_UP:
                times[key].append(time.perf_counter() - began)
            done()
    return {key: statistics.median(many) for key, many in times.items()}


def _kind(
    kinds: dict[str, tuple[Any, Shape, bool]], layer: Any, shape: Shape, needs_gradient: bool
) -> str:
    """Enter a layer among the kinds, and give its key."""
    key = kind_of(layer, shape, needs_gradient)
    kinds.setdefault(key, (layer, shape, needs_gradient))
    return key


def _copy(layer: Any, shape: Shape) -> Any:
    copy = copy_layer(layer)
    build_layer(copy, (None, *shape[1:]))
    return copy


def _head_bytes(head: Any, shape: Shape) -> int:
    return activation_bytes(_copy(head, shape), (None, *shape[1:]))


def _noise(shape: Shape, dtype: str) -> Any:
    """Give noise, and noughts of whole numbers, such as tokens, where noughts do for all."""
    sides = [side or 1 for side in shape]
    noise = np.random.default_rng(0).normal(size=sides) if "float" in dtype else np.zeros(sides)
    return tf.constant(noise, dtype=dtype)


def _floats(x: Any) -> bool:
    return bool(x.dtype.is_floating)


def _pass(layer: Any, shape: Shape, needs_gradient: bool) -> Callable[[], Any]:
    """Give a function that runs a layer forward and backward."""
    # A unit of a model tells no configuration, and is one of a copy already.
    is_unit = layer.built and config_of(layer) is None
    copy = layer if is_unit else _copy(layer, shape)
    own = [(tuple(shape), getattr(copy, "compute_dtype", None) or keras.config.floatx())]
    if is_unit:
        own = [((shape[0], *one.shape[1:]), one.dtype) for one in keras.tree.flatten(copy.given)]
    x = [_noise(*one) for one in own]
    variables = [one.value for one in copy.trainable_variables]

    several = passes_several(copy)
    # A function's own graph does not know the device that it is called on.
    device = current_device()

    @tf.function(autograph=False, jit_compile=False)
    def run() -> Any:
        with tf.device(device):
            start = [tf.identity(one) for one in x]
            given = keras.tree.pack_sequence_as(copy.given, start) if several else start[0]
            output = [one for one in keras.tree.flatten(copy(given, training=True)) if _floats(one)]
            inputs = [one for one in start if _floats(one)] if needs_gradient else []
            wanted = [*variables, *inputs]
            above = [tf.ones_like(one) for one in output]
            found = tf.gradients(output, wanted, grad_ys=above) if wanted else output
            # One number that needs them all.
            sums = [tf.cast(tf.reduce_sum(one), "float32") for one in found if one is not None]
            return tf.add_n(sums)

    # TensorFlow warns of many functions of the same lines, unless each is traced by itself.
    return run.get_concrete_function()
