"""Distribution: stages on different devices, trained at once."""

from keras_trgl.distribute.cluster import connect as connect
from keras_trgl.distribute.local_workers import LocalWorkers as LocalWorkers
from keras_trgl.distribute.lost_device import LostDeviceError as LostDeviceError
from keras_trgl.distribute.strategy import StageParallelStrategy as StageParallelStrategy
