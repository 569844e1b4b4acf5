"""Copies of layers that are recipes: the same settings, and nothing shared that has a state."""

import functools
import pathlib
import runpy

import keras
import numpy as np
import pytest

from keras_trgl.architectures import blockwise_resnet, resnet
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.layers.chain import build_layer, output_shape
from keras_trgl.layers.copying import copy_layer
from keras_trgl.layers.inner import config_of

L = keras.layers
STOCK = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "stock_layers.py"))
BUILT_FROM_THE_START, BUILT_BY_SHAPE = STOCK["BUILT_FROM_THE_START"], STOCK["BUILT_BY_SHAPE"]
OURS = {
    "ConvHead": (lambda: ConvHead(3, weight_decay=0.1), (None, 8, 8, 4)),
    "LinearHead": (lambda: LinearHead(3), (None, 8, 8, 4)),
    "ResidualBlock": (lambda: resnet(8, (8, 8, 1), widths=(4, 8, 8))[0], (None, 8, 8, 1)),
    "ResidualBlock_with_shortcut": (
        lambda: resnet(8, (8, 8, 1), widths=(4, 8, 8), shortcut="conv", weight_decay=0.1)[1],
        (None, 8, 8, 4),
    ),
    "encoder": (
        lambda: blockwise_resnet((8, 8, 1), 2, width=4, separate_encoder=True)[0],
        (None, 8, 8, 1),
    ),
}
ROWS = {**BUILT_BY_SHAPE, **OURS}


def nameless(config):
    if isinstance(config, dict):
        return {key: nameless(one) for key, one in config.items() if key != "name"}
    return [nameless(one) for one in config] if isinstance(config, list) else config


def shapes(layer):
    return [(tuple(one.shape), one.dtype, one.trainable) for one in layer.weights]


@pytest.mark.parametrize("name", BUILT_FROM_THE_START)
def test_the_copy_of_a_layer_without_weights_has_its_settings(name):
    layer = BUILT_FROM_THE_START[name]()
    made = copy_layer(layer, "another")
    assert made is not layer
    assert (made.name, made.built) == ("another", True)
    assert nameless(config_of(made)) == nameless(config_of(layer))
    assert not {id(one) for one in made.variables} & {id(one) for one in layer.variables}


@pytest.mark.parametrize("name", ROWS)
def test_a_copy_builds_like_its_original_and_shares_no_variable(name):
    make, shape = ROWS[name]
    layer = make()
    made = copy_layer(layer, "another")
    assert (made.name, made.built) == ("another", False)
    assert nameless(made.get_config()) == nameless(layer.get_config())
    build_layer(made, shape)
    assert not layer.built
    build_layer(layer, shape)
    assert shapes(made) == shapes(layer)
    assert len(made.losses) == len(layer.losses)
    assert not {id(one) for one in made.variables} & {id(one) for one in layer.variables}
    assert output_shape(made, shape) == output_shape(layer, shape)


@pytest.mark.parametrize("name", ["Dense", "Sequential", "LSTM", "ConvHead"])
def test_a_copy_is_drawn_anew(name):
    make, shape = ROWS[name]
    layer = make()
    made = copy_layer(layer)
    for one in (layer, made):
        build_layer(one, shape)
        one.set_weights([np.ones(w.shape) for w in one.get_weights()])
    made.set_weights([np.zeros(w.shape) for w in made.get_weights()])
    assert all((w == 1).all() for w in layer.get_weights())


class Scale(L.Layer):
    """A layer of a user: no **kwargs, no configuration, no shapes, layers and functions inside."""

    def __init__(self, factor, inner):
        super().__init__()
        self.factor, self.inner = factor, {"list": [inner], "again": inner}
        self.bound = inner.compute_output_shape
        self.part = functools.partial(inner.count_params)

    def call(self, x):
        return self.factor(self.inner["list"][0](x))


def test_a_users_layer_is_copied_with_its_functions_and_layers():
    layer = Scale(lambda x: 2 * x, L.Dense(3))
    made = copy_layer(layer, "another")
    assert made.factor is layer.factor
    inner = made.inner["again"]
    assert inner is made.inner["list"][0]
    assert inner is not layer.inner["again"]
    assert made.bound.__self__ is inner
    assert made.part.func.__self__ is inner
    assert output_shape(made, (None, 4)) == (None, 3)
    assert not made.built


