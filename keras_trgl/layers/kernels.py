"""The two operations that give an energy beside their result, with gradients of their own.

Both gradients form a tensor of the features' size. Nothing but the loss holds that back, so an
executor would form all blocks' at once when the backward pass begins, and memory would grow by the
very residuals that are not kept. Hence each waits for the gradient that arrives at its own block.
"""

from typing import Any

import tensorflow as tf

from keras_trgl.types import Tensor


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

    @tf.custom_gradient
    def run(x: Tensor, scale: Tensor, offset: Tensor) -> Any:
        outputs, mean, unbiased, first, second, third = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon, is_training=True
        )
        variance = _biased(unbiased, x)
        share = variance / (variance + epsilon)
        channels = float(x.shape[-1])

        def grad(
            upstream: Tensor, _mean: Tensor, _variance: Tensor, upstream_energy: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
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
            factor = upstream_energy * (2.0 / channels)
            slope = (
                factor * tf.square(scale / (variance + epsilon)) * (epsilon / values_per_channel(x))
            )
            own = 1e-3  # The kernel's ε: with the variance 1 - ε it cancels.
            with tf.control_dependencies([dx]):
                pull = normalize(x, slope, tf.zeros_like(mean), mean, tf.ones_like(mean) - own, own)
            return dx + pull, dscale + factor * scale * share, doffset + factor * offset

        energy = tf.reduce_mean(tf.square(scale) * share + tf.square(offset))
        return (outputs, mean, variance, energy), grad

    outputs, mean, variance, energy = run(x, scale, offset)
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance), energy


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

    @tf.custom_gradient
    def run(shortcut: Tensor, residual: Tensor) -> Any:
        merged = shortcut + residual
        count = tf.cast(tf.size(residual), precise)

        def grad(upstream: Tensor, upstream_energy: Tensor) -> tuple[Tensor, Tensor]:
            factor = tf.cast(2.0 * upstream_energy / count, merged.dtype)
            with tf.control_dependencies([upstream]):
                again = merged - shortcut
            return upstream, upstream + factor * again

        energy = tf.reduce_sum(tf.square(tf.cast(residual, precise))) / count
        return (merged, energy), grad

    return run(shortcut, residual)
