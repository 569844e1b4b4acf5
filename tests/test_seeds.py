"""Seeds as a function of (seed, position)."""

import pathlib
import random
import runpy

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel, load_model
from keras_trgl.architectures import resnet
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.layers.chain import build_layer
from keras_trgl.layers.copying import copy_layer
from keras_trgl.network.live_seeds import build_seeded
from keras_trgl.seeds import BLOCK, derive_seed

pytestmark = pytest.mark.sampled(2)

L = keras.layers
STOCK = runpy.run_path(str(pathlib.Path(__file__).parent / "stock_layers.py"))["BUILT_BY_SHAPE"]
X = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")


def test_a_seed_is_a_function_of_its_position_alone():
    seeds = {(s, *p): derive_seed(s, *p) for s in (0, 1) for p in [(0, 0), (0, 1), (1, 0)]}
    assert len(set(seeds.values())) == len(seeds)
    assert derive_seed(0, 0, 1) == seeds[0, 0, 1]
    assert all(0 <= seed < 2**31 for seed in seeds.values())


def filled(config, *position):
    """The same seeds put into a configuration, in its order: an independent way to them."""
    count = iter(range(10**6))

    def walk(value):
        if isinstance(value, dict):
            return {
                key: derive_seed(*position, next(count))
                if key == "seed" and one is None
                else walk(one)
                for key, one in value.items()
            }
        return [walk(one) for one in value] if isinstance(value, list) else value

    return walk(config)


def seeds_in(config):
    if isinstance(config, dict):
        own = [config["seed"]] if "seed" in config else []
        return own + [seed for one in config.values() for seed in seeds_in(one)]
    return [seed for one in config for seed in seeds_in(one)] if isinstance(config, list) else []


OURS = {
    "ConvHead": (lambda: ConvHead(3), (None, 8, 8, 4)),
    "ConvHead_with_a_seed": (lambda: ConvHead(3, seed=5), (None, 8, 8, 4)),
    "LinearHead": (lambda: LinearHead(3), (None, 8, 8, 4)),
    "ResidualBlock": (lambda: resnet(8, (8, 8, 1), widths=(4, 8, 8))[0], (None, 8, 8, 1)),
    "ResidualBlock_with_dropout": (
        lambda: ResidualBlock([L.Conv2D(1, 3, padding="same"), L.Dropout(0.5)]),
        (None, 8, 8, 1),
    ),
}
ROWS = {**STOCK, **OURS}
DRAWN_BY_KERAS = {"vector_u"}
"""Variables whose initializer stands in no configuration: drawn by each position's own seed."""


@pytest.mark.parametrize("name", ROWS)
def test_a_live_layer_starts_as_one_whose_configuration_has_the_seeds(name):
    make, shape = ROWS[name]
    layer = make()
    copy = copy_layer(layer)
    wanted = type(layer).from_config(filled(layer.get_config(), 7, BLOCK, 3))
    build_layer(wanted, shape)
    before = seeds_in(layer.get_config())
    for one in (layer, copy):
        build_seeded(one, shape, 7, BLOCK, 3)
        assert len(one.variables) == len(wanted.variables)
        for has, has_to in zip(one.variables, wanted.variables, strict=True):
            if has.name in DRAWN_BY_KERAS:
                continue
            np.testing.assert_array_equal(has.numpy(), has_to.numpy())
    assert seeds_in(layer.get_config()) == before


class Attention(L.Layer):
    """Attends to its own input."""

    def __init__(self, kind):
        super().__init__()
        self.attention = kind

    def call(self, x):
        return self.attention(x, x)


class Words(L.Layer):
    """Draws what no configuration tells of."""

    def __init__(self):
        super().__init__()
        self.parts = {"first": [L.Dense(4), L.Dropout(0.5)], "second": L.Dense(4)}

    def build(self, shape):
        self.parts["first"][0].build(shape)
        self.parts["second"].build(shape)
        self.third = self.add_weight(shape=(4, 4), initializer="he_normal")
        self.noise = keras.random.SeedGenerator()

    def call(self, x):
        return self.parts["second"](self.parts["first"][0](x)) @ self.third


