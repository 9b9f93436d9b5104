"""The pages: links lead somewhere, Python runs, and the reference of the keys names every key with its default."""

import ast
import inspect
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

import sweeper
from sweeper.config import (
    benchmark_models,
    models,
    pruner_models,
    resource_models,
    space_models,
    trial_models,
)
from sweeper.config.section import Section

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "recorded" / "README.md",
    ROOT / "examples" / "tiny" / "README.md",
]  # fmt: skip
PAGE = (ROOT / "docs" / "sweep-file.md").read_text(encoding="utf-8")
PYTHON = [
    block
    for page in PAGES
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]
# In the page's order.
SECTIONS = [
    models.SweepConfig, trial_models.TrialSection, trial_models.DataSource, trial_models.Budget,
    trial_models.Evaluation, trial_models.CheckpointPolicy, trial_models.Phase, trial_models.TrainSettings,
    space_models.Dimension, space_models.SamplerSection, pruner_models.RungSection, pruner_models.PrunerSection,
    pruner_models.SignalWeight, pruner_models.DivergenceSection, resource_models.FailureSection,
    resource_models.ResourceSection, benchmark_models.BenchmarkSection, benchmark_models.TaskBenchmark,
    benchmark_models.JudgedBenchmark,
]  # fmt: skip
# What the page says in words, since the default is worked out or is a whole section.
IN_WORDS = {
    "sampler": "`grid`", "rungs": "by the pruner", "pruner": "`early_dynamics`", "divergence": "all rules on",
    "failures": "below", "resources": "below", "budget": "required", "evaluation": "below", "checkpoint": "below",
    "settings": "below", "directions": "by the others",
}  # fmt: skip


def tables() -> list[dict[str, str]]:
    """Return the page's tables in order, each as key and default."""
    found = []
    for block in re.findall(r"\| key \| default \| meaning \|\n\|[^\n]*\n((?:\|[^\n]*\n)+)", PAGE):
        rows = (line.split("|") for line in block.splitlines())
        found.append({cells[1].strip(" `"): cells[2].strip() for cells in rows})
    return found


def default_of(section: type[Section], name: str) -> str:
    field = section.model_fields[name]
    if name in IN_WORDS:
        return IN_WORDS[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    if value in (None, [], {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if isinstance(value, str) else f"{value:g}"


def test_every_section_has_its_table() -> None:
    assert len(tables()) == len(SECTIONS)


@pytest.mark.parametrize("index", range(len(SECTIONS)), ids=[section.__name__ for section in SECTIONS])
def test_every_key_is_named_with_its_default(index: int) -> None:
    section = SECTIONS[index]

    assert tables()[index] == {name: default_of(section, name) for name in section.model_fields}


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return what a page's headings are linked by."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        place, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / place if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_python_of_the_pages_calls_what_there_is() -> None:
    calls = [node for block in PYTHON for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    ours = [call for call in calls if ast.unparse(call.func).startswith("sweeper.")]
    assert {ast.unparse(call.func) for call in ours} == {f"sweeper.{name}" for name in sweeper.__all__}
    for call in ours:
        function = getattr(sweeper, ast.unparse(call.func).partition(".")[2])
        inspect.signature(function).bind(*call.args, **{str(word.arg): word for word in call.keywords})


# Without some packages, and with what the page's example leaves to the reader.
ABSENT = """
import math, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in {absent}:
            raise ModuleNotFoundError(f"no {{name}} here")

sys.meta_path.insert(0, Finder())

def train_to(mark, rate):
    return abs(math.log10(rate) + 3.0) + 100.0 / mark, 1.0

"""


def plain_optuna() -> str:
    (block,) = [block for block in PYTHON if "report_rung" in block]
    return block


def test_the_plain_optuna_of_the_pages_runs() -> None:
    def train_to(mark: int, rate: float) -> tuple[float, float]:
        return abs(math.log10(rate) + 3.0) + 100.0 / mark, 1.0

    names: dict[str, Any] = {"train_to": train_to}
    exec(plain_optuna(), names)

    states = [trial.state.name for trial in names["study"].trials]
    assert len(states) == 24
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert states.count("COMPLETE") >= 6  # of 24 points so many run to their end before anyone is judged


def test_the_plain_optuna_of_the_pages_needs_only_what_is_installed_for_it() -> None:
    page = (ROOT / "docs" / "pruning.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"For it alone\s+`pip install ([^`]+)`", page)
    required = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    installed = [word.strip("'") for word in recipe.split()]
    absent = {re.split(r"\[|>", one)[0] for one in required if one not in installed}
    absent -= {"cloudpickle"}  # comes with joblib, which scikit-learn needs
    code = ABSENT.format(absent=absent) + plain_optuna()

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert set(installed) < set(required)
    assert "torch" in absent
    assert done.returncode == 0, done.stderr
