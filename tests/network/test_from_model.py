"""Cutting a functional model: which input of a sum is the residual, and where the cuts lie."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import PadShortcut, ResidualAdd, ResidualBlock
from keras_trgl.network.from_model import split_model


def split_functional(model, cuts, **options):
    return split_model(model, cuts, **options).stages


def residual_names(stages):
    return [[unit.name for unit in stage.residual_units] for stage in stages]


def chained(stages, x):
    for stage in stages:
        x = stage(x, training=False)
    return keras.ops.convert_to_numpy(x)


def randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def dense_net(num_blocks=2, merge=layers.Add, units=4):
    """Give a post-activation residual network of dense layers."""
    inputs = keras.Input((3,), name="image")
    x = layers.Dense(units, name="stem")(inputs)
    for k in range(1, num_blocks + 1):
        r = layers.Dense(units, activation="relu", name=f"r{k}")(x)
        x = merge(name=f"sum{k}")([x, r])
        x = layers.ReLU(name=f"relu{k}")(x)
    return keras.Model(inputs, layers.Dense(2, name="classifier")(x), name="net")


def two_way_sum(one, other, shape=(4,)):
    """Give a model that adds what two lists of layers make of the same tensor."""
    inputs = keras.Input(shape, name="image")
    ends = []
    for way in (one, other):
        x = inputs
        for layer in way:
            x = layer(x)
        ends.append(x)
    return keras.Model(inputs, layers.Add(name="sum")(ends))


def recorded_energy(stage, x):
    (unit,) = stage.residual_units
    with unit.recording():
        stage(x)
        return float(unit.energy())


@pytest.fixture(scope="module")
def resnet():
    model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 64, 3))
    return model, split_functional(model, 4)


def test_resnet50_gives_sixteen_residuals_in_four_equal_stages(resnet):
    stages = resnet[1]
    assert [len(stage.residual_units) for stage in stages] == [4, 4, 4, 4]
    assert residual_names(stages)[0][0] == "conv2_block1_add"
    assert residual_names(stages)[3][3] == "conv5_block3_add"


def test_resnet50_is_cut_after_the_activation_that_follows_a_sum(resnet):
    ends = [stage.blocks[0].layers[-1].name for stage in resnet[1]]
    assert ends == [f"conv{name}_out" for name in ("3_block1", "4_block1", "4_block5", "5_block3")]


def test_resnet50_shortcut_with_projection_is_no_residual(resnet):
    part = resnet[1][0].blocks[0]
    first = part.stretch.sums[0]
    assert first.name == "conv2_block1_add"
    (call,) = [call for call in part.calls if call.name == first.name]
    ((_, place),) = first.place.terms
    assert call.inputs[place].name == "conv2_block1_3_bn"


def test_chained_parts_of_resnet50_predict_what_the_model_does(resnet):
    model, stages = resnet
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_array_equal(chained(stages, x), expected)


def test_weights_of_parts_are_disjoint_and_together_the_models_own(resnet):
    model, stages = resnet
    weights = [weight for stage in stages for weight in stage.weights]
    assert len({id(weight) for weight in weights}) == len(weights) == len(model.weights)
    assert {id(weight) for weight in weights} == {id(weight) for weight in model.weights}


def test_the_users_model_keeps_its_graph():
    model = randomise(dense_net())
    x = np.ones((2, 3), "float32")
    config, before = model.get_config(), model.predict(x, verbose=0)
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    split_functional(model, 2)
    split_functional(model, 2)
    assert model.get_config() == config
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)


def test_a_copy_is_trained_where_the_model_is_not_shared():
    def trained(share):
        model = randomise(dense_net())
        network = GreedyModel.from_model(model, 2, head=LinearHead(3), share=share, seed=0)
        network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
        network.fit(x, np.arange(16) % 3, batch_size=8, shuffle=False, verbose=0)
        return model, network

    (shared, one), (kept, other) = trained(True), trained(False)
    assert one.to_keras() is shared
    for before, mine, theirs in zip(
        randomise(dense_net()).get_weights(), kept.get_weights(), shared.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, before)
        assert not np.array_equal(theirs, before)
    for mine, theirs in zip(other.to_keras().get_weights(), shared.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("merge", [layers.Add, ResidualAdd])
def test_sums_and_marked_sums_are_cut_alike(merge):
    model = randomise(dense_net(num_blocks=3, merge=merge))
    stages = split_functional(model, 2)
    assert residual_names(stages) == [["sum1", "sum2"], ["sum3"]]
    assert [stage.blocks[0].name for stage in stages] == ["part_1", "part_2"]
    assert [layer.name for layer in stages[1].blocks[0].layers[-2:]] == ["relu3", "classifier"]
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    np.testing.assert_array_equal(chained(stages, x), keras.ops.convert_to_numpy(model(x)))


def test_order_of_a_sum_does_not_matter():
    def net(swapped):
        inputs = keras.Input((4,))
        r = layers.Dense(4, name="r")(inputs)
        ends = [r, inputs] if swapped else [inputs, r]
        return randomise(keras.Model(inputs, layers.Add()(ends)))

    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    straight, swapped = (split_functional(net(side), 1)[0] for side in (False, True))
    np.testing.assert_array_equal(straight(x), swapped(x))
    kernel, bias = straight.get_weights()
    expected = np.mean((x @ kernel + bias) ** 2)
    np.testing.assert_allclose(recorded_energy(straight, x), expected, rtol=1e-5)
    np.testing.assert_allclose(recorded_energy(swapped, x), expected, rtol=1e-5)


def test_sum_of_a_branch_and_a_shortcut_gives_what_the_model_does():
    branch = [layers.Dense(4, name="a"), layers.ReLU(), layers.Dense(4, name="b")]
    shortcut = [layers.Dense(4, name="p"), layers.Identity(), layers.Identity()]
    model = randomise(two_way_sum(branch, shortcut))
    (stage,) = split_functional(model, 1)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(chained([stage], x), keras.ops.convert_to_numpy(model(x)), rtol=1e-6)


@pytest.mark.parametrize(
    "shortcut",
    [
        [layers.Conv2D(4, 1, strides=2, name="skip"), layers.BatchNormalization(name="skip_norm")],
        [layers.AveragePooling2D(2), layers.Conv2D(4, 1, name="skip")],
        [layers.ZeroPadding2D(1), layers.Conv2D(4, 4, strides=2, name="skip")],
        [PadShortcut(4, stride=2)],
        [layers.MaxPooling2D(1, strides=2), layers.Conv2D(4, 1, name="skip")],
    ],
)
def test_affine_way_is_the_shortcut(shortcut):
    branch = [
        layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(4, 3, padding="same", name="r"),
    ]
    model = two_way_sum(branch, shortcut, shape=(8, 8, 2))
    (stage,) = split_functional(model, 1)
    probe = keras.Model(model.input, model.get_layer("r").output)
    data = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype("float32")
    expected = np.mean(keras.ops.convert_to_numpy(probe(data)) ** 2)
    np.testing.assert_allclose(recorded_energy(stage, data), expected, rtol=1e-5)


def test_plus_sign_makes_a_residual_too():
    inputs = keras.Input((4,))
    x = inputs + layers.Dense(4)(inputs)
    x = keras.ops.relu(x)
    x = keras.ops.add(layers.Dense(4)(x), x)
    stages = split_functional(keras.Model(inputs, x), 2)
    assert [len(stage.residual_units) for stage in stages] == [1, 1]
    assert stages[0](np.full((1, 4), -1e3, "float32")).numpy().min() >= 0


def test_sums_with_numbers_and_broadcast_sums_stay_plain():
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs) + 1.0
    x = layers.Add()([x, layers.Dense(1, activation="relu")(x)])
    (stage,) = split_functional(keras.Model(inputs, x), 1)
    assert stage.residual_units == []


def test_residual_blocks_in_the_model_count():
    inputs = keras.Input((4,))
    x = inputs
    for k in range(3):
        x = ResidualBlock([layers.Dense(4)], name=f"block{k}")(x)
    stages = split_functional(keras.Model(inputs, x), 3)
    assert residual_names(stages) == [["block0"], ["block1"], ["block2"]]


def test_all_ambiguous_sums_are_left_out_and_named_at_once():
    inputs = keras.Input((4,))
    x = inputs
    for k in (1, 2):
        a = layers.Dense(4, activation="relu", name=f"a{k}")(x)
        b = layers.Dense(4, activation="relu", name=f"b{k}")(x)
        x = layers.Add(name=f"sum{k}")([a, b])
    expected = (
        r"A sum must .*sum1 of \(a1, b1\), sum2 of \(a2, b2\)\. "
        r".*`residuals=\{'sum1': 'b1', 'sum2': 'b2'\}`"
    )
    with pytest.warns(UserWarning, match=expected):
        (stage,) = split_functional(keras.Model(inputs, x), 1)
    assert stage.residual_units == []


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (layers.Conv2D(2, 1, name="a"), layers.Conv2D(2, 1, name="b")),
        (layers.Conv2D(2, 2, 2, activation="relu", name="a"), layers.MaxPooling2D(2, name="b")),
    ],
)
def test_sum_of_two_ways_of_one_kind_is_ambiguous(a, b):
    with pytest.warns(UserWarning, match=r"A sum must .*sum of \(a, b\)"):
        split_functional(two_way_sum([a], [b], shape=(4, 4, 2)), 1)


@pytest.mark.parametrize("joined", ["layer", "operations", "shortcut last"])
def test_of_a_chain_all_but_the_shortcut_is_the_residual(joined):
    inputs = keras.Input((4,))
    a, b = (layers.Dense(4, activation="relu", name=name)(inputs) for name in "ab")
    ends = {
        "layer": lambda: layers.Add(name="sum")([inputs, a, b]),
        "operations": lambda: inputs + a + b,
        "shortcut last": lambda: layers.Add(name="sum")([a, b, inputs]),
    }
    model = keras.Model(inputs, ends[joined]())
    (stage,) = split_functional(model, 1)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = np.mean((keras.ops.convert_to_numpy(model(x)) - x) ** 2)
    np.testing.assert_allclose(recorded_energy(stage, x), expected, rtol=1e-5)
    if joined == "layer":
        (stage,) = split_functional(model, 1, residuals={"sum": None})
        assert stage.residual_units == []


@pytest.mark.parametrize("layer", [True, False])
def test_difference_of_shortcut_and_residual_counts(layer):
    inputs = keras.Input((4,))
    r = layers.Dense(4, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Subtract()([inputs, r]) if layer else inputs - r)
    (stage,) = split_functional(model, 1)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = np.mean((x - keras.ops.convert_to_numpy(model(x))) ** 2)
    np.testing.assert_allclose(recorded_energy(stage, x), expected, rtol=1e-5)


def test_three_parallel_branches_are_no_skip():
    inputs = keras.Input((4,))
    ends = [layers.Dense(4, activation="relu")(inputs) for _ in range(3)]
    (stage,) = split_functional(keras.Model(inputs, layers.Add()(ends)), 1)
    assert stage.residual_units == []


@pytest.mark.parametrize(("name", "place"), [("a", 0), ("b", 1)])
def test_residuals_goes_before_the_rules(name, place):
    one, other = (layers.Dense(4, activation="relu", name=n) for n in "ab")
    model = two_way_sum([one], [other])
    (stage,) = split_functional(model, 1, residuals={"sum": name})
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = np.mean(keras.ops.convert_to_numpy((one, other)[place](x)) ** 2)
    np.testing.assert_allclose(recorded_energy(stage, x), expected, rtol=1e-5)


def test_residuals_with_none_leaves_a_sum_out():
    stages = split_functional(dense_net(), 1, residuals={"sum1": None})
    assert residual_names(stages) == [["sum2"]]


@pytest.mark.parametrize(
    ("residuals", "message"),
    [
        ({"relu1": "r1"}, r"must name sums of the model: sum1, sum2\. Received: relu1\."),
        ({"sum1": "r2"}, r"sum1 adds, .*: stem, r1\. .*\['sum1'\]='r2'"),
    ],
)
def test_residuals_must_name_sums_and_what_they_add(residuals, message):
    with pytest.raises(ValueError, match=message):
        split_functional(dense_net(), 2, residuals=residuals)


def test_residuals_must_be_a_dict():
    with pytest.raises(
        TypeError, match=r"`residuals` must be 'auto', or a dict .*Received: residuals="
    ):
        split_functional(dense_net(), 2, residuals=["sum1"])


def shared_dense():
    inputs = keras.Input((4,))
    twice, add = layers.Dense(4, name="twice"), layers.Add(name="add")
    x = add([inputs, twice(inputs)])
    return keras.Model(inputs, add([x, twice(x)]))


def test_layers_are_shared_within_a_stage_alone():
    (stage,) = split_functional(shared_dense(), 1)
    assert residual_names([stage]) == [["add", "add#2"]]
    with pytest.raises(
        ValueError, match=r"lie in one stage\. Received: twice, called in .* 1 and 2"
    ):
        split_functional(shared_dense(), 2)


def test_weightless_layers_are_used_in_several_stages():
    inputs, relu, x = keras.Input((4,)), layers.ReLU(), None
    for _ in range(2):
        x = inputs if x is None else x
        x = layers.Add()([x, layers.Dense(4)(relu(x))])
    assert len(split_functional(keras.Model(inputs, x), 2)) == 2


def test_nested_models_are_written_out():
    inputs = keras.Input((3,))
    x = dense_net(units=3)(inputs)
    x = keras.Sequential([layers.Dense(3, name="stem"), layers.ReLU()])(x)
    model = randomise(keras.Model(inputs, x))
    stages = split_functional(model, 2)
    assert residual_names(stages) == [["sum1"], ["sum2"]]
    data = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    np.testing.assert_array_equal(chained(stages, data), keras.ops.convert_to_numpy(model(data)))
    assert "net.stem" in [call.name for call in stages[0].blocks[0].calls]


def test_marked_sums_in_a_nested_model_count():
    inputs = keras.Input((3,))
    x = dense_net(merge=ResidualAdd)(inputs)
    x = ResidualAdd(name="last")([x, layers.Dense(2)(x)])
    stages = split_functional(keras.Model(inputs, x), 2)
    assert residual_names(stages) == [["sum1", "sum2"], ["last"]]


class Subclassed(keras.Model):
    """Two residual units, the second in a layer of its own, with a `call` of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.one, self.other = layers.Dense(4, dtype=policy), layers.Dense(4, dtype=policy)

    def call(self, inputs, training=None):
        x = inputs + self.one(inputs, training=training)
        return keras.ops.relu(x + self.other(keras.ops.relu(x)))