SHARED = keras.initializers.HeNormal()
ONE_PER_VARIABLE = {
    "MultiHeadAttention": (
        lambda: Attention(L.MultiHeadAttention(2, 4, dropout=0.1)),
        (None, 6, 8),
    ),
    "GroupQueryAttention": (lambda: Attention(L.GroupQueryAttention(4, 2, 2)), (None, 6, 8)),
    "one initializer for all": (
        lambda: ResidualBlock([L.Dense(4, kernel_initializer=SHARED) for _ in range(3)]),
        (None, 4),
    ),
    "a user's": (Words, (None, 4)),
    "SimpleRNN": (lambda: L.SimpleRNN(4, dropout=0.1), (None, 5, 4)),
    "RandomCrop": (lambda: keras.Sequential([L.RandomCrop(4, 4), L.Dense(2)]), (None, 8, 8, 3)),
}
"""Layers that share or draw seeds outside of any configuration."""


@pytest.mark.parametrize("name", ONE_PER_VARIABLE)
def test_every_variable_has_a_seed_of_its_own(name):
    make, shape = ONE_PER_VARIABLE[name]
    first, second, other = make(), make(), make()
    random.seed(1)
    build_seeded(first, shape, 7, BLOCK, 3)
    random.seed(2)
    state = random.getstate()
    build_seeded(second, shape, 7, BLOCK, 3)
    assert random.getstate() == state
    build_seeded(other, shape, 7, BLOCK, 4)
    kernels = [one.numpy() for one in first.weights if one.numpy().std() > 0]
    for place, one in enumerate(kernels):
        assert not any(
            one.size == kernel.size and np.array_equal(one.ravel(), kernel.ravel())
            for kernel in kernels[place + 1 :]
        )
    for one, same in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), same.numpy())
    changed = [
        not np.array_equal(one.numpy(), another.numpy())
        for one, another in zip(first.variables, other.variables, strict=True)
        if one.numpy().any()
    ]
    assert any(changed)


def test_a_users_initializer_stays_as_it_was():
    initializer = keras.initializers.HeNormal()
    seed = initializer.seed
    layer = L.Dense(3, kernel_initializer=initializer)
    build_seeded(layer, (None, 4), 0, BLOCK, 0)
    assert layer.kernel_initializer is initializer
    assert (initializer.seed, initializer.get_config()["seed"]) == (seed, None)


def model(seed):
    blocks = [
        ResidualBlock(
            [L.Conv2D(1, 3, padding="same"), L.Dropout(0.5)],
            input_shape=(8, 8, 1) if place == 0 else None,
        )
        for place in range(2)
    ]
    return GreedyModel.from_blocks(blocks, [1, 1], ConvHead(3), seed=seed)


def states(model):
    return [v.numpy().tolist() for v in model.variables if "seed" in v.name]


@pytest.mark.parametrize("seed", [None, 4])
def test_a_clone_draws_anew_unless_the_seed_was_given(seed):
    first = model(seed)
    clone = keras.models.clone_model(first)
    assert first.get_config()["seed"] == seed
    assert set(seeds_in(first.get_config()["stages"])) == {None}
    same = [
        np.array_equal(a.numpy(), b.numpy())
        for a, b in zip(first.trainable_variables, clone.trainable_variables, strict=True)
        if a.numpy().std() > 0
    ]
    assert set(same) == {seed is not None}
    assert (clone.seed == first.seed) == (seed is not None)


@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("door", ["load_model", "save_model"])
def test_a_loaded_model_has_the_seed_that_was_drawn(seed, door, tmp_path):
    first = model(seed)
    began = states(first)
    path = str(tmp_path / "model.keras")
    if door == "save_model":
        keras.saving.save_model(first, path)
    else:
        first.save(path)
    random.seed(99)
    loaded = load_model(path)
    assert loaded.seed == first.seed
    assert states(loaded) == began
    assert loaded.get_config()["seed"] == seed
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), first.predict(X, verbose=0))
    again = load_model(path)
    for one in (loaded, again):
        one.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        one.fit(X, np.zeros(8, int), batch_size=4, verbose=0)
    for one, other in zip(loaded.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
