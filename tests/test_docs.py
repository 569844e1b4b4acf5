"""The site: its pages, what they lead to, and that figures and gallery are of their sources."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAMES = (ROOT / "tests" / "golden" / "public_names.txt").read_text(encoding="utf-8").split()
ABSTRACT = {"LocalMethod", "Method"}


def load(name):
    path = DOCS / "building" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def method_names():
    names = [name.partition(".")[2] for name in NAMES if name.startswith("methods.")]
    return [name for name in names if name not in ABSTRACT]


@pytest.mark.parametrize("name", method_names())
def test_every_method_has_a_page_with_its_formula_and_source(name):
    pages = [path.read_text(encoding="utf-8") for path in (DOCS / "methods").glob("*.md")]
    (own,) = [text for text in pages if f"method = trgl.methods.{name}(" in text]
    headings = re.findall(r"^## (.*)$", own, re.MULTILINE)
    assert "```math\n" in own
    assert headings[:2] == ["When to use it", "Our numbers"]
    assert name == "EndToEnd" or headings[2] == "Source"


def test_the_readme_fits_one_screen_and_has_no_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 50
    assert "| ---" not in text
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert pictures == ["docs/memory.png"]


def test_the_picture_of_the_readme_is_of_the_results():
    script = ROOT / "benchmarks" / "picture.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True)


def test_gallery_pages_are_of_their_scripts():
    gallery = load("gallery")
    assert gallery.hashes() == gallery.HASHES.read_text(encoding="utf-8"), "Run `make gallery`."


def test_a_gallery_script_is_text_and_cells_and_gives_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = (
        '"""A title.\n\nWords.\n"""\n\n# %%\n# Say it.\nprint("it")\nopen("a.png", "w").close()\n'
    )
    title, page, pictures = load("gallery").run("one", script)
    assert title == "A title"
    for part in ("# A title\n\nWords.", "Say it.\n\n```python\nprint", "```text\nit\n```"):
        assert part in page
    assert list(pictures) == ["one-a.png"]
    assert "](one-a.png)" in page


def test_the_site_loads_nothing_from_elsewhere():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "  font: false\n" in text
    assert "strict: true\n" in text
    assert "http" not in text


def test_faults_of_a_built_site_are_found(tmp_path):
    check = load("check_site")
    check.SITE = tmp_path
    texts = {
        "a.html": '<h1 id="top"></h1><a href="b.html#there">b</a><a href="https://x.org/">x</a>',
        "b.html": '<p id="there"></p><a href="a.html#gone">a</a><a href="c.html">c</a>'
        '<script src="https://cdn.org/x.js"></script>',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    faults, outside = check.check({tmp_path / name: check.Page(t) for name, t in texts.items()})
    assert faults == [
        "b.html loads https://cdn.org/x.js",
        "b.html leads to a.html#gone, a place that is not there",
        "b.html leads to c.html, which is not there",
    ]
    assert outside == {"https://x.org/": ["a.html"]}


def test_what_builds_the_site_is_pinned():
    extra = re.search(r'"docs": \[(.*)\],', (ROOT / "setup.py").read_text(encoding="utf-8"))[1]
    wanted = {name.partition("[")[0] for name in re.findall(r'"(.*?)"', extra)}
    text = (ROOT / "constraints-docs.txt").read_text(encoding="utf-8")
    pinned = {line.partition("==")[0] for line in text.splitlines() if "==" in line}
    assert wanted <= pinned
    assert not {"tensorflow", "keras"} & pinned


@pytest.mark.parametrize("name", ["Makefile", "mkdocs.yml", "constraints-docs.txt", "docs"])
def test_no_text_names_a_machine_or_a_registry(name):
    path = ROOT / name
    for text in path.rglob("*.md") if path.is_dir() else [path]:
        words = text.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|work|tmp)/|pypi\.|://(?!127\.0\.0\.1)\S*simple", words)
