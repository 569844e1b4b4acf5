"""The network that methods by gradients from above are tried on."""

import keras

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead


def make(method, num_stages=3, optimizer=None, **options):
    """Three blocks with dropout and batch statistics, cut into one to three stages."""
    blocks = [
        layer
        for place in range(3)
        for layer in (
            keras.layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.Dropout(0.3, seed=place),
            keras.layers.BatchNormalization(),
        )
    ]
    sizes = {1: [9], 2: [3, 6], 3: [3, 3, 3]}[num_stages]
    model = GreedyModel.from_blocks(blocks, sizes, LinearHead(3), method=method, seed=0)
    model.build((None, 6))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.25, momentum=0.5), loss, **options)
    return model
