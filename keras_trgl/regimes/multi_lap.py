"""The multi-lap sequential regime: all stages in turn, several times."""

from collections.abc import Sequence
from typing import Any

from keras_trgl.checks import check_integer
from keras_trgl.regimes.in_turn import InTurn
from keras_trgl.regimes.stop_stage import StopStage
from keras_trgl.registration import public


@public
class MultiLap(InTurn):
    """All stages train in turn, in R laps of a share 1/R of their epochs each.

    Later laps go on from the weights and the optimizer state of the earlier ones. One lap is
    `Sequential`.

    Args:
        epochs: int ≥ 1, or list of them, one per stage. A stage's epochs over all laps; must divide
            into `num_laps`. Defaults to `10`.
        num_laps: int ≥ 1. R, laps over all stages. Defaults to `5`.
        cache: `None`, `"memory"`, `"disk"` or a `FeatureCache`, as in `Sequential`. Defaults to
            `None`.
        frozen: `"inference"` or `"train"`, as in `Sequential`. Defaults to `"inference"`.
        stop: `StopStage` or `None`, as in `Sequential`. Defaults to `None`.
        idle_device: str or `None`, as in `Sequential`. Defaults to `None`.

    Raises:
        ValueError: `epochs` do not divide into `num_laps`; as for `Sequential`.

    Example:
        >>> from keras_trgl.regimes import MultiLap
        >>> regime = MultiLap(epochs=2, num_laps=2)
        >>> [regime.plan(num_stages=2, epoch=e) for e in range(4)]
        [(0,), (1,), (0,), (1,)]

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, section 4 (multi-lap sequential training).
    """

    always_shown = ("epochs", "num_laps")

    def __init__(
        self,
        epochs: int | Sequence[int] = 10,
        num_laps: int = 5,
        cache: Any = None,
        frozen: str = "inference",
        stop: StopStage | None = None,
        idle_device: str | None = None,
    ) -> None:
        check_integer("num_laps", num_laps, 1)
        super().__init__(epochs, int(num_laps), cache, frozen, stop, idle_device)

    @property
    def num_laps(self) -> int:
        """Laps over all stages, R."""
        return self.laps

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {**super().get_config(), "num_laps": self.laps}
