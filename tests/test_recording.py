"""Arguments of users' classes that write no `get_config`: a row per kind of class and argument."""

import copy
import dataclasses
import functools
import inspect
import json
import pathlib

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.layers import BatchNormalization, PadShortcut, ResidualAdd, ResidualBlock, Stage
from keras_trgl.recording import Recorded, Settled
from keras_trgl.regularizers import KineticEnergy

registered = keras.saving.register_keras_serializable("test_recording")


@registered
def halved(x):
    """A function of the user's own."""
    return x / 2


@registered
class Scale:
    """An object of the user's own."""

    def __init__(self, by):
        self.by = by

    def get_config(self):
        return {"by": self.by}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def extended(base, **fixed):
    """Give a registered class with an argument of its own beside those of `base`."""

    class Extended(base):
        def __init__(self, extra, also=2, **kwargs):
            super().__init__(**fixed, **kwargs)
            self.extra = extra
            self.also = also

    Extended.__name__ = Extended.__qualname__ = f"Extended{base.__name__}"
    return registered(Extended)


CLASSES = {
    "head": extended(trgl.heads.Head, units=3),
    "linear head": extended(trgl.heads.LinearHead, units=3),
    "convolution head": extended(trgl.heads.ConvHead, units=3),
    "method": extended(trgl.methods.Method),
    "local method": extended(trgl.methods.LocalMethod),
    "trgl": extended(trgl.methods.TRGL, tau=0.5),
    "vangl": extended(trgl.methods.VanGL),
    "end to end": extended(trgl.methods.EndToEnd),
    "regime": extended(trgl.regimes.Regime),
    "parallel": extended(trgl.regimes.Parallel),
    "sequential": extended(trgl.regimes.Sequential, epochs=2),
    "multi lap": extended(trgl.regimes.MultiLap, epochs=2, num_laps=2),
    "buffered": extended(trgl.regimes.Buffered, capacity=2),
    "stop": extended(trgl.regimes.StopStage, patience=1),
    "block": extended(ResidualBlock, branch=None),
    "sum": extended(ResidualAdd),
    "shortcut": extended(PadShortcut, channels=4),
    "normalization": extended(BatchNormalization, momentum=0.9),
    "stage": extended(Stage, blocks=[keras.layers.Identity()]),
    "energy": extended(KineticEnergy),
}

ARGUMENTS = {
    "integer": 3,
    "float": 0.1,
    "text": "relu",
    "true": True,
    "nothing": None,
    "list": [1, [2.5, "a"], None],
    "tuple": (1, (2, 3)),
    "tuple in a dict": {"a": (1, 2), "b": {"c": [True]}},
    "text that names a class": "test_recording>Scale",
    "array": np.arange(6, dtype="int16").reshape(2, 3),
    "floats": np.linspace(0.0, 1.0, 3, dtype="float32"),
    "texts": np.array(["a", "bc"]),
    "precise number": np.float64(0.1),
    "half number": np.float16(0.1),
    "initializer": keras.initializers.Orthogonal(0.1, seed=3),
    "layer": keras.layers.Dense(3, activation="tanh", name="dense"),
    "loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    "schedule": keras.optimizers.schedules.CosineDecay(0.1, 10),
    "optimizer": keras.optimizers.SGD(0.5, momentum=0.25),
    "policy": keras.DTypePolicy("mixed_bfloat16"),
    "function of Keras": keras.activations.gelu,
    "own function": halved,
    "own object": Scale(3),
    "objects in a list": [Scale(3), {"a": halved}],
    "rule": trgl.regimes.StopStage(patience=3),
    "method": trgl.methods.TRGL(0.5),
}


