"""Losses that methods need beside Keras's own."""

from keras_trgl.losses.similarity_matching import SimilarityMatching as SimilarityMatching
from keras_trgl.losses.supervised_contrastive import (
    SupervisedContrastive as SupervisedContrastive,
)
