"""What kind of call one is: of weights that make a unit, or of what belongs to the unit before."""

import keras

from keras_trgl.network.calls import Call

_NORMALIZATIONS = ("BatchNormalization", "LayerNormalization", "GroupNormalization")
_NORMALIZATION_LAYERS = (
    *(getattr(keras.layers, name) for name in (*_NORMALIZATIONS, "UnitNormalization")),
    keras.layers.RMSNormalization,
)
_ACTIVATION_LAYERS = tuple(
    getattr(keras.layers, name) for name in ("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU")
)
_ACTIVATIONS = {"Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Tanh"}


def is_main(call: Call) -> bool:
    """Tell whether a call is of a layer with weights that makes a unit."""
    if not call.weights:
        return False
    return not isinstance(call.operation, (*_NORMALIZATION_LAYERS, *_ACTIVATION_LAYERS))


def follows(call: Call) -> bool:
    """Tell whether a call is an activation or a normalization, part of the unit before it."""
    return is_activation(call) or isinstance(call.operation, _NORMALIZATION_LAYERS)


def is_activation(call: Call) -> bool:
    """Tell whether a call is an activation, a layer or an operation."""
    if not call.is_layer:
        return type(call.operation).__name__ in _ACTIVATIONS
    return isinstance(call.operation, _ACTIVATION_LAYERS)
