"""Run the scripts of `examples/gallery` and write them as pages, with what they print and draw.

`make gallery` writes `docs/gallery`. A script is a docstring, whose first line is the title,
and cells
that begin with `# %%`; comments at the head of a cell are its text. Pictures are the `.png`
files that a
cell writes. `hashes.txt` ties pages and pictures to the scripts they were made from.
"""

import ast
import contextlib
import hashlib
import io
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "gallery"
PAGES = ROOT / "docs" / "gallery"
HASHES = PAGES / "hashes.txt"


def cells(text):
    """Give title, introduction, and cells as pairs of text and code.

    Args:
        text: str, a script.
    """
    title, _, introduction = ast.get_docstring(ast.parse(text)).partition("\n")
    found = []
    for part in text.split("\n# %%\n")[1:]:
        lines = part.splitlines()
        comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        words = "\n".join(line.removeprefix("#").strip() for line in lines[:comments])
        found.append((words, "\n".join(lines[comments:]).strip()))
    return title.rstrip("."), introduction.strip(), found


def run(name, text):
    """Run one script in an empty folder; give its page and its pictures, by name.

    Args:
        name: str, of the script.
        text: str, the script.
    """
    title, introduction, parts = cells(text)
    lines = [f"# {title}", "", introduction, ""]
    names, pictures = {"__name__": name}, {}
    for words, code in parts:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{name}.py", "exec"), names)
        lines += [words, "", "```python", code, "```", ""]
        if printed.getvalue():
            lines += ["```text", printed.getvalue().rstrip(), "```", ""]
        for path in sorted(pathlib.Path.cwd().glob("*.png")):
            pictures[f"{name}-{path.name}"] = path.read_bytes()
            lines += [f"![{path.stem.replace('_', ' ')}]({name}-{path.name})", ""]
            path.unlink()
    lines.append(f"Made by `make gallery` from `examples/gallery/{name}.py`.")
    return title, "\n".join(lines) + "\n", pictures


def index(titles, pictures):
    """Give the page that leads to the others."""
    lines = ["# Gallery", "", "Pages that were run: code, what it printed, what it drew.", ""]
    for name, title in titles.items():
        lines += [f"## [{title}]({name}.md)", ""]
        first = next((one for one in pictures if one.startswith(f"{name}-")), None)
        lines += [f"[![{title}]({first})]({name}.md)", ""] if first else []
    return "\n".join(lines)


def hashes():
    """Give a line per script, page and picture: SHA-256 and path."""
    written = [path for path in sorted(PAGES.iterdir()) if path != HASHES]
    paths = [*sorted(SCRIPTS.glob("*.py")), *written]
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT).as_posix()}\n"
        for path in paths
    )


def main():
    """Write all pages, or those named on the command line."""
    import keras

    # Bars of what takes seconds are no part of a page.
    keras.config.disable_interactive_logging()
    wanted = sys.argv[1:] or [path.stem for path in sorted(SCRIPTS.glob("*.py"))]
    PAGES.mkdir(exist_ok=True)
    for name in wanted:
        print(name, flush=True)
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        _, page, pictures = run(name, (SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))
        os.chdir(ROOT)
        shutil.rmtree(folder)
        for old in PAGES.glob(f"{name}-*.png"):
            old.unlink()
        (PAGES / f"{name}.md").write_text(page, encoding="utf-8")
        for picture, content in pictures.items():
            (PAGES / picture).write_bytes(content)
    titles = {
        path.stem: cells(path.read_text(encoding="utf-8"))[0]
        for path in sorted(SCRIPTS.glob("*.py"))
    }
    drawn = sorted(path.name for path in PAGES.glob("*.png"))
    (PAGES / "index.md").write_text(index(titles, drawn), encoding="utf-8")
    HASHES.write_text(hashes(), encoding="utf-8")


if __name__ == "__main__":
    main()
