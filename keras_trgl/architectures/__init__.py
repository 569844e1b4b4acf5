"""Architectures: flat lists of blocks."""

from keras_trgl.architectures.bottleneck_resnet import resnet50 as resnet50
from keras_trgl.architectures.bottleneck_resnet import resnet101 as resnet101
from keras_trgl.architectures.bottleneck_resnet import resnet152 as resnet152
from keras_trgl.architectures.resnet import blockwise_resnet as blockwise_resnet
from keras_trgl.architectures.resnet import resnet as resnet
from keras_trgl.architectures.swin import swin_tiny as swin_tiny
from keras_trgl.architectures.vgg import vgg as vgg
from keras_trgl.architectures.vit import vit as vit
