"""The sequential regime: one stage after the other."""

from collections.abc import Sequence
from typing import Any

from keras_trgl.regimes.in_turn import InTurn
from keras_trgl.regimes.stop_stage import StopStage
from keras_trgl.registration import public


@public
class Sequential(InTurn):
    """Stage k trains for all its epochs, then freezes; stage k+1 trains on its output.

    With one block per stage this is block-wise training. `fit(epochs=None)` takes the sum of the
    stages' epochs. Logs hold `stage`, `lap` and `stage_epoch`, each counted from 1.

    Args:
        epochs: int ≥ 1, or list of them, one per stage. The published code's epochs are
            `[50 + 10 * k for k in range(num_stages)]`. Defaults to `10`.
        cache: `None`, `"memory"`, `"disk"` or a `FeatureCache`. Where the inputs of the stage in
            training are kept, so that frozen stages run once. `None` runs them on every batch.
            Defaults to `None`.
        frozen: `"inference"`: frozen stages give each example the same features in every epoch.
            `"train"` (published code): they normalize by the batch, and their moving statistics
            go on moving. Defaults to `"inference"`.
        stop: `StopStage` or `None`. When to go on before a stage's epochs are over. Defaults to
            `None`.
        idle_device: str or `None`. Device, such as `"CPU:0"`, that holds weights and optimizer
            state of the stages that do not train; the stage in training is on the device where
            `fit` is called. `None` moves nothing. Defaults to `None`.

    Raises:
        ValueError: `epochs` below 1, another word for `frozen`, or a cache with
            `frozen="train"`.

    Example:
        >>> from keras_trgl.regimes import Sequential
        >>> regime = Sequential(epochs=[2, 3])
        >>> [regime.plan(num_stages=2, epoch=e) for e in range(5)]
        [(0,), (0,), (1,), (1,), (1,)]

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, algorithm 1.
    """

    def __init__(
        self,
        epochs: int | Sequence[int] = 10,
        cache: Any = None,
        frozen: str = "inference",
        stop: StopStage | None = None,
        idle_device: str | None = None,
    ) -> None:
        super().__init__(epochs, 1, cache, frozen, stop, idle_device)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return dict(super().get_config())
