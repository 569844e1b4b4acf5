"""What every test has: a seed, two logical CPUs, default precision, and a small model."""

import gc
import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

WORKERS = "PYTEST_XDIST_WORKER" in os.environ

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
tf.config.experimental.enable_tensor_float_32_execution(False)
if WORKERS:
    tf.config.threading.set_intra_op_parallelism_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="Rewrite the texts in tests/golden."
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Let `make test` run some rows of a long table, and `make test-all` every one.

    `@pytest.mark.sampled(n)` keeps n rows of each function, first, last and evenly between.
    """
    tables = {}
    for item in items:
        if item.get_closest_marker("sampled") is not None:
            tables.setdefault((item.path, item.cls, item.originalname), []).append(item)
    for rows in tables.values():
        count = rows[0].get_closest_marker("sampled").args[0]
        last = len(rows) - 1
        kept = {round(i * last / max(count - 1, 1)) for i in range(count)} if count > 1 else {0}
        for place, row in enumerate(rows):
            if place not in kept:
                row.add_marker("long")


@pytest.fixture(autouse=True)
def fresh_state():
    """Seed everything, and put precision back after the test."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=False)


@pytest.fixture(scope="module", autouse=True)
def small_heap():
    """Let the collector look no more at what is there before a module: most of it stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def load_script():
    """A function that loads a script from its path, for the functions in it.

    Scripts define flags of the same names, so the flags are forgotten once it is loaded.
    """

    def load(path):
        before = set(flags.FLAGS)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        return module

    return load


@pytest.fixture
def gaussian_batch():
    """Sixteen images of noise and class indices 0 to 2."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 8, 8, 4)).astype("float32"), rng.integers(0, 3, 16)


@pytest.fixture
def tiny_blocks():
    """Four residual blocks on 8x8x4 features."""
    from keras_trgl.layers import BatchNormalization, ResidualBlock

    return [
        ResidualBlock(
            [keras.layers.Conv2D(4, 3, padding="same", use_bias=False), BatchNormalization()],
            activation="relu",
            input_shape=(8, 8, 4) if position == 0 else None,
        )
        for position in range(4)
    ]


@pytest.fixture
def tiny_model(tiny_blocks):
    """Two stages of two blocks with linear heads, compiled."""
    from keras_trgl import GreedyModel
    from keras_trgl.heads import LinearHead

    model = GreedyModel.from_blocks(tiny_blocks, [2, 2], LinearHead(3), seed=1)
    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model
