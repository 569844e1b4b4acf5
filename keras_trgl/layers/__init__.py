"""Layers: residual units, stages, attention, and batch normalization by the fused kernel."""

from keras_trgl.layers.batch_normalization import BatchNormalization as BatchNormalization
from keras_trgl.layers.drop_path import DropPath as DropPath
from keras_trgl.layers.pad_shortcut import PadShortcut as PadShortcut
from keras_trgl.layers.patch_merging import PatchMerging as PatchMerging
from keras_trgl.layers.position_embedding import PositionEmbedding as PositionEmbedding
from keras_trgl.layers.residual_add import ResidualAdd as ResidualAdd
from keras_trgl.layers.residual_block import ResidualBlock as ResidualBlock
from keras_trgl.layers.self_attention import SelfAttention as SelfAttention
from keras_trgl.layers.stage import Stage as Stage
from keras_trgl.layers.window_attention import WindowAttention as WindowAttention
