"""Ordinary backpropagation through the same network, the reference."""

from keras_trgl.methods.method import LocalMethod
from keras_trgl.registration import public


@public
class EndToEnd(LocalMethod):
    """All stages train as one by the loss of the last head.

    A `GreedyModel` with this method joins its stages into a single one and keeps the last head
    alone: the same blocks, with the same initial weights, trained as `keras.Model.fit` would.

    Example:
        >>> from keras_trgl.methods import EndToEnd
        >>> EndToEnd().cuts_gradient
        False
    """

    cuts_gradient = False
    loss_names = ()
