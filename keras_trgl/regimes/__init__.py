"""Regimes: when stages train."""

from keras_trgl.regimes.parallel import Parallel as Parallel
from keras_trgl.regimes.regime import Regime as Regime
