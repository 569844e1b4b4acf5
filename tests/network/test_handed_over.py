"""What the user hands over is used: each row does what plain Keras does with the same object."""

import gc
import weakref

import keras
import numpy as np
import pytest

from keras_trgl import GreedyModel
from keras_trgl.architectures import resnet
from keras_trgl.heads import ConvHead, LinearHead
from keras_trgl.layers import ResidualBlock
from keras_trgl.splitting import by_memory, by_time

pytestmark = pytest.mark.sampled(4)

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.integers(0, 3, 32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Plain(L.Layer):
    """Takes no **kwargs, and has neither configuration nor shapes."""

    def __init__(self, units, activation):
        super().__init__()
        self.inner = [L.Dense(units), L.Dropout(0.2, seed=1)]
        self.activation = activation

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return self.activation(x)


class Lazy(L.Layer):
    """Builds weights of its own, and leaves the layer inside to the first call."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(4)

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return self.dense(x * self.scale)


class Model(keras.Model):
    """A subclassed model as a block."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(4)

    def call(self, x):
        return keras.ops.relu(self.dense(x))


class Half(keras.initializers.Initializer):
    def __init__(self, *values):
        self.values = values

    def __call__(self, shape, dtype=None):
        return keras.random.normal(shape, seed=3, dtype=dtype) * self.values[0]


class Pull(keras.regularizers.Regularizer):
    def __init__(self, *places):
        self.places = places

    def __call__(self, x):
        return 0.1 * keras.ops.sum(keras.ops.square(x - self.places[0]))


class Unit(keras.constraints.Constraint):
    def __init__(self, *limits):
        self.limits = limits

    def __call__(self, w):
        return keras.ops.clip(w, -self.limits[0], self.limits[0])


def normalization():
    layer = L.Normalization()
    layer.adapt(X)
    return layer


def double(x):
    return 2 * x


BLOCKS = {
    "a function as activation": lambda: L.Dense(4, activation=double),
    "a lambda as activation": lambda: L.Dense(4, activation=lambda x: keras.ops.tanh(2 * x)),
    "keras.ops.sin as activation": lambda: L.Dense(4, activation=keras.ops.sin),
    "a layer as activation": lambda: L.Dense(4, activation=L.PReLU()),
    "an own initializer": lambda: L.Dense(4, kernel_initializer=Half(0.5)),
    "an own regularizer": lambda: L.Dense(4, kernel_regularizer=Pull(0.5)),
    "an own constraint": lambda: L.Dense(4, kernel_constraint=Unit(0.1)),
    "an own layer without kwargs": lambda: Plain(4, keras.ops.tanh),
    "an own layer that builds by halves": Lazy,
    "an own model": Model,
    "Sequential of own layers": lambda: keras.Sequential([Plain(4, keras.ops.sin), Lazy()]),
    "Lambda": lambda: L.Lambda(lambda x: x**2 - 1),
    "an adapted Normalization": normalization,
    "a block with own layers": lambda: ResidualBlock([Plain(6, keras.ops.tanh)]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_trains_as_in_a_plain_model(name):
    block, twin = BLOCKS[name](), BLOCKS[name]()
    head, twin_head = L.Dense(3), L.Dense(3)
    model = GreedyModel([[block]], [head], method="vangl", seed=0)
    model.build((None, 6))
    assert (model.stages[0].blocks[0], model.heads[0]) == (block, head)
    inputs = keras.Input((6,))
    plain = keras.Model(inputs, twin_head(twin(inputs)))
    plain(X[:1])
    plain.set_weights(model.get_weights())
    logs = []
    for one in (model, plain):
        one.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS, jit_compile=False)
        logs.append(one.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history)
    for ours, theirs in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    # The plain model's loss holds what its layers add.
    key = "stage_1_objective" if "regularizer" in name else "loss"
    np.testing.assert_allclose(logs[0][key], logs[1]["loss"], rtol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_recipe_for_several_heads_is_copied_as_it_is(name):
    recipe = keras.Sequential([BLOCKS[name](), L.Dense(3)])
    model = GreedyModel([[L.Dense(6)], [L.Dense(6)]], [recipe] * 2, method="vangl", seed=0)
    model.compile("sgd", LOSS)
    model.fit(X, Y, batch_size=16, verbose=0)
    assert [head.name for head in model.heads] == ["head_1", "head_2"]
    assert not [one for one in recipe.trainable_weights if one.name != "scale"]
    one, other = ({id(v) for v in head.variables} for head in model.heads)
    assert not one & other
    assert len(model.truncate(2).predict(X, verbose=0)) == 32


WORDS = np.array([["a b"], ["b"], ["c a"], ["b b"]] * 4)
NUMBERS = np.array([[1, 2], [2, 2], [3, 1], [2, 4]] * 4)


def text():
    layer = L.TextVectorization(output_sequence_length=3)
    layer.adapt(WORDS)
    return layer, WORDS


def strings():
    layer = L.StringLookup(output_mode="multi_hot")
    layer.adapt(WORDS)
    return layer, WORDS


def integers():
    layer = L.IntegerLookup()
    layer.adapt(NUMBERS)
    return layer, NUMBERS


@pytest.mark.parametrize("make", [text, strings, integers])
def test_an_adapted_table_keeps_what_it_learned(make):
    layer, x = make()
    wanted = np.asarray(layer(x))
    model = GreedyModel([[layer]], [L.Dense(3)], method="vangl", seed=0)
    model.build((None, *x.shape[1:]))
    np.testing.assert_array_equal(np.asarray(model.stages[0](x)), wanted)
    assert model.stages[0].blocks[0] is layer


def test_a_list_of_heads_is_used_as_it_is_with_its_names():
    heads = [LinearHead(3, name="early"), ConvHead(3), L.Dense(3)]
    blocks = resnet(8, (8, 8, 1), widths=(4, 8, 8))
    blocks.append(L.Flatten())
    model = GreedyModel.from_blocks(blocks, [1, 1, 2], heads, seed=0)
    assert model.heads == heads
    assert [block for stage in model.stages for block in stage.blocks] == blocks
    assert model.heads[0].name == "early"


def test_a_single_head_of_a_single_stage_is_used_as_it_is():
    head = LinearHead(3, name="mine")
    assert GreedyModel.from_blocks([L.Dense(4)], [1], head).heads == [head]
    joined = GreedyModel.from_blocks(
        [L.Dense(4), L.Dense(5)], [1, 1], again := LinearHead(3), method="end_to_end"
    )
    assert joined.heads == [again]


def test_what_occurs_several_times_is_copied_for_every_place():
    block, relu = L.Dense(6, name="mine", activation=keras.ops.sin), L.ReLU(name="relu")
    stages, heads = [[block, relu, block], [block, relu]], [L.Dense(3), L.Dense(3)]
    model = GreedyModel(stages, heads, method="vangl", seed=0)
    blocks = [block for stage in model.stages for block in stage.blocks]
    assert [one.name for one in blocks] == ["mine_1", "relu_1", "mine_2", "mine_3", "relu_2"]
    model.build((None, 6))
    kernels = [one.kernel.numpy() for one in blocks if one.name.startswith("mine")]
    assert not np.array_equal(kernels[0], kernels[1])
    assert not block.built


def test_equal_names_are_refused():
    with pytest.raises(ValueError, match=r"(?s)a name of its own. Received twice: same.*`name=`"):
        GreedyModel([[L.Dense(4, name="same")]], [L.Dense(3, name="same")])


def test_a_layer_with_weights_in_two_places_is_refused():
    block = L.Dense(6)
    block.build((None, 6))
    with pytest.raises(ValueError, match="A layer with weights can stand in one place only"):
        GreedyModel([[block], [block]], [L.Dense(3), L.Dense(3)])


def test_a_layer_inside_blocks_of_two_stages_is_refused():
    inner = L.Dense(6)
    blocks = [ResidualBlock([inner]), ResidualBlock([inner])]
    model = GreedyModel.from_blocks(blocks, [1, 1], LinearHead(3), seed=0)
    with pytest.raises(ValueError, match=r"A weight belongs to one stage.*in stages 1 and 2"):
        model.build((None, 6))


def test_a_head_that_cannot_be_copied_asks_for_a_list():
    dense = L.Dense(3)
    head = L.Lambda(lambda x: dense(x))
    with pytest.raises(ValueError, match=r"(?s)copied for each.*lambda.*a list of heads"):
        GreedyModel.from_blocks([L.Dense(4), L.Dense(4)], [1, 1], head)


@pytest.mark.parametrize("part", ["block", "head"])
def test_a_layer_of_a_living_model_is_refused(part):
    def layers():
        return [L.Dense(6), L.Dense(6)]

    blocks, heads = layers(), layers()
    first = GreedyModel([blocks], heads[:1], name="first", method="vangl")
    given = (blocks, layers()) if part == "block" else (layers(), heads)
    with pytest.raises(ValueError, match=r"(?s)Received: dense.* part of first. Make blocks and"):
        GreedyModel([given[0]], given[1][:1])
    assert first.num_stages == 1


def test_a_layer_is_free_when_its_model_is_gone():
    blocks, heads = [L.Dense(6)], [L.Dense(3)]
    gone = weakref.ref(GreedyModel([blocks], heads))
    model = GreedyModel([blocks], heads)
    assert model.heads == heads
    gc.collect()
    assert gone() is None


def test_a_recipe_may_serve_many_models():
    head = LinearHead(3)
    models = [
        GreedyModel.from_blocks([L.Dense(4), L.Dense(4)], [1, 1], head, seed=0) for _ in range(2)
    ]
    assert not {*map(id, models[0].heads)} & {*map(id, models[1].heads)}


def test_clones_and_loaded_models_have_layers_of_their_own(tmp_path):
    model = GreedyModel.from_blocks(
        resnet(8, (8, 8, 1), widths=(4, 8, 8)), [2, 1], LinearHead(3), seed=0
    )
    model.save(tmp_path / "model.keras")
    others = [
        keras.models.clone_model(model),
        keras.saving.load_model(tmp_path / "model.keras"),
        GreedyModel.from_config(model.get_config()),
    ]
    for other in others:
        assert [head.name for head in other.heads] == ["head_1", "head_2"]
        for one, same in zip(model.weights, other.weights, strict=True):
            np.testing.assert_array_equal(one.numpy(), same.numpy())


def test_splits_take_layers_that_tell_nothing_of_themselves():
    blocks = [Plain(6, keras.ops.sin) for _ in range(3)]
    sizes = [
        by_time(blocks, 2, batch=4, head=LinearHead(3), input_shape=(6,)),
        by_memory(blocks, 2, head=LinearHead(3), input_shape=(6,)),
    ]
    assert all(sum(one) == 3 for one in sizes)
    assert not any(block.built for block in blocks)
