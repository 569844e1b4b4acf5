"""Who may import whom, and how large things may be."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_trgl"
FILES = sorted(PACKAGE.rglob("*.py"))

RANKS = {
    0: "types checks registration recording energy scores version seeds devices progress "
    "html_table",
    1: "layers losses regularizers datasets",
    2: "heads architectures splitting methods regimes",
    3: "network feeding keeping",
    4: "training",
    5: "greedy_model",
    6: "callbacks distribute diagnostics plot search export",
    7: "recipes compare",
}
RANK = {name: rank for rank, names in RANKS.items() for name in names.split()}

SHARED = {
    "layers": {"chain", "kernels", "residual_unit", "inner", "copying", "masks"},
    "heads": {"head", "parts"},
    "architectures": {"convolutions", "rows", "attention_block"},
    "methods": {"method", "head_choice", "decoder", "delayed", "depth_weights", "unit_images"},
    "callbacks": {"in_turn", "monitors", "visit_end"},
    "regimes": {"regime", "in_turn", "stop_stage", "feature_cache"},
    "splitting": {
        *{"partition", "profile", "activation_bytes", "stage_bytes"},
        *{"traced_bytes", "network_bytes", "kinds", "units"},
    },
    "datasets": {"augmentation", "batch_stream", "image_data", "image_folder"},
    "distribute": {"cluster", "lost_device", "loopback", "stage_extended", "worker_card"},
    "search": {"grouping", "relaxed"},
    "recipes": {"settings", "targets", "recipe"},
    "diagnostics": {"depth_table", "sampled", "seen", "views", "assigned", "page", "probes"},
    "plot": {"style"},
    "export": {
        *{"options", "report", "exported_parts", "publish"},
        *{"model_config", "intake", "signatures", "verify", "warmup"},
        *{
            "calibration",
            "exit_curve",
            "exit_goal",
            "exit_predictions",
            "threshold_path",
            "risk_bound",
        },
        "latencies",
    },
}
"""Files of a folder that its other files may import; a cycle among them fails another test."""

WINGS = {"network", "feeding", "keeping", "training", "compare"}
"""Rooms whose files are steps of one way: each may import those before it."""

GATHERERS = {
    *{"methods/by_name", "regimes/by_name", "callbacks/known_callbacks", "diagnostics/report"},
}
"""Files that name all members of their folder."""

ACROSS_OF_ONE_RANK = {
    *{("energy", "types"), ("progress", "checks")},
    *{("feeding", "network"), ("methods", "heads")},
}
"""Methods bring heads of their own; heads know no method."""

TENSORFLOW = {
    "layers/batch_normalization",
    "layers/kernels",
    "layers/sum_funnel",
    "methods/unit_images",
    "devices",
    "network/brought_model",
    "network/placement",
    "network/sum_watch",
    "network/traced_sums",
    "greedy_model",
    "feeding/batch_forms",
    "feeding/cached_features",
    "feeding/data_identity",
    "feeding/feature_store",
    "feeding/training_data",
    "splitting/profile",
    "splitting/traced_bytes",
    "diagnostics/peak",
    "compare/measuring",
    "diagnostics/report",
}
TENSORFLOW_FOLDERS = {"training", "datasets", "callbacks", "distribute", "search", "export"}

KERAS_METHODS = {"fit", "compile", "evaluate"}


def name_of(path):
    return str(path.relative_to(PACKAGE).with_suffix(""))


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree):
    """Every imported module, with whether the import stands inside a function."""
    late = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in late
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "Imports are absolute."
            if node.module == "keras_trgl":
                for alias in node.names:
                    yield f"keras_trgl.{alias.name}", id(node) in late
            else:
                yield node.module, id(node) in late


def own_imports(path):
    for module, late in imports(tree_of(path)):
        if module.startswith("keras_trgl."):
            yield module.removeprefix("keras_trgl.").split("."), late


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_the_ranks(path):
    parts = name_of(path).split("/")
    if path.name == "__init__.py" and len(parts) == 1:
        return
    own = RANK[parts[0]]
    for target, late in own_imports(path):
        assert target[0] in RANK, f"{target[0]} has no rank: give it one."
        if target[0] == parts[0]:
            free = path.name == "__init__.py" or parts[0] in WINGS or name_of(path) in GATHERERS
            assert free or target[1] in SHARED.get(parts[0], set()), (
                f"{name_of(path)} imports {'.'.join(target)}, which is not shared in its folder."
            )
        elif parts[0] == "greedy_model" and target[0] == "callbacks":
            assert late, "greedy_model takes its default callback inside a function."
        elif name_of(path) == "splitting/units" and target[0] == "network":
            assert late, "What counts asks what cuts a model inside a function."
        elif target[0] == "plot" and own == RANK["plot"]:
            # What its neighbours hold, `plot` draws without their classes; they hand it over.
            pass
        elif (parts[0], target[0]) not in ACROSS_OF_ONE_RANK:
            assert RANK[target[0]] < own, (
                f"{name_of(path)} (rank {own}) imports {'.'.join(target)} (rank {RANK[target[0]]})."
            )


def test_no_import_cycle():
    graph = {
        name_of(path): {
            "/".join(target[:2]) if (PACKAGE / target[0]).is_dir() else target[0]
            for target, late in own_imports(path)
            if not late
        }
        for path in FILES
        if path.name != "__init__.py"
    }
    done, doing = set(), []

    def visit(node):
        assert node not in doing, f"Cycle: {' → '.join([*doing, node])}"
        if node in done or node not in graph:
            return
        doing.append(node)
        for target in graph[node]:
            visit(target)
        done.add(doing.pop())

    for node in graph:
        visit(node)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_tensorflow_lives_in_few_files(path):
    uses = any(module.split(".")[0] == "tensorflow" for module, _ in imports(tree_of(path)))
    name = name_of(path)
    assert not uses or name in TENSORFLOW or name.split("/")[0] in TENSORFLOW_FOLDERS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_private_keras_or_tensorflow_import(path):
    for module, _ in imports(tree_of(path)):
        assert not module.startswith(("keras.src", "tensorflow.python")), module


TAPES = {"training/stage_step", "training/linked_step", "search/relaxed"}
"""Stages alone, stages with late gradients, and the search through steps of training."""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_tapes_are_in_few_files(path):
    if name_of(path) not in TAPES:
        assert "GradientTape" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 450
    assert path.stem not in {"utils", "common", "helpers"}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
        assert node.end_lineno - first.lineno < 70, f"{node.name} is too long."
        if node.name not in KERAS_METHODS:
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            names = [a.arg for a in arguments if a.arg not in {"self", "cls"}]
            assert len(names) <= 10, f"{node.name} takes {len(names)} parameters."


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=name_of)
def test_init_files_hold_exports_alone(path):
    for node in tree_of(path).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert is_docstring or isinstance(node, ast.ImportFrom)
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_benchmarks_and_examples_use_the_public_face_alone(path):
    for module, _ in imports(tree_of(path)):
        assert not module.startswith("keras_trgl."), module
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr.startswith("__"), node.attr


def test_nothing_else_stands_at_the_top():
    folders = {"keras_trgl", "examples", "tests", "benchmarks", "docs"}
    texts = {"BUILD_NOTES.md", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"}
    texts |= {"CITATION.cff", "SECURITY.md"}
    tools = {"setup.py", "pyproject.toml", "Makefile", "mkdocs.yml", "constraints.txt"}
    tools |= {"constraints-oldest.txt", "constraints-docs.txt"}
    listed = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "_"))}
    ignored = {"build", "dist", "runs", "site", "keras_trgl.egg-info"}
    assert listed - folders - texts - tools - ignored == set()