def test_subclassed_model_is_run_on_symbolic_tensors(tmp_path):
    model = Subclassed()
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    expected = model(x)
    network = GreedyModel.from_model(model, 2, head=LinearHead(3), seed=0)
    assert residual_names(network.stages) == [["add_1"], ["add_2"]]
    np.testing.assert_array_equal(chained(network.stages, x), keras.ops.convert_to_numpy(expected))
    assert network.to_keras() is model
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects={"Subclassed": Subclassed}
    )
    np.testing.assert_array_equal(again.predict(x, verbose=0), network.predict(x, verbose=0))


def test_subclassed_models_that_cannot_be_run_so_are_refused():
    class Own(Subclassed):
        def build(self, input_shape):
            self.scale = self.add_weight(shape=(4,), name="scale")
            super().build(input_shape)

        def call(self, inputs, training=None):
            return super().call(inputs) * self.scale

    class Values(Subclassed):
        def call(self, inputs, training=None):
            return super().call(inputs) if float(keras.ops.sum(inputs)) > 0 else inputs

    with pytest.raises(ValueError, match=r"type Subclassed.*not built: call it on data first"):
        split_functional(Subclassed(), 2)
    own, values, mixed = Own(), Values(), Subclassed(dtype="mixed_float16")
    for model in (own, values, mixed):
        model(np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match=r"must belong to a layer.*no layer reaches own/scale"):
        split_functional(own, 1)
    with pytest.raises(ValueError, match=r"`call` must run on symbolic tensors.*type Values"):
        split_functional(values, 1)
    with pytest.raises(ValueError, match=r"must compute in the type of its weights.*mixed_float16"):
        split_functional(mixed, 1)