def again(one):
    """Give the object made from the text of its configuration."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(one)))
    return keras.saving.deserialize_keras_object(config)


def assert_equal(one, other):
    # Keras's layers keep lists and dicts of their own kind.
    kinds = (list, tuple, dict)
    assert [isinstance(one, kind) for kind in kinds] == [isinstance(other, kind) for kind in kinds]
    if isinstance(one, (list, tuple)):
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_equal(list(one.values()), list(other.values()))
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif hasattr(one, "get_config"):
        assert one.get_config() == other.get_config()
    else:
        assert type(one) is type(other)
        assert one == other


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_comes_back_as_it_was(kind, argument):
    made = again(CLASSES[kind](ARGUMENTS[argument]))
    assert type(made) is CLASSES[kind]
    assert made.also == 2
    assert_equal(made.extra, ARGUMENTS[argument])


@pytest.mark.parametrize("kind", CLASSES)
def test_it_records_what_was_passed_and_no_default(kind):
    config = CLASSES[kind](1).get_config()
    entries = {"name", "trainable", "dtype"}
    assert {key: value for key, value in config.items() if key not in entries} == {"extra": 1}
    assert CLASSES[kind](1, also=2).get_config()["also"] == 2


def test_what_it_passes_on_by_name_is_recorded():
    method = again(extended(trgl.methods.TRGL)("a", reduction="sum", tau=[0.5, 0.25]))
    assert (method.extra, method.reduction, method.tau) == ("a", "sum", [0.5, 0.25])


def test_lists_dicts_and_arrays_are_those_of_the_call():
    given = {"a": [1, np.zeros(2)]}
    method = CLASSES["local method"](given)
    given["a"][1][0] = 7.0
    given["a"].append(3)
    assert_equal(again(method).extra, {"a": [1, np.zeros(2)]})


def test_a_constructor_that_changes_its_argument_does_not_change_the_record():
    @registered
    class Emptying(trgl.methods.LocalMethod):
        def __init__(self, weights):
            self.weight = weights.pop()

    assert again(Emptying([1.0, 2.0])).weight == 2.0


def test_a_layer_keeps_its_name_type_and_trainability_of_now():
    head = CLASSES["linear head"](1, name="mine", dtype="mixed_float16")
    head.trainable = False
    made = again(head)
    assert (made.name, made.dtype_policy.name, made.trainable) == ("mine", "mixed_float16", False)
    regular = CLASSES["linear head"](1, activity_regularizer="l2")
    assert isinstance(again(regular).activity_regularizer, keras.regularizers.L2)


def test_a_layer_that_takes_no_name_keeps_it_all_the_same():
    @registered
    class Plain(trgl.heads.LinearHead):
        def __init__(self, classes):
            super().__init__(classes, name="plain", dtype="mixed_bfloat16")
            self.classes = classes

    head = Plain(4)
    head.trainable = False
    made = Plain.from_config({**head.get_config(), "name": "head_1"})
    assert (made.classes, made.units, made.name) == (4, 4, "head_1")
    assert (made.dtype_policy.name, made.trainable) == ("mixed_bfloat16", False)


@registered
class Middle(trgl.methods.TRGL):
    def __init__(self, sigma, **kwargs):
        super().__init__(**kwargs)
        self.sigma = sigma


@registered
class Leaf(Middle):
    def __init__(self, rho):
        super().__init__(sigma=2 * rho, tau=0.5)
        self.rho = rho


@registered
class Unchanged(Middle):
    """Neither an `__init__` nor a `get_config`."""


@registered
class Written(Middle):
    """Has both, and builds on what the class before it records."""

    def __init__(self, omega, **kwargs):
        super().__init__(**kwargs)
        self.omega = omega

    def get_config(self):
        return {**super().get_config(), "omega": self.omega}


@registered
class BothOwn(trgl.methods.TRGL):
    def __init__(self, strength):
        super().__init__(1 / strength)

    def get_config(self):
        return {"strength": 1 / self.tau}


@registered
class OwnWayBack(trgl.methods.TRGL):
    """Writes `from_config` alone."""

    def __init__(self, rates):
        super().__init__(rates["tau"])

    @classmethod
    def from_config(cls, config):
        return cls({"tau": 2 * config["rates"]["tau"]})


class WithRate:
    """A mixin of the user's own that takes an argument."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate


@registered
class Mixed(WithRate, trgl.methods.TRGL):
    """Has an `__init__` by a base alone."""


class TellsAll:
    """A mixin of the user's own that writes `get_config`."""

    def get_config(self):
        return {"a": self.a}


@registered
class Told(TellsAll, trgl.methods.LocalMethod):
    def __init__(self, a, b=None):
        self.a, self.b = a, b


@registered
@dataclasses.dataclass
class Fields(trgl.methods.LocalMethod):
    """Gets its `__init__` after the class is made."""

    a: float = 0.5
    b: list = dataclasses.field(default_factory=list)


@registered
class Positions(trgl.methods.LocalMethod):
    def __init__(self, first, /, second=2, *others, third=3, **more):
        self.given = (first, second, others, third, more)


@registered
@dataclasses.dataclass(frozen=True)
class Limited(trgl.FeatureCache):
    limit: int = 1


