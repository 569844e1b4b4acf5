"""DDG: decoupled parallel backpropagation with delayed gradients."""

from keras_trgl.methods.delayed import DelayedMethod
from keras_trgl.registration import public


@public
class DDG(DelayedMethod):
    """Stage k takes, at step t, the end-to-end gradient of batch t − Δ_k at the weights of then.

    With w^t the weights before step t, L_b the last head's loss on batch b, and Δ_k = K − k::

        b = t − Δ_k,    w_k^(t+1) = w_k^t − γ ∂L_b/∂w_k (w^b),    no step while b < 0.

    The gradient is computed at once and kept for Δ_k steps, which gives the published numbers: a
    pass end to end, and beside it Σ_k Δ_k times stage k's weights. The authors' code keeps the
    activations of Δ_k + 1 batches instead. Memory is above that of end-to-end training either way.

    Logged as `stage_k_staleness`, for k < K: mean steps between gradient and update. Where a loss
    is scaled, a batch of which any gradient is not finite trains no stage, as end to end.

    Example:
        >>> import keras_trgl as trgl
        >>> blocks = trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1))
        >>> model = trgl.GreedyModel.from_blocks(
        ...     blocks, [2, 1], trgl.heads.LinearHead(units=3), method=trgl.methods.DDG())
        >>> model.truncate(2).output_shape
        (None, 3)

    Reference:
        Huo, Gu and Huang, "Decoupled Parallel Backpropagation with Convergence Guarantee", ICML
        2018, section 3, algorithm 1.
    """
