"""Regimes by the names that `GreedyModel` takes."""

from typing import Any

from keras_trgl.checks import chosen
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.regimes.multi_lap import MultiLap
from keras_trgl.regimes.parallel import Parallel
from keras_trgl.regimes.regime import Regime
from keras_trgl.regimes.sequential import Sequential

REGIMES = {
    "parallel": Parallel,
    "sequential": Sequential,
    "multi_lap": MultiLap,
    "buffered": Buffered,
}


def get_regime(value: Any) -> Any:
    """Give a regime from itself or from its name.

    Raises:
        ValueError: no such name.
        TypeError: something else.
    """
    return chosen("regime", value, Regime, REGIMES)
