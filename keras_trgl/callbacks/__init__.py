"""Callbacks for training by stages."""

from keras_trgl.callbacks.depth_progbar import DepthProgbar as DepthProgbar
