"""The kernels with an energy: against the direct formula, and what they leave behind."""

import collections
import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from keras_trgl.layers import kernels

pytestmark = pytest.mark.sampled(3)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6, 6, 5))
R = RNG.normal(size=X.shape)
WEIGHTS = RNG.normal(size=X.shape)
GAMMA, BETA = RNG.normal(1.0, 0.5, 5), RNG.normal(0.0, 0.5, 5)
EPSILON = 1e-5


def normalized(x, gamma, beta):
    outputs, *_, energy = kernels.batch_normalize_with_energy(x, gamma, beta, EPSILON)
    return outputs, energy


def normalized_directly(x, gamma, beta):
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    outputs = (x - mean) / tf.sqrt(variance + EPSILON) * gamma + beta
    return outputs, tf.reduce_mean(outputs**2)


def added_directly(shortcut, residual):
    return shortcut + residual, tf.reduce_mean(residual**2)


KERNELS = {
    "batch_normalize": (normalized, normalized_directly, (X, GAMMA, BETA)),
    "add": (kernels.add_with_energy, added_directly, (X, R)),
}
CASES = [
    *(("batch_normalize", dtype) for dtype in ("float16", "bfloat16", "float32")),
    *(("add", dtype) for dtype in ("float16", "bfloat16", "float32", "float64")),
]
BOUNDS = {"float16": 4e-3, "bfloat16": 4e-2, "float32": 1e-5, "float64": 1e-12}


def arguments(name, dtype):
    """The kernel's arguments; scales and offsets are float32 whatever the features are."""
    return [
        tf.constant(value, dtype if value.ndim > 1 else "float32") for value in KERNELS[name][2]
    ]


def total(outputs, energy):
    """A scalar that sends a gradient to both results."""
    return 0.7 * tf.cast(energy, tf.float64) + tf.reduce_sum(
        WEIGHTS * tf.cast(outputs, tf.float64) ** 2
    )


def run(function, given):
    """Outputs, energy and the gradients of `total`, by a tape around the function."""
    with tf.GradientTape() as tape:
        tape.watch(given)
        results = function(*given)
        value = total(*results)
    return [*results, *tape.gradient(value, given)]


def in_a_function(function, given):
    return tf.function(lambda: run(function, given), autograph=False)()


def in_a_function_that_is_not_inlined(function, given):
    inner = tf.function(
        lambda: run(function, given),
        autograph=False,
        experimental_attributes={"_noinline": True},
    )
    return tf.function(lambda: inner(), autograph=False)()


def with_the_tape_outside(function, given):
    return run(tf.function(function, autograph=False), given)


def by_symbolic_gradients(function, given):
    def symbolic():
        results = function(*given)
        return [*results, *tf.gradients(total(*results), given)]

    return tf.function(symbolic, autograph=False)()


def in_a_loop(function, given):
    def looped():
        with tf.GradientTape() as tape:
            tape.watch(given)
            first = function(*given)
            _, *results = tf.while_loop(
                lambda step, *_: step < 1,
                lambda step, *_: (step + 1, *function(*given)),
                [0, *(tf.zeros_like(one) for one in first)],
            )
            value = total(*results)
        return [*results, *tape.gradient(value, given)]

    return tf.function(looped, autograph=False)()


def in_a_replica(function, given):
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    results = strategy.run(tf.function(lambda: run(function, given), autograph=False))
    return [strategy.experimental_local_results(one)[1] for one in results]


WAYS = [
    in_a_function,
    in_a_function_that_is_not_inlined,
    with_the_tape_outside,
    by_symbolic_gradients,
    in_a_loop,
    pytest.param(in_a_replica, marks=pytest.mark.multi_device),
]


def registered():
    """Names of all registered gradients; TensorFlow has no public list of them."""
    return list(ops.gradient_registry.list())


def plain(values):
    return [tf.cast(value, tf.float64).numpy() for value in values]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_value_and_gradients_are_those_of_the_direct_formula(name, dtype):
    function, directly, _ = KERNELS[name]
    given = arguments(name, dtype)
    expected = plain(run(directly, [tf.cast(one, tf.float64) for one in given]))
    for got, wanted in zip(plain(run(function, given)), expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=BOUNDS[dtype] * np.abs(wanted).max())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_every_way_gives_the_numbers_of_an_eager_call(name, dtype, way):
    function, given = KERNELS[name][0], arguments(name, dtype)
    for got, wanted in zip(plain(way(function, given)), plain(run(function, given)), strict=True):
        np.testing.assert_allclose(
            got, wanted, rtol=BOUNDS[dtype], atol=BOUNDS[dtype] * np.abs(wanted).max()
        )


@pytest.mark.parametrize("way", [run, *WAYS])
@pytest.mark.parametrize("name", KERNELS)
def test_a_call_registers_nothing(name, way):
    function, given = KERNELS[name][0], arguments(name, "float32")
    run(function, given)
    before = registered()
    way(function, given)
    assert registered() == before


def test_every_epsilon_has_a_gradient_of_its_own():
    given = arguments("batch_normalize", "float32")
    results = []
    for epsilon in (1e-5, 0.5, 1e-5):

        def function(x, gamma, beta, epsilon=epsilon):
            outputs, *_, energy = kernels.batch_normalize_with_energy(x, gamma, beta, epsilon)
            return outputs, energy

        results.append(plain(in_a_function(function, given)))
    first, other, again = results
    assert not np.allclose(first[2], other[2], rtol=1e-2)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)


def before(op):
    """All operations that must be done before this one."""
    found, todo = set(), [op]
    while todo:
        one = todo.pop()
        new = {*(tensor.op for tensor in one.inputs), *one.control_inputs} - found
        found |= new
        todo += new
    return found


def test_the_pull_of_a_normalization_waits_for_its_own_gradient():
    """A tensor of the features' size that could be formed at once for all blocks costs memory."""
    given = arguments("batch_normalize", "float32")
    graph = tf.function(lambda: run(normalized, given)).get_concrete_function().graph
    kinds = collections.defaultdict(list)
    for op in graph.get_operations():
        kinds[op.type].append(op)
    (own,) = kinds["FusedBatchNormGradV3"]
    forward, pull = kinds["FusedBatchNormV3"]
    assert own in before(pull)
    assert own not in before(forward)


def test_the_pull_of_a_sum_waits_for_the_gradient_that_arrives():
    given = arguments("add", "float32")
    graph = tf.function(lambda: run(kernels.add_with_energy, given)).get_concrete_function().graph
    (again,) = [op for op in graph.get_operations() if op.type == "Sub" and op.control_inputs]
    (arriving,) = again.control_inputs
    assert "gradient_tape" in arriving.name
    assert again.outputs[0].shape == X.shape


def test_a_tape_finds_the_registered_gradient_and_not_that_of_the_operations_behind():
    # The internal call by which tapes are told: if it moves or changes, this says so.
    assert callable(tf.__internal__.record_gradient)
    x = tf.constant(X, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        merged, energy = kernels.add_with_energy(x, x)
        # By itself the energy gives the shortcut no gradient, though both are one tensor here.
        value = energy + 0.0 * tf.reduce_sum(merged)
    np.testing.assert_allclose(tape.gradient(value, x), 2 * X / X.size, rtol=1e-5, atol=1e-9)


def test_threads_register_a_gradient_once():
    given = arguments("batch_normalize", "float32")

    def call(epsilon):
        return float(kernels.batch_normalize_with_energy(*given, epsilon)[-1])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        values = list(pool.map(call, [0.123] * 16))
    assert len(set(values)) == 1
