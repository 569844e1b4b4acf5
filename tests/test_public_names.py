"""The public names are those of the list, and all of them are documented."""

import importlib
import pathlib
import types

import keras_trgl
from keras_trgl.registration import PUBLIC

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "public_names.txt"


def public_names():
    """Give every exported name as users write it, such as `methods.TRGL`."""
    names = []
    for name, value in vars(keras_trgl).items():
        if name.startswith("_"):
            continue
        if isinstance(value, types.ModuleType):
            if not hasattr(value, "__path__"):
                continue
            module = importlib.import_module(f"keras_trgl.{name}")
            names += [
                f"{name}.{inner}"
                for inner, entry in vars(module).items()
                if not inner.startswith("_") and not isinstance(entry, types.ModuleType)
            ]
        else:
            names.append(name)
    return sorted(names)


def test_public_names_are_those_of_the_list(request):
    text = "\n".join(public_names()) + "\n"
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_there_are_at_most_sixty():
    assert len(public_names()) <= 60


def test_everything_marked_public_is_exported():
    exported = {name.split(".")[-1] for name in public_names()}
    assert {key.split(".")[-1] for key in PUBLIC} <= exported


def test_every_public_name_is_in_the_docs():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in public_names() if f"`{name}`" not in text] == []
