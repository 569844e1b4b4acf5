"""Search: how to train, from what there is to train with.

May import all rooms but those of its own rank; nothing imports it. A plan counts and weighs; the
search for stages trains candidates, on data that it holds apart, and hands back a grouping.
"""

from keras_trgl.search.grouping import Grouping as Grouping
from keras_trgl.search.sedona import Halving as Halving
from keras_trgl.search.sedona import Relaxed as Relaxed
from keras_trgl.search.sedona import sedona as sedona
