"""The parallel, or batch-wise, regime."""

from keras_trgl.regimes.regime import Regime
from keras_trgl.registration import public


@public
class Parallel(Regime):
    """Every stage steps on every batch.

    Stage k+1 gets the features that stage k made before its update of the same batch, so all
    gradients are functions of the weights at the batch's start.

    Example:
        >>> from keras_trgl.regimes import Parallel
        >>> Parallel().plan(num_stages=3)
        (0, 1, 2)

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, algorithm 2.
    """

    def plan(self, num_stages: int, epoch: int = 0) -> tuple[int, ...]:
        """Give all stages, first to last.

        Args:
            num_stages: int ≥ 1. Stages there are.
            epoch: int ≥ 0. Every epoch is alike. Defaults to `0`.

        Returns:
            Tuple of ints, positions from 0.
        """
        del epoch
        return tuple(range(num_stages))
