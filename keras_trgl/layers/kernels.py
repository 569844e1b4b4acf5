"""The two operations that give an energy beside their result, with gradients of their own.

Both gradients form a tensor of the features' size. Nothing but the loss holds that back, so an
executor would form all blocks' at once when the backward pass begins, and memory would grow by the
very residuals that are not kept. Hence each waits for the gradient that arrives at its own block.

Each gradient is registered once in a process, and reads what it needs from the operation that it
belongs to. `tf.custom_gradient` would register a closure per call in a graph, for ever, and with
it the graph.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.types import Tensor

Gradient = Callable[..., list[Tensor | None]]


def normalize(
    x: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    """Give `(x - mean) * scale / sqrt(variance + epsilon) + offset` in one pass.

    Args:
        x: tensor, `(batch, rows, columns, channels)`, float16, bfloat16 or float32.
        scale: float32 tensor, `(channels,)`; so are `offset`, `mean` and `variance`.
        offset: see `scale`.
        mean: see `scale`.
        variance: see `scale`.
        epsilon: float.

    Returns:
        Tensor of the shape and type of `x`.
    """
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=False,
    )[0]


def kept_apart(x: Tensor) -> Tensor:
    """Give a tensor whose operation the graph optimizer does not fuse with what follows.

    On a CPU it fuses a convolution, the normalization after it and a following tanh into one
    operation that TensorFlow does not have, and the call fails (2.21). A check of the shape copies
    nothing, and holds what follows off; the convolution and the normalization fuse as before.
    """
    return x if tf.executing_eagerly() else tf.ensure_shape(x, x.shape)


def values_per_channel(x: Tensor) -> Tensor:
    """Give batch times rows times columns as a float32 scalar."""
    return tf.cast(tf.size(x) // x.shape[-1], tf.float32)


def batch_normalize(
    x: Tensor, scale: Tensor, offset: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize by the batch's own statistics, by the fused kernel.

    Returns:
        Outputs, the mean and the *biased* variance per channel; only the outputs carry a
        gradient.
    """
    outputs, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(_biased(unbiased, x))


def batch_normalize_with_energy(
    x: Tensor, scale: Tensor, offset: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize as `batch_normalize`, and give the mean square of the outputs beside them.

    With σ² the biased variance and s = σ²/(σ²+ε), the outputs' mean square is, averaged over the
    C channels, exactly γ² s + β². With n values a channel, dσ²/dx = 2 (x - μ)/n adds
    2 γ² ε/(σ²+ε)² · (x - μ)/(n C) to the gradient of the inputs: small where σ² is far above ε,
    dominant near it. The kernel's own gradient knows nothing of it, as it gives its statistics
    the gradient zero.

    Returns:
        Outputs, mean, biased variance, and the energy, a float32 scalar.
    """
    outputs, mean, unbiased, *reserved = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    variance = _biased(unbiased, x)
    share = variance / (variance + epsilon)
    energy = tf.reduce_mean(tf.square(scale) * share + tf.square(offset))
    # The kernel takes its epsilon as a plain number, which no tensor carries to the gradient.
    name = f"KerasTrglBatchNormalizeWithEnergy_{float(epsilon)!r}"
    outputs, mean, variance, energy = _with_gradient(
        _registered(name, lambda: _batch_normalize_gradient(float(epsilon))),
        [outputs, mean, variance, energy],
        [x, scale, offset, share, *reserved],
    )
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance), energy


def _batch_normalize_gradient(epsilon: float) -> Gradient:
    """Give the gradient of `batch_normalize_with_energy` for this epsilon."""

    def gradient(op: Any, upstream: Tensor, _: Any, __: Any, energy: Tensor, *___: Any) -> Any:
        _, mean, variance, _, x, scale, offset, share, first, second, third = op.inputs
        dx, dscale, doffset, *_ = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream,
            x=x,
            scale=scale,
            reserve_space_1=first,
            reserve_space_2=second,
            reserve_space_3=third,
            epsilon=epsilon,
            is_training=True,
        )
        factor = energy * (2.0 / float(x.shape[-1]))
        slope = factor * tf.square(scale / (variance + epsilon)) * (epsilon / values_per_channel(x))
        own = 1e-3  # The kernel's ε: with the variance 1 - ε it cancels.
        with tf.control_dependencies([dx]):
            pull = normalize(x, slope, tf.zeros_like(mean), mean, tf.ones_like(mean) - own, own)
        return [
            *[None] * 4,
            *[dx + pull, dscale + factor * scale * share, doffset + factor * offset],
            *[None] * 4,
        ]

    return gradient


def _biased(unbiased: Tensor, x: Tensor) -> Tensor:
    """Turn the kernel's unbiased variance into the biased one."""
    count = values_per_channel(x)
    return unbiased * ((count - 1.0) / count)


def add_with_energy(shortcut: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Give `shortcut + residual` and the mean square of the residual, which is not kept.

    Where nothing follows the sum, both it and the shortcut are kept for the layers around it, and
    the gradient finds the residual again as their difference.

    Returns:
        The sum, and the energy: a scalar, of float32 for a half type.
    """
    precise = tf.float64 if residual.dtype == tf.float64 else tf.float32

    merged = shortcut + residual
    count = tf.cast(tf.size(residual), precise)
    energy = tf.reduce_sum(tf.square(tf.cast(residual, precise))) / count
    merged, energy = _with_gradient(
        _registered("KerasTrglAddWithEnergy", lambda: _add_gradient),
        [merged, energy],
        [shortcut, residual, count],
    )
    return merged, energy


def _add_gradient(op: Any, upstream: Tensor, energy: Tensor, *_: Any) -> list[Tensor | None]:
    """Give the gradient of `add_with_energy`."""
    merged, _, shortcut, _, count = op.inputs
    factor = tf.cast(2.0 * energy / count, merged.dtype)
    with tf.control_dependencies([upstream]):
        again = merged - shortcut
    return [None, None, upstream, upstream + factor * again, None]


_lock = threading.Lock()
_names: set[str] = set()


def _registered(name: str, make: Callable[[], Gradient]) -> str:
    """Give the name back, under which TensorFlow knows the gradient from then on."""
    with _lock:
        if name not in _names:
            tf.RegisterGradient(name)(make())
            _names.add(name)
    return name


def _with_gradient(
    gradient: str, results: Sequence[Tensor], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Give the results with a registered gradient in place of that of the operations behind them.

    Args:
        gradient: name of a registered function of an operation, whose `inputs` are `results` and
            `inputs`, and of the gradients that arrive at the results (more may follow). Gives a
            gradient or `None` for each input of the operation.
        results: tensors.
        inputs: tensors: what the results come from, and what the gradient needs beside.

    Returns:
        As many tensors as results.
    """
    tensors = [*results, *inputs]
    if tf.executing_eagerly():
        marked = [tf.identity(result) for result in results]
    else:
        # One operation with all of them as inputs: the gradient finds them at it.
        with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": gradient}):
            marked = tf.identity_n(tensors)[: len(results)]
    _record(gradient, tensors, marked)
    return list(marked)


def _record(gradient: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Tell the tapes that `outputs` come from `inputs` by what this gradient belongs to.

    An override speaks to symbolic gradients alone; a tape finds its gradient by a name that is
    recorded with the tensors. TensorFlow names the call as internal.
    """
    tf.__internal__.record_gradient(gradient, inputs, (), outputs)
