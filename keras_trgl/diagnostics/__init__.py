"""Diagnostics: what a run did, seen from outside.

May import all rooms but those of its own rank, and `plot`; nothing imports it. It never changes
what it looks at.
"""

from keras_trgl.diagnostics.calibration import calibration as calibration
from keras_trgl.diagnostics.depth_table import DepthTable as DepthTable
from keras_trgl.diagnostics.failure_prediction import failure_prediction as failure_prediction
from keras_trgl.diagnostics.history_by_stage import history_by_stage as history_by_stage
from keras_trgl.diagnostics.information import information as information
from keras_trgl.diagnostics.monge_gap import monge_gap as monge_gap
from keras_trgl.diagnostics.report import report as report
from keras_trgl.diagnostics.separability import separability as separability
from keras_trgl.diagnostics.similarity import similarity as similarity
from keras_trgl.diagnostics.transport import transport as transport
from keras_trgl.diagnostics.wasserstein import wasserstein as wasserstein
