"""Auxiliary heads F_k: from a stage's features to a prediction."""

from keras_trgl.heads.conv import ConvHead as ConvHead
from keras_trgl.heads.dgl import DGLConvHead as DGLConvHead
from keras_trgl.heads.dgl import DGLMLPHead as DGLMLPHead
from keras_trgl.heads.dgl import DGLMLPSRHead as DGLMLPSRHead
from keras_trgl.heads.head import Head as Head
from keras_trgl.heads.linear import LinearHead as LinearHead
