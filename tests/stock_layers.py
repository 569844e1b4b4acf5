"""Keras's own layers, one row each: how it is made, and the shape of its input."""

import keras

L = keras.layers

BUILT_FROM_THE_START = {
    "Activation": lambda: L.Activation("tanh"),
    "Activation_of_a_lambda": lambda: L.Activation(lambda x: 2 * x),
    "AlphaDropout": lambda: L.AlphaDropout(0.5, seed=3),
    "Dropout": lambda: L.Dropout(0.5),
    "ELU": lambda: L.ELU(0.5),
    "GaussianDropout": lambda: L.GaussianDropout(0.5),
    "GaussianNoise": lambda: L.GaussianNoise(0.5),
    "GlobalAveragePooling2D": lambda: L.GlobalAveragePooling2D(keepdims=True),
    "Identity": lambda: L.Identity(),
    "LeakyReLU": lambda: L.LeakyReLU(0.3),
    "Masking": lambda: L.Masking(-1.0),
    "MaxPooling2D": lambda: L.MaxPooling2D(3, padding="same"),
    "ReLU": lambda: L.ReLU(6.0),
    "Reshape": lambda: L.Reshape((2, 2)),
    "Softmax": lambda: L.Softmax(1),
    "SpatialDropout2D": lambda: L.SpatialDropout2D(0.5),
    "UnitNormalization": lambda: L.UnitNormalization(),
}
"""Layers without weights, which Keras calls built as soon as they are made."""

BUILT_BY_SHAPE = {
    "BatchNormalization": (
        lambda: L.BatchNormalization(gamma_initializer="random_normal"),
        (None, 4),
    ),
    "Bidirectional": (lambda: L.Bidirectional(L.LSTM(3)), (None, 5, 2)),
    "CategoryEncoding": (lambda: L.CategoryEncoding(3), (None, 1)),
    "Conv1D": (lambda: L.Conv1D(3, 2), (None, 6, 2)),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(3, 2), (None, 6, 2)),
    "Conv2D": (lambda: L.Conv2D(3, 2, bias_initializer="random_normal"), (None, 6, 6, 2)),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 2), (None, 6, 6, 2)),
    "Conv3D": (lambda: L.Conv3D(3, 2), (None, 4, 4, 4, 2)),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(3, 2), (None, 5, 6, 2)),
    "Dense": (lambda: L.Dense(3, kernel_regularizer="l2"), (None, 4)),
    "Dense_with_a_layer_as_activation": (lambda: L.Dense(3, activation=L.PReLU()), (None, 4)),
    "Dense_with_a_seed": (
        lambda: L.Dense(3, kernel_initializer=keras.initializers.HeNormal(seed=5)),
        (None, 4),
    ),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(2), (None, 6, 6, 2)),
    "Discretization": (lambda: L.Discretization(bin_boundaries=[0.0, 1.0]), (None, 4)),
    "EinsumDense": (
        lambda: L.EinsumDense("ab,bc->ac", output_shape=3, bias_axes="c"),
        (None, 4),
    ),
    "Embedding": (lambda: L.Embedding(5, 3), (None, 4)),
    "Flatten": (lambda: L.Flatten(), (None, 4, 2)),
    "GRU": (lambda: L.GRU(3, dropout=0.1), (None, 5, 2)),
    "GroupNormalization": (lambda: L.GroupNormalization(2), (None, 4)),
    "Hashing": (lambda: L.Hashing(3), (None, 1)),
    "IntegerLookup": (lambda: L.IntegerLookup(vocabulary=[1, 2]), (None, 1)),
    "LSTM": (lambda: L.LSTM(3, recurrent_dropout=0.1), (None, 5, 2)),
    "LayerNormalization": (lambda: L.LayerNormalization(epsilon=0.1), (None, 4)),
    "PReLU": (lambda: L.PReLU("random_normal"), (None, 4)),
    "Permute": (lambda: L.Permute((2, 1)), (None, 4, 2)),
    "RMSNormalization": (lambda: L.RMSNormalization(), (None, 4)),
    "RNN": (lambda: L.RNN([L.GRUCell(3), L.LSTMCell(2)]), (None, 5, 2)),
    "RandAugment": (lambda: L.RandAugment(), (None, 8, 8, 3)),
    "RandomColorJitter": (
        lambda: L.RandomColorJitter(brightness_factor=0.1, contrast_factor=0.1),
        (None, 8, 8, 3),
    ),
    "RandomFlip": (lambda: L.RandomFlip(), (None, 4, 4, 3)),
    "RandomRotation": (lambda: L.RandomRotation(0.1), (None, 4, 4, 3)),
    "Rescaling": (lambda: L.Rescaling(0.5), (None, 4)),
    "SeparableConv1D": (lambda: L.SeparableConv1D(3, 2), (None, 6, 2)),
    "SeparableConv2D": (lambda: L.SeparableConv2D(3, 2), (None, 6, 6, 2)),
    "Sequential": (
        lambda: keras.Sequential([L.Dense(3, activation=L.ReLU()), L.Dropout(0.2), L.Dense(2)]),
        (None, 4),
    ),
    "SpectralNormalization": (lambda: L.SpectralNormalization(L.Conv2D(3, 2)), (None, 6, 6, 2)),
    "StringLookup": (lambda: L.StringLookup(vocabulary=["a"]), (None, 1)),
    "TextVectorization": (lambda: L.TextVectorization(vocabulary=["a"]), (None,)),
    "TimeDistributed": (lambda: L.TimeDistributed(L.Dense(3)), (None, 5, 2)),
    "UpSampling2D": (lambda: L.UpSampling2D(3), (None, 4, 4, 2)),
    "ZeroPadding2D": (lambda: L.ZeroPadding2D(1), (None, 4, 4, 2)),
}
"""Layers that are built for a shape."""