FAMILY = {
    "a subclass of a subclass": (Leaf(0.25), {"rho": 0.25}),
    "one without its own": (Unchanged(2.0, tau=0.5), {"sigma": 2.0, "tau": 0.5}),
    "one that builds on it": (Written(1, sigma=2.0), {"sigma": 2.0, "omega": 1}),
    "one that writes both": (BothOwn(4.0), {"strength": 4.0}),
    "an __init__ from a mixin": (Mixed(0.1, tau=0.5), {"rate": 0.1, "tau": 0.5}),
    "a get_config from a mixin": (Told(1, 2), {"a": 1}),
    "a dataclass": (Fields(b=[1]), {"b": [1]}),
    "a dataclass by position": (Fields(0.25), {"a": 0.25}),
    "a frozen dataclass": (Limited("disk", limit=3), {"kind": "disk", "limit": 3}),
    "nothing passed": (Fields(), {}),
    "by position and by name": (Positions(1, third=4, x=5), {"first": 1, "third": 4, "x": 5}),
}


@pytest.mark.parametrize("row", FAMILY)
def test_a_class_speaks_for_its_own_arguments(row):
    one, config = FAMILY[row]
    assert one.get_config() == config
    assert again(one).get_config() == config


def test_what_is_taken_by_position_alone_comes_back():
    made = again(Positions(1, 2, "a", (3,), third=4, x=5))
    assert made.given == (1, 2, ("a", (3,)), 4, {"x": 5})


def test_a_way_back_of_its_own_is_left_alone():
    assert again(OwnWayBack({"tau": 0.5})).tau == 1.0


@functools.cache
def cached(x):
    return x


def unregistered(x):
    return x


def relu(x):
    """Named as a function of Keras is, which loading would take in its place."""
    return x


@dataclasses.dataclass
class Bare:
    x: int = 0


class Unfound(Scale):
    """Gives a configuration, but nobody finds the class."""


UNRECORDABLE = {
    "object": (Bare(), "neither plain values nor a Keras object"),
    "path": (pathlib.Path("a"), "neither plain values nor a Keras object"),
    "set": ({1}, "neither plain values nor a Keras object"),
    "class": (Scale, "neither plain values nor a Keras object"),
    "partial": (functools.partial(halved), "neither plain values nor a Keras object"),
    "wrapped function": (cached, "neither plain values nor a Keras object"),
    "bound method": ([1].append, "neither plain values nor a Keras object"),
    "complex": (1j, "neither plain values nor a Keras object"),
    "array of objects": (np.array([{}]), "neither plain values nor a Keras object"),
    "in a list": ([1, Bare()], "neither plain values nor a Keras object"),
    "lambda": (lambda x: x, "a lambda, which has no name to be found by"),
    "function": (unregistered, "it is not registered by"),
    "function named as Keras's": (relu, "it is not registered by"),
    "operation of Keras": (keras.ops.sin, "it is not registered by"),
    "unregistered object": (Unfound(1), "it is not registered by"),
    "dict of numbers": ({1: 2}, "a dict whose keys are not all texts"),
    "dict like a configuration": (
        {"class_name": "A", "config": {}},
        "a dict that looks like a configuration of an object",
    ),
    "method that cannot": (CLASSES["local method"](Bare()), "it does not give its configuration"),
}


@pytest.mark.parametrize("kind", ["linear head", "local method", "parallel", "block"])
@pytest.mark.parametrize("argument", UNRECORDABLE)
def test_what_cannot_be_recorded_raises_at_saving(kind, argument):
    value, reason = UNRECORDABLE[argument]
    one = CLASSES[kind](value)
    with pytest.raises(NotImplementedError) as caught:
        keras.saving.serialize_keras_object(one)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    name = type(one).__name__
    assert f"`{name}` keeps its arguments for saving, and cannot keep `extra`: {reason}" in lines[0]
    assert "Received: extra=" in lines[0]
    assert f"Write `get_config` in `{name}`" in lines[0]
    assert "0x" not in lines[0].split("Received")[1]


def test_a_wrong_call_says_what_python_says():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'extra'"):
        CLASSES["trgl"]()


def test_a_recorded_class_keeps_its_signature():
    assert list(inspect.signature(CLASSES["trgl"]).parameters) == ["extra", "also", "kwargs"]


def test_copies_keep_their_arguments():
    method = CLASSES["trgl"]([1, 2])
    for one in (copy.copy(method), copy.deepcopy(method)):
        assert one.get_config() == {"extra": [1, 2]}


def test_a_copy_made_part_by_part_can_have_arguments_of_its_own():
    method = Leaf(0.25)
    other = copy.copy(method)
    vars(other)["_recorded"] = vars(method)["_recorded"].mapped(lambda value: 2 * value)
    assert (method.get_config(), other.get_config()) == ({"rho": 0.25}, {"rho": 0.5})


