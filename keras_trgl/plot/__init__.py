"""Plots: pictures of what users hold, in one style.

May import all rooms but those of its own rank, which may import it. Every function gives the
figure, of matplotlib's object-oriented face: nothing global is set, nothing is shown.
"""

from keras_trgl.plot.accuracy_by_depth import accuracy_by_depth as accuracy_by_depth
from keras_trgl.plot.exits import exits as exits
from keras_trgl.plot.history import history as history
from keras_trgl.plot.memory import memory as memory
