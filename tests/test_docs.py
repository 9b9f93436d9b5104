"""The reference of a sweep file's keys names every key with its default, and no other."""

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from sweeper.config import benchmark_models, models
from sweeper.config.section import Section

PAGE = (Path(__file__).parents[1] / "docs" / "sweep-file.md").read_text(encoding="utf-8")
# In the page's order.
SECTIONS = [
    models.SweepConfig, models.TrialSection, models.DataSource, models.Budget, models.Evaluation,
    models.CheckpointPolicy, models.Phase, models.TrainSettings, models.Dimension, models.SamplerSection,
    models.RungSection, models.PrunerSection, models.SignalWeight, models.DivergenceSection, models.FailureSection,
    models.ResourceSection, benchmark_models.BenchmarkSection, benchmark_models.TaskBenchmark,
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