def test_layers_among_the_arguments_are_not_tracked_twice():
    head = CLASSES["linear head"]([keras.layers.Dense(2)])
    assert len([one for one in head._flatten_layers() if isinstance(one, keras.layers.Dense)]) == 1


@registered
class TwoLayers(trgl.heads.Head):
    """A head around a layer that it is given, with a width that no default has."""

    def __init__(self, units, before, width=2, **kwargs):
        super().__init__(units, **kwargs)
        self.before, self.width = before, width

    def make_layers(self, input_shape):
        return [self.before, keras.layers.Dense(self.width), keras.layers.Dense(self.units)]


@registered
class Weighted(trgl.methods.TRGL):
    def __init__(self, strength, schedule):
        super().__init__(tau=1 / strength)
        self.strength, self.schedule = strength, schedule


@registered
class Chosen(trgl.regimes.Regime):
    """Steps the stages it is told; a plan must be hashable, so a tuple must stay one."""

    def __init__(self, stages):
        self.stages = stages

    def plan(self, num_stages, epoch=0):
        return self.stages


@registered
class Widened(ResidualBlock):
    def __init__(self, width, activation=keras.activations.tanh, **kwargs):
        branch = [keras.layers.Dense(width, activation), keras.layers.Dense(4)]
        super().__init__(branch, input_shape=(4,), **kwargs)
        self.width = width


def saved_and_loaded(folder, **options):
    head = TwoLayers(3, keras.layers.Dense(5, "relu"), width=7)
    blocks = [Widened(6, halved), Widened(6, halved)]
    model = trgl.GreedyModel.from_blocks(blocks, [1, 1], head, seed=0, **options)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.ones((4, 4), "float32"), np.array([0, 1, 2, 0])
    model.fit(x, y, epochs=1, verbose=0)
    model.save(folder / "model.keras")
    loaded = trgl.load_model(folder / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    loaded.fit(x, y, epochs=1, verbose=0)
    return loaded


def test_a_saved_model_has_the_arguments_of_heads_and_blocks(tmp_path):
    loaded = saved_and_loaded(tmp_path)
    for head in loaded.heads:
        assert (head.width, head.before.units, len(head.layers_in_a_row)) == (7, 5, 3)
    assert [stage.blocks[0].width for stage in loaded.stages] == [6, 6]


def test_a_saved_model_has_the_arguments_of_its_method(tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    method = saved_and_loaded(tmp_path, method=Weighted(4.0, schedule)).method
    assert (method.strength, method.tau) == (4.0, 0.25)
    assert_equal(method.schedule, schedule)


def test_a_saved_model_has_the_arguments_of_its_regime(tmp_path):
    assert saved_and_loaded(tmp_path, regime=Chosen((0, 1))).regime.stages == (0, 1)


@pytest.mark.parametrize("option", ["method", "regime"])
def test_a_model_that_cannot_be_recorded_is_not_saved(option, tmp_path):
    made = {"method": Weighted(4.0, Bare()), "regime": CLASSES["parallel"](Bare())}[option]
    blocks = [trgl.layers.ResidualBlock([keras.layers.Dense(3)])]
    model = trgl.GreedyModel([blocks], [keras.layers.Dense(2)], **{option: made})
    model.build((None, 3))
    with pytest.raises(NotImplementedError, match=r"keeps its arguments .* Write `get_config`"):
        model.save(tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def members(base):
    for one in base.__subclasses__():
        yield one
        yield from members(one)


OWN = sorted(
    {
        one
        for one in members(Recorded)
        # A base that is made with nothing has nothing to say.
        if one.__module__.startswith("keras_trgl.") and one is not Settled
    },
    key=lambda one: one.__name__,
)


@pytest.mark.parametrize("cls", OWN, ids=lambda one: one.__name__)
def test_classes_of_the_package_say_themselves_how_they_are_made(cls):
    """Else their configurations would hold what was passed, and no default."""
    order = [one for one in cls.__mro__ if "__init__" in vars(one) or "get_config" in vars(one)]
    assert "get_config" in vars(order[0])


def test_every_class_with_a_configuration_can_be_extended_so():
    exempt = {"GreedyModel", "StageOptimizers"}
    for name, one in trgl.registration.PUBLIC.items():
        if isinstance(one, type) and hasattr(one, "get_config"):
            assert issubclass(one, Recorded) or name.split(".")[-1] in exempt, name