def test_functional_model_with_its_own_call_is_run_with_it():
    class Halved(keras.Model):
        def call(self, inputs, training=None):
            return super().call(inputs / 2, training=training)

    inputs = keras.Input((4,))
    model = Halved(inputs, layers.Dense(2)(inputs))
    (stage,) = split_functional(model, 1)
    x = np.ones((3, 4), "float32")
    np.testing.assert_array_equal(chained([stage], x), keras.ops.convert_to_numpy(model(x)))


def test_unbuilt_sequential_model_and_layer_are_refused():
    with pytest.raises(ValueError, match=r"sequential with a `keras.Input`"):
        split_functional(keras.Sequential([layers.Dense(2)]), 1)
    with pytest.raises(TypeError, match=r"functional Keras model. Received: model=<Dense"):
        split_functional(layers.Dense(2), 1)


def test_an_input_that_reaches_no_head_is_taken_and_left():
    inputs = [keras.Input((4,), name="used"), keras.Input((3,), name="other")]
    model = keras.Model(inputs, [layers.Dense(2)(inputs[0]), layers.Dense(2)(inputs[1])])
    (stage,) = split_functional(model, 1)
    x = [np.ones((3, 4), "float32"), np.ones((3, 3), "float32")]
    np.testing.assert_array_equal(stage(x), model(x)[0])
    assert len(stage.weights) == 2


