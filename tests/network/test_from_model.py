"""Cutting a functional model: which input of a sum is the residual, and where the cuts lie."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_trgl import GreedyModel
from keras_trgl.heads import LinearHead
from keras_trgl.layers import PadShortcut, ResidualAdd, ResidualBlock
from keras_trgl.network.from_model import split_functional


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
    nodes = {layer["name"]: layer["inbound_nodes"] for layer in part.get_config()["layers"]}
    (tensors,) = nodes["conv2_block1_add"][0]["args"]
    came_from = [tensor["config"]["keras_history"][0] for tensor in tensors]
    assert came_from == ["conv2_block1_0_bn", "conv2_block1_3_bn"]


def test_chained_parts_of_resnet50_predict_what_the_model_does(resnet):
    model, stages = resnet
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(chained(stages, x), expected, rtol=1e-5, atol=1e-6)


def test_weights_of_parts_are_disjoint_and_together_the_models(resnet):
    model, stages = resnet
    weights = [weight for stage in stages for weight in stage.weights]
    assert len({id(weight) for weight in weights}) == len(weights) == len(model.weights)
    assert not {id(weight) for weight in weights} & {id(weight) for weight in model.weights}
    of_model = {layer.name: layer.get_weights() for layer in model.layers}
    for stage in stages:
        for layer in stage.blocks[0].layers:
            for mine, theirs in zip(layer.get_weights(), of_model.get(layer.name, []), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_the_users_model_stays_as_it_is():
    model = randomise(dense_net())
    x = np.ones((2, 3), "float32")
    config, weights, before = model.get_config(), model.get_weights(), model.predict(x, verbose=0)
    stages = split_functional(model, 2)
    for weight in stages[0].weights:
        weight.assign(keras.ops.zeros_like(weight))
    assert model.get_config() == config
    assert type(model.get_layer("sum1")) is layers.Add
    for mine, theirs in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)


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


def test_weights_follow_their_layers_when_a_sum_changes_order():
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
    part = stage.blocks[0]
    probe = keras.Model(part.input, part.get_layer("r").output)
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


def test_all_ambiguous_sums_are_named_at_once():
    inputs = keras.Input((4,))
    x = inputs
    for k in (1, 2):
        a = layers.Dense(4, activation="relu", name=f"a{k}")(x)
        b = layers.Dense(4, activation="relu", name=f"b{k}")(x)
        x = layers.Add(name=f"sum{k}")([a, b])
    expected = (
        r"A sum must .*sum1 of \(a1, b1\), sum2 of \(a2, b2\)\. .*ResidualAdd.*\[shortcut, "
        r"residual\].*`residuals=\{'sum1': 'b1', 'sum2': 'b2'\}`"
    )
    with pytest.raises(ValueError, match=expected):
        split_functional(keras.Model(inputs, x), 1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (layers.Conv2D(2, 1, name="a"), layers.Conv2D(2, 1, name="b")),
        (layers.Conv2D(2, 2, 2, activation="relu", name="a"), layers.MaxPooling2D(2, name="b")),
    ],
)
def test_sum_of_two_ways_of_one_kind_is_ambiguous(a, b):
    with pytest.raises(ValueError, match=r"A sum must .*sum of \(a, b\)"):
        split_functional(two_way_sum([a], [b], shape=(4, 4, 2)), 1)


def test_skip_among_three_tensors_is_ambiguous():
    inputs = keras.Input((4,))
    a, b = (layers.Dense(4, activation="relu", name=name)(inputs) for name in "ab")
    model = keras.Model(inputs, layers.Add(name="sum")([inputs, a, b]))
    expected = r"A sum must be of two .*sum of \(the input, a, b\).*residuals=\{'sum': None\}"
    with pytest.raises(ValueError, match=expected):
        split_functional(model, 1)
    (stage,) = split_functional(model, 1, residuals={"sum": None})
    assert stage.residual_units == []


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
    with pytest.raises(TypeError, match=r"`residuals` must be a dict .*Received: residuals="):
        split_functional(dense_net(), 2, residuals=["sum1"])


def test_shared_layers_are_named():
    inputs = keras.Input((4,))
    twice, add = layers.Dense(4, name="twice"), layers.Add(name="add")
    x = add([inputs, twice(inputs)])
    model = keras.Model(inputs, add([x, twice(x)]))
    with pytest.raises(ValueError, match=r"called once.*more than once: add, twice"):
        split_functional(model, 1)


def test_sums_in_a_nested_model_are_refused_unless_left_out():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.ReLU()(dense_net()(inputs)))
    with pytest.raises(ValueError, match=r"not in a model nested.*net\. .*=\{'net': None\}"):
        split_functional(model, 1)
    (stage,) = split_functional(model, 1, residuals={"net": None})
    assert stage.residual_units == []


def test_marked_sums_in_a_nested_model_count():
    inputs = keras.Input((3,))
    x = dense_net(merge=ResidualAdd)(inputs)
    x = ResidualAdd(name="last")([x, layers.Dense(2)(x)])
    stages = split_functional(keras.Model(inputs, x), 2)
    assert residual_names(stages) == [["sum1", "sum2"], ["last"]]


def test_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"must be functional.*type Subclassed.*list of stages"):
        split_functional(Subclassed(), 2)


def test_functional_model_with_its_own_call_is_refused():
    class Halved(keras.Model):
        def call(self, inputs, training=None):
            return super().call(inputs / 2, training=training)

    inputs = keras.Input((4,))
    model = Halved(inputs, layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match=r"type Halved, which overrides `call`"):
        split_functional(model, 1)


def test_unbuilt_sequential_model_and_layer_are_refused():
    with pytest.raises(ValueError, match=r"sequential with a `keras.Input`"):
        split_functional(keras.Sequential([layers.Dense(2)]), 1)
    with pytest.raises(TypeError, match=r"functional Keras model. Received: model=<Dense"):
        split_functional(layers.Dense(2), 1)


def test_two_inputs_are_refused():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, layers.Add()(inputs))
    with pytest.raises(ValueError, match=r"2 inputs and 1 outputs"):
        split_functional(model, 1)


@pytest.mark.parametrize(
    ("num_stages", "message"),
    [
        (3, r"at most 2 for this model: .*its 2 residuals.*num_stages=3"),
        (0, r"`num_stages` must be at least 1\. Received: num_stages=0"),
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
    with pytest.raises(ValueError, match=r"at most 2 .*its 4 residuals.*num_stages=3"):
        split_functional(model, 3)


def test_sequential_model_without_residuals_is_cut_by_layers_with_weights():
    model = keras.Sequential([keras.Input((8, 8, 3), name="image")])
    for k in (1, 2, 3):
        model.add(layers.Conv2D(4, 3, padding="same", name=f"conv{k}"))
        model.add(layers.BatchNormalization(name=f"bn{k}"))
        model.add(layers.ReLU(name=f"relu{k}"))
    model.add(layers.MaxPooling2D(name="pool"))
    stages = split_functional(model, 3)
    names = [[layer.name for layer in stage.blocks[0].layers[1:]] for stage in stages]
    assert names == [
        ["conv1", "bn1", "relu1"],
        ["conv2", "bn2", "relu2"],
        ["conv3", "bn3", "relu3", "pool"],
    ]
    with pytest.raises(ValueError, match=r"at most 3 .*its 3 layers with weights"):
        split_functional(model, 4)


def test_model_without_weights_is_one_stage():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU()])
    assert len(split_functional(model, 1)) == 1
    with pytest.raises(ValueError, match=r"at most 1 .*its 0 layers with weights"):
        split_functional(model, 2)


def test_adapted_normalization_and_frozen_layers_are_kept():
    inputs = keras.Input((4,))
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.arange(40, dtype="float32").reshape(10, 4))
    frozen = layers.Dense(4, trainable=False, name="frozen")
    model = keras.Model(inputs, frozen(normalization(inputs)))
    (stage,) = split_functional(model, 1)
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(chained([stage], x), model(x), rtol=1e-6)
    assert stage.trainable_weights == []


def test_sum_in_half_precision_keeps_its_type():
    inputs = keras.Input((4,))
    x = layers.Dense(4, dtype="mixed_float16")(inputs)
    x = layers.Add(dtype="mixed_float16")([x, layers.Dense(4, dtype="mixed_float16")(x)])
    x = x + layers.Dense(4, dtype="mixed_float16")(x)
    (stage,) = split_functional(keras.Model(inputs, x), 1)
    assert len(stage.residual_units) == 2
    assert stage(np.ones((2, 4), "float32")).dtype == "float16"


def test_part_with_residuals_comes_back_from_its_config_and_its_file(tmp_path):
    part = split_functional(randomise(dense_net()), 2)[1].blocks[0]
    from_config = keras.Model.from_config(part.get_config())
    from_config.set_weights(part.get_weights())
    part.save(tmp_path / "part.keras")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    for again in (from_config, keras.models.load_model(tmp_path / "part.keras")):
        assert type(again.get_layer("sum2")) is ResidualAdd
        np.testing.assert_array_equal(again(x), part(x))


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
