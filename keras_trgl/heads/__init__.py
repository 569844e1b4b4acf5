"""Auxiliary heads F_k: from a stage's features to a prediction."""

from keras_trgl.heads.conv import ConvHead as ConvHead
from keras_trgl.heads.dense import DenseHead as DenseHead
from keras_trgl.heads.dgl import DGLHead as DGLHead
from keras_trgl.heads.head import Head as Head
from keras_trgl.heads.infopro import InfoProHead as InfoProHead
from keras_trgl.heads.linear import LinearHead as LinearHead
from keras_trgl.heads.norm import NormHead as NormHead
from keras_trgl.heads.sedona import SedonaHead as SedonaHead
