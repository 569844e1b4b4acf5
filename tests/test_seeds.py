"""Seeds as a function of (seed, position)."""

import keras
import numpy as np

from keras_trgl.seeds import derive_seed, fill_seeds


def test_a_seed_is_a_function_of_its_position_alone():
    seeds = {(s, *p): derive_seed(s, *p) for s in (0, 1) for p in [(0, 0), (0, 1), (1, 0)]}
    assert len(set(seeds.values())) == len(seeds)
    assert derive_seed(0, 0, 1) == seeds[0, 0, 1]
    assert all(0 <= seed < 2**31 for seed in seeds.values())


def test_open_seeds_are_filled_and_given_ones_stay():
    config = keras.layers.Dense(
        2, bias_initializer=keras.initializers.RandomNormal(seed=7)
    ).get_config()
    filled = fill_seeds(config, 0, 5)
    assert filled["bias_initializer"]["config"]["seed"] == 7
    assert filled["kernel_initializer"]["config"]["seed"] == derive_seed(0, 5, 0)
    assert config["kernel_initializer"]["config"]["seed"] is None


def test_layers_that_draw_at_run_time_get_a_seed_too():
    filled = fill_seeds(keras.layers.Dropout(0.5).get_config(), 0, 1)
    layers = [keras.layers.Dropout.from_config(filled) for _ in range(2)]
    x = np.ones((4, 50), "float32")
    np.testing.assert_array_equal(*(layer(x, training=True) for layer in layers))