@pytest.mark.parametrize(
    ("num_stages", "message"),
    [
        (3, r"at most 2 for this model: .*its 2 residuals.*cuts=3"),
        (0, r"`cuts` must be at least 1\. Received: cuts=0"),
    ],
)
def test_number_of_stages_has_limits(num_stages, message):
    with pytest.raises(ValueError, match=message):
        split_functional(dense_net(), num_stages)


def test_sums_under_a_long_skip_stay_in_one_stage():
    inputs = keras.Input((4,))
    x = inputs
    for k in (1, 2):
        x = layers.Add(name=f"inner{k}")([x, layers.Dense(4)(x)])
    x = layers.Add(name="outer")([inputs, x])
    x = layers.Add(name="next")([x, layers.Dense(4)(x)])
    model = keras.Model(inputs, x)
    assert residual_names(split_functional(model, 2)) == [["inner1", "inner2", "outer"], ["next"]]
    # More stages than that: then the long skip's start crosses with the rest.
    stages = split_functional(model, 3)
    assert residual_names(stages) == [["inner1"], ["inner2", "outer"], ["next"]]
    with pytest.raises(ValueError, match=r"at most 3 .*its 4 residuals.*cuts=4"):
        split_functional(model, 4)


def test_sequential_model_without_residuals_is_cut_by_layers_with_weights():
    model = keras.Sequential([keras.Input((8, 8, 3), name="image")])
    for k in (1, 2, 3):
        model.add(layers.Conv2D(4, 3, padding="same", name=f"conv{k}"))
        model.add(layers.BatchNormalization(name=f"bn{k}"))
        model.add(layers.ReLU(name=f"relu{k}"))
    model.add(layers.MaxPooling2D(name="pool"))
    stages = split_functional(model, 3)
    names = [[layer.name for layer in stage.blocks[0].layers] for stage in stages]
    assert names == [
        ["conv1", "bn1", "relu1"],
        ["conv2", "bn2", "relu2"],
        ["conv3", "bn3", "relu3", "pool"],
    ]
    with pytest.raises(ValueError, match=r"at most 3 .*its 3 layers with weights"):
        split_functional(model, 4)


