"""Docstrings of public objects: arguments, defaults that are true, examples."""

import inspect
import re

import pytest

import keras_trgl  # noqa: F401 (fills PUBLIC)
from keras_trgl.registration import PUBLIC

OBJECTS = sorted(PUBLIC.items())


def parameters(target):
    function = target.__init__ if isinstance(target, type) else target
    if function is object.__init__:
        return {}
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in {"self", "args", "kwargs"}
    }


def section(docstring, name):
    found = re.search(rf"^{name}:\n(.*?)(?=^\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


@pytest.mark.parametrize(("name", "target"), OBJECTS, ids=[name for name, _ in OBJECTS])
def test_every_argument_is_documented_with_its_true_default(name, target):
    documented = section(inspect.getdoc(target), "Args")
    for argument, parameter in parameters(target).items():
        entry = re.search(
            rf"^ {{4}}\*?\*?{argument}: (.*?)(?=^ {{4}}\S|\Z)", documented, re.MULTILINE | re.DOTALL
        )
        assert entry, f"{argument} of {name} is not documented."
        said = re.search(r"Defaults\s+to\s+`([^`]+)`", entry.group(1))
        if said:
            assert eval(said.group(1), vars(inspect.getmodule(target))) == parameter.default
        else:
            assert parameter.default is inspect.Parameter.empty, f"{argument} has a default."


@pytest.mark.parametrize(("name", "target"), OBJECTS, ids=[name for name, _ in OBJECTS])
def test_every_public_object_has_an_example_that_runs(name, target):
    assert ">>>" in section(inspect.getdoc(target), "Example"), name


@pytest.mark.parametrize(("name", "target"), OBJECTS, ids=[name for name, _ in OBJECTS])
def test_public_functions_say_what_they_return(name, target):
    if not isinstance(target, type):
        assert section(inspect.getdoc(target), "Returns"), name
