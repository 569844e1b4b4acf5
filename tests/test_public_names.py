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


def api_pages():
    """Give the API pages by path: `api.md`, a table of all names, and a page per package."""
    names = public_names()
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
    lines += [f"| `{name}` | {summary(name)} |" for name in names]
    pages = {"api.md": lines}
    for name in names:
        package, _, inner = name.rpartition(".")
        title = f"keras_trgl.{package}" if package else "keras_trgl"
        page = pages.setdefault(f"api/{package or 'keras_trgl'}.md", [f"# {title}", ""])
        if len(page) == 2:
            module = importlib.import_module(title)
            page += [inspect.getdoc(module).splitlines()[0], ""]
            if not package:
                page += ["The table of [all names](../api.md) has those of the packages too.", ""]
        page += [f"::: {title}.{inner}", ""]
    return {path: "\n".join(page).rstrip() + "\n" for path, page in pages.items()}


def test_the_api_pages_hold_every_name(request):
    folder = ROOT / "docs"
    pages = api_pages()
    written = {"api.md", *(f"api/{path.name}" for path in (folder / "api").glob("*.md"))}
    if request.config.getoption("--update-golden"):
        for path in written - set(pages):
            (folder / path).unlink()
        for path, text in pages.items():
            (folder / path).write_text(text, encoding="utf-8")
        written = set(pages)
    assert written == set(pages)
    for path, text in pages.items():
        assert (folder / path).read_text(encoding="utf-8") == text, path
    every = "\n".join(text for path, text in pages.items() if path != "api.md")
    for name in GOLDEN.read_text(encoding="utf-8").split():
        assert f"::: keras_trgl.{name}\n" in every, name
