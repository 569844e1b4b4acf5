"""Data sets, their augmentation, and batches in an order that can be replayed."""

from keras_trgl.datasets.batch_stream import BatchStream as BatchStream
