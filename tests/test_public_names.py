"""The public names are those of the list, and all of them are documented."""

import importlib
import inspect
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


def test_dir_shows_the_public_names_alone():
    modules = {name.split(".")[0] for name in public_names() if "." in name}
    names = {name for name in public_names() if "." not in name}
    shown = {name for name in dir(keras_trgl) if not name.startswith("__")}
    assert shown == modules | names
    assert {"__version__", "__doc__", "__path__"} <= set(dir(keras_trgl))
    for module in modules:
        inner = {name.split(".")[1] for name in public_names() if name.startswith(f"{module}.")}
        found = dir(getattr(keras_trgl, module))
        assert {name for name in found if not name.startswith("__")} == inner


def test_there_are_at_most_a_hundred_and_twenty():
    assert len(public_names()) <= 120


def test_everything_marked_public_is_exported():
    exported = {name.split(".")[-1] for name in public_names()}
    assert {key.split(".")[-1] for key in PUBLIC} <= exported


def summary(name):
    target = keras_trgl
    for part in name.split("."):
        target = getattr(target, part)
    if isinstance(target, str):
        return "The package's version."
    return inspect.getdoc(target).splitlines()[0]


def api_page():
    """Give docs/api.md: every public name with the first line of its docstring."""
    lines = [
        "# API",
        "",
        "Public names, under `keras_trgl`; `help(name)` shows arguments, shapes and an example. "
        "Written by",
        "`pytest tests/test_public_names.py --update-golden`.",
        "",
        "| name | what it is |",
        "| --- | --- |",
    ]
    lines += [f"| `{name}` | {summary(name)} |" for name in public_names()]
    return "\n".join(lines) + "\n"


def test_the_api_page_holds_every_name_with_its_summary(request):
    path = ROOT / "docs" / "api.md"
    if request.config.getoption("--update-golden"):
        path.write_text(api_page(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == api_page()
