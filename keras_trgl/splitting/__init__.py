"""Splitting: from blocks to the sizes of stages."""

from keras_trgl.splitting.by_depth import by_depth as by_depth
from keras_trgl.splitting.by_memory import by_memory as by_memory
from keras_trgl.splitting.by_time import by_time as by_time
from keras_trgl.splitting.partition import min_max_partition as min_max_partition
from keras_trgl.splitting.profile import Profile as Profile
from keras_trgl.splitting.profile import profile as profile
from keras_trgl.splitting.published import published as published
