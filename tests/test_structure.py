"""Who may import whom: a module imports only from its own row or the rows above it."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sweeper"

ROWS = [
    "errors records events params batch rungs phases files looking cache optimizer learning encoding items channel "
    "trial_spec gang context checkpoint room storage_url differences help_text extras model_files step_rows "
    "option_checks",
    "config pruners",
    "plan study",
    "control orchestrator optimum",
    "executors training preflight reporting replay benchmarks trackers progress ui prior evidence_text plan_text",
    "__init__ api readiness driving ended noted_data moved extend completion confirm compare "
    "cli cli_words cli_again cli_control cli_doctor cli_judging cli_reading cli_watch planning",
]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names.split()}
# Heavy libraries, and the only places that may load them.
ONLY_IN = {
    "ray": {"executors", "preflight"},
    "torch": {"training", "preflight", "benchmarks"},
    "transformers": {"training", "preflight", "benchmarks"},
    "trl": {"training", "preflight"},
    "datasets": {"training", "preflight"},
    "plotly": {"reporting"},
    "typer": {
        "cli",
        "cli_words",
        "cli_again",
        "cli_control",
        "cli_doctor",
        "cli_judging",
        "cli_reading",
        "completion",
    },
}


def modules() -> Iterator[tuple[Path, str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        yield path, place, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports, at once or later, by a statement or by `import_module` with a name as text."""
    for node in ast.walk(tree):
        yield from named(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module == "sweeper":
        yield from (f"sweeper.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module


def test_every_place_has_its_row() -> None:
    assert {place for _, place, _ in modules()} == set(ROW_OF)


def test_no_module_imports_from_a_row_below_its_own() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path, place, tree in modules()
        for name in imported(tree)
        if name.startswith("sweeper.") and ROW_OF[name.split(".")[1]] > ROW_OF[place]
    ]
    assert wrong == []


def test_what_a_module_imports_by_its_name_as_text_is_seen() -> None:
    tree = ast.parse("import importlib\nimportlib.import_module('torch')\nimport_module('ray.tune')")
    assert sorted(imported(tree)) == ["importlib", "ray.tune", "torch"]


def test_the_first_row_loads_no_foreign_library() -> None:
    known = {"sweeper", *sys.stdlib_module_names}
    loaded = [
        (str(path.relative_to(PACKAGE)), name)
        for path, place, tree in modules()
        for node in tree.body
        for name in named(node)
        if ROW_OF[place] == 0 and name.split(".")[0] not in known
    ]
    assert loaded == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_are_loaded_only_where_they_belong(library: str) -> None:
    places = {
        place for _, place, tree in modules() for name in imported(tree) if name.split(".")[0] == library
    }
    assert places <= ONLY_IN[library]


def test_foreign_messages_are_cut_where_an_empty_one_is_thought_of() -> None:
    cut = re.compile(r"str\(error\)[\w.()]*\.splitlines\(")
    found = [path.relative_to(PACKAGE).as_posix() for path, _, _ in modules() if cut.search(path.read_text())]
    assert found == ["errors.py"]