class Gain(keras.initializers.Initializer):
    """An initializer of a user without a configuration."""

    def __init__(self, gain=1.0):
        self.gain = gain

    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, self.gain, dtype)


def test_an_initializer_without_configuration_keeps_what_it_was_given():
    made = copy_layer(L.Dense(2, kernel_initializer=Gain(3.0)))
    made.build((None, 2))
    assert (made.kernel.numpy() == 3).all()


class OwnSequential(keras.Sequential):
    pass


def test_a_subclass_of_sequential_is_copied_with_its_layers():
    layer = OwnSequential([Scale(keras.ops.sin, L.Dense(3)), L.Dense(2)])
    made = copy_layer(layer, "another")
    assert type(made) is OwnSequential
    assert [type(one) for one in made.layers] == [Scale, L.Dense]
    build_layer(made, (None, 4))
    assert len(made.weights) == 4
    assert not layer.weights


def test_a_functional_model_and_an_adapted_normalization_keep_what_they_are():
    inputs = keras.Input((4,))
    norm = L.Normalization()
    norm.adapt(np.random.default_rng(0).normal(2.0, 3.0, (50, 4)).astype("float32"))
    model = keras.Model(inputs, L.Dense(2, activation=lambda x: 3 * x)(norm(inputs)))
    made = copy_layer(model, "another")
    assert made.name == "another"
    made.set_weights(model.get_weights())
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(made(x), model(x))
    np.testing.assert_array_equal(copy_layer(norm)(x), norm(x))


def test_adapted_tables_are_shared():
    words = L.StringLookup()
    words.adapt(["a", "b", "b"])
    made = copy_layer(words)
    assert made.get_vocabulary() == words.get_vocabulary()
    assert made.lookup_table is words.lookup_table


class Closed(L.Layer):
    def __init__(self, inner):
        super().__init__()
        self.function = lambda x: inner(x)

    def call(self, x):
        return self.function(x)


class Box:
    def __init__(self, inner):
        self.inner = inner


class Boxed(L.Layer):
    def __init__(self, inner):
        super().__init__()
        self.box = Box(inner)

    def call(self, x):
        return self.box.inner(x)


class Weighted(L.Layer):
    def __init__(self, start):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer=start)


class Counted(L.Layer):
    """Weights from the start, and arguments that Keras records by itself."""

    def __init__(self, count):
        super().__init__()
        self.scale = self.add_weight(shape=(count,))


class Fixed(L.Layer):
    def __new__(cls, inner):
        return super().__new__(cls, inner)

    def __init__(self, inner):
        super().__init__()
        self.inner = inner


REFUSED = {
    "a function that holds a layer": (lambda: Closed(L.Dense(2)), "the function <lambda> that ref"),
    "an object that holds a layer": (lambda: Boxed(L.Dense(2)), "a Box that refers to dense"),
    "weights from the start": (lambda: Weighted(Gain()), "has weights already"),
    "arguments of new": (lambda: Fixed(L.Dense(2)), "a `__new__` that takes arguments"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_copy_would_share_or_lose_is_refused(name):
    make, said = REFUSED[name]
    with pytest.raises(ValueError, match=rf"(?s)copied for each.*{said}.*a list of heads"):
        copy_layer(make())


def test_weights_from_the_start_are_made_anew_where_the_configuration_is_whole():
    layer = Counted(3)
    made = copy_layer(layer, "another")
    assert made.name == "another"
    assert made.scale is not layer.scale
    assert tuple(made.scale.shape) == (3,)


class Forgetful(L.Dense):
    def get_config(self):
        return {**super().get_config(), "made": id(self)}


def test_settings_that_did_not_pass_are_noticed():
    with pytest.raises(ValueError, match="settings that did not pass to its copy"):
        copy_layer(Forgetful(2))


def test_a_shape_that_cannot_be_had_is_asked_for():
    with pytest.raises(ValueError, match="Define `compute_output_shape"):
        output_shape(Closed(L.Dense(2)), (None, 3))


@pytest.mark.parametrize("name", ROWS)
def test_a_built_layer_has_an_unbuilt_copy(name):
    make, shape = ROWS[name]
    layer = make()
    build_layer(layer, shape)
    made = copy_layer(layer, "another")
    build_layer(made, shape)
    assert shapes(made) == shapes(layer)
    assert not {id(one) for one in made.variables} & {id(one) for one in layer.variables}
