"""Data sets, their augmentation, and batches in an order that can be replayed."""

from keras_trgl.datasets.augmentation import Chain as Chain
from keras_trgl.datasets.augmentation import Normalize as Normalize
from keras_trgl.datasets.augmentation import PadCropFlip as PadCropFlip
from keras_trgl.datasets.batch_stream import BatchStream as BatchStream
from keras_trgl.datasets.image_data import ImageData as ImageData
from keras_trgl.datasets.loaders import load as load