def test_stages_without_weights_are_refused():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU(name="relu")])
    with pytest.raises(ValueError, match=r"needs a layer with weights.*stage 1, of relu, without"):
        split_functional(model, 1)
    with pytest.raises(ValueError, match=r"at most 1 .*its 0 layers with weights"):
        split_functional(model, 2)


def test_adapted_normalization_and_frozen_layers_are_kept():
    inputs = keras.Input((4,))
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.arange(40, dtype="float32").reshape(10, 4))
    frozen = layers.Dense(4, trainable=False, name="frozen")
    model = keras.Model(inputs, frozen(normalization(inputs)))
    network = GreedyModel.from_model(model, 1, head=LinearHead(3), method="vangl", seed=0)
    (stage,) = network.stages
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(chained([stage], x), model(x), rtol=1e-6)
    assert stage.trainable_weights == []
    assert not frozen.trainable


def test_sum_in_half_precision_keeps_its_type():
    inputs = keras.Input((4,))
    x = layers.Dense(4, dtype="mixed_float16")(inputs)
    x = layers.Add(dtype="mixed_float16")([x, layers.Dense(4, dtype="mixed_float16")(x)])
    x = x + layers.Dense(4, dtype="mixed_float16")(x)
    (stage,) = split_functional(keras.Model(inputs, x), 1)
    assert len(stage.residual_units) == 2
    assert stage(np.ones((2, 4), "float32")).dtype == "float16"


def test_a_part_has_no_configuration_of_its_own():
    part = split_functional(randomise(dense_net()), 2)[1].blocks[0]
    with pytest.raises(NotImplementedError, match=r"part_2 is a part of a model.*`to_keras\(\)`"):
        part.get_config()


def test_stages_train_with_an_energy_each():
    model = randomise(dense_net(num_blocks=2))
    network = GreedyModel.from_model(model, 2, head=LinearHead(3), seed=0)
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 3)).astype("float32"), rng.integers(0, 3, 16)
    before = [stage.get_weights() for stage in network.stages]
    logs = network.fit(x, y, batch_size=8, verbose=0).history
    assert logs["stage_1_energy"][0] > 0
    assert logs["stage_2_energy"][0] > 0
    for stage, weights in zip(network.stages, before, strict=True):
        assert not np.array_equal(stage.get_weights()[0], weights[0])


def test_resnet50_becomes_a_greedy_model():
    model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    network = GreedyModel.from_model(model, 2, head=LinearHead(10), seed=0)
    assert [len(stage.residual_units) for stage in network.stages] == [8, 8]
    num_weights = sum(len(stage.blocks[0].weights) for stage in network.stages)
    assert num_weights == len(model.weights)
