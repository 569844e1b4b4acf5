"""One exported model for the tests of this folder."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import exported

from keras_trgl.datasets import Normalize
from keras_trgl.export import Inputs, Outputs, export_serving

THRESHOLDS = (0.55, 0.42)


@pytest.fixture(scope="module")
def model():
    return exported.scatter(exported.network())


@pytest.fixture(scope="module")
def options():
    return {
        "inputs": Inputs("uint8", Normalize([0.5], [0.3]), encoded=True),
        "outputs": Outputs(class_names=exported.NAMES, thresholds=THRESHOLDS, default_exit=2),
    }


@pytest.fixture(scope="module")
def report(model, options, tmp_path_factory):
    return export_serving(model, tmp_path_factory.mktemp("base") / "net", **options)
