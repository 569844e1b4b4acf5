"""Layers: residual units, stages, and batch normalization by the fused kernel."""

from keras_trgl.layers.batch_normalization import BatchNormalization as BatchNormalization
from keras_trgl.layers.pad_shortcut import PadShortcut as PadShortcut
from keras_trgl.layers.residual_add import ResidualAdd as ResidualAdd
from keras_trgl.layers.residual_block import ResidualBlock as ResidualBlock
from keras_trgl.layers.stage import Stage as Stage
