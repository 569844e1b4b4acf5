"""Regimes: when stages train."""

from keras_trgl.regimes.buffered import Buffered as Buffered
from keras_trgl.regimes.multi_lap import MultiLap as MultiLap
from keras_trgl.regimes.parallel import Parallel as Parallel
from keras_trgl.regimes.regime import Regime as Regime
from keras_trgl.regimes.sequential import Sequential as Sequential
from keras_trgl.regimes.stop_stage import StopStage as StopStage
