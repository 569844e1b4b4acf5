"""Losses that methods need beside Keras's own."""

from keras_trgl.losses.similarity_matching import SimilarityMatching as SimilarityMatching
