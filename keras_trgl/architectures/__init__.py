"""Architectures: flat lists of blocks."""

from keras_trgl.architectures.resnet import blockwise_resnet as blockwise_resnet
from keras_trgl.architectures.resnet import resnet as resnet
