"""The Python blocks of README and docs run."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- not run -->\n)?```python\n(.*?)```", re.DOTALL)
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOT_TEXTS = [*TEXTS, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def with_blocks():
    """Give pages that have blocks; those of the gallery train for minutes."""
    for path in TEXTS:
        if BLOCK.search(path.read_text(encoding="utf-8")):
            is_long = path.parent.name == "gallery" or path.name == "diagnose.md"
            marks = [pytest.mark.long] if is_long else []
            yield pytest.param(path, id=name_of(path), marks=marks)


# KerasTuner asks threads for their names as Python 2 did.
@pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")
@pytest.mark.parametrize("path", list(with_blocks()))
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": path.stem}
    for skipped, code in BLOCK.findall(path.read_text(encoding="utf-8")):
        if not skipped:
            exec(compile(code, str(path), "exec"), names)


@pytest.mark.parametrize("path", ROOT_TEXTS, ids=name_of)
def test_links_to_files_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_tables_of_the_pages_are_those_of_the_results():
    script = ROOT / "benchmarks" / "tables.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True)
