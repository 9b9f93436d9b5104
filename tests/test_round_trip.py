"""Any search space there and back: trained, added to, extended, recorded, replayed, and learned from by another."""

import dataclasses
from typing import Any

import pytest
import trial_functions
from sweeps import make_config, make_orchestrator, make_study, reopened

from sweeper.control.send import send_request
from sweeper.driving import complete
from sweeper.errors import ConfigError, SweeperError
from sweeper.executors.in_process import InProcessExecutor
from sweeper.extend import plan_extension
from sweeper.params import params_key
from sweeper.plan import plan_sweep
from sweeper.prior import prior_of
from sweeper.replay import ReplayOptions, replay
from sweeper.study.control_records import Verb
from sweeper.study.recorded import record_study

RATES = {"grid": [1e-4, 1e-3]}
RANDOM = {"name": "random", "n_trials": 3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One space, and what is done to a study of it."""

    space: dict[str, Any]
    sampler: dict[str, Any] = dataclasses.field(default_factory=lambda: {"name": "grid"})
    trial: dict[str, Any] = dataclasses.field(default_factory=dict)
    add: dict[str, Any]  # one more point
    refused: dict[str, Any] | None = None  # what cannot be one
    told: str = "a point is trained once"  # of that
    overrides: tuple[str, ...] = ()  # of the resume that extends it
    continues: tuple[str, ...] = ()
    is_prior: bool = True  # False: its points have several budgets, so that it cannot be one


CASES = {
    "steps": Case(
        space={
            "learning_rate": {"log_uniform": [1e-5, 1e-2]},
            "depth": {"int": [1, 9], "step": 4},
            "drop": {"uniform": [0, 1], "step": 0.25},
        },
        sampler=RANDOM,
        add={"learning_rate": 1e-3, "depth": 5, "drop": 0.75},
        refused={"learning_rate": 1e-3, "depth": 4, "drop": 0.1},
        told="`depth` must be 1 plus whole steps of 4",
        overrides=("sampler.n_trials=5",),
    ),
    "lists and mappings": Case(
        space={"learning_rate": {"grid": [1e-3]}, "modules": {"grid": [["q"], ["q", "v"], {"k": 1}]}},
        add={"learning_rate": 1e-3, "modules": ["o"]},
        refused={"learning_rate": 1e-3, "modules": ["q"]},
        overrides=('search_space.modules.grid=[[q], [q, v], {k: 1}, {k: null}]',),
    ),
    "text like an encoding": Case(
        space={"learning_rate": {"grid": [1e-3]}, "template": {"grid": ["json:x", "json:[1]", ""]}},
        add={"learning_rate": 1e-3, "template": "json:{"},
        overrides=('search_space.template.grid=["json:x", "json:[1]", "", "json:"]',),
    ),
    "1 and 1.0": Case(
        space={"learning_rate": RATES, "weight": {"grid": [1, 2.0]}},
        add={"learning_rate": 1e-3, "weight": 0.5},
        refused={"learning_rate": 1e-3, "weight": 1.0},
        overrides=("search_space.weight.grid=[1.0, 2, 3]",),
    ),
    "1 and true": Case(
        space={"learning_rate": {"grid": [1e-3]}, "mixed": {"grid": [1, True, "1"]}},
        add={"learning_rate": 1e-3, "mixed": False},
        refused={"learning_rate": 1e-3, "mixed": True},
    ),
    "a swept budget": Case(
        space={"learning_rate": {"grid": [1e-3]}, "samples": {"grid": [40, 80]}},
        trial={"budget": {"samples": None}, "compare": "unequal"},
        add={"learning_rate": 1e-3, "samples": 60},
        refused={"learning_rate": 1e-3, "samples": float("nan")},
        told="`samples` must be a finite number",
        overrides=("search_space.samples.grid=[40, 80, 20]",),
        is_prior=False,
    ),
    "drawn": Case(
        space={"learning_rate": {"log_uniform": [1e-5, 1e-2]}, "drop": {"uniform": [0, 1]}},
        sampler=RANDOM,
        add={"learning_rate": 1e-3, "drop": 1},
        refused={"learning_rate": 1e-3, "drop": float("inf")},
        told="`drop` must be a finite number",
        overrides=("sampler.n_trials=4",),
    ),
    "a trial trained on": Case(
        space={"learning_rate": RATES},
        trial={"checkpoint": {"every_samples": 20}},
        add={"learning_rate": 1e-2},
        overrides=("trial.budget.samples=80",),
        continues=("0", "1"),
    ),
    "grown past 20 points": Case(
        space={"learning_rate": {"grid": [1e-3]}, "depth": {"grid": [1, 2]}},
        add={"learning_rate": 1e-3, "depth": 99},
        overrides=(f"search_space.depth.grid={list(range(1, 21))}", "pruner={n_calibration: 99}"),
    ),
}  # fmt: skip


def run(study):
    """Train what waits, as a driver does."""
    study = reopened(study)
    complete(study, None)
    InProcessExecutor(slots=1, function=trial_functions.steady).run(make_orchestrator(study))
    return reopened(study)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_study_of_any_space_is_extended_replayed_and_learned_from(case, tmp_path):
    trial = {"budget": {"samples": 40}, "settings": {"effective_batch_size": 10, "extra": 1}, **case.trial}
    config = make_config(
        dir=str(tmp_path), search_space=case.space, sampler=case.sampler, trial=trial, rungs={}
    )
    run(make_study(tmp_path, config))

    if case.refused is not None:
        with pytest.raises(SweeperError, match=case.told):
            send_request(str(tmp_path), Verb.ADD, {"params": case.refused})
    send_request(str(tmp_path), Verb.ADD, {"params": case.add})
    study = reopened(run_of(tmp_path))
    plan_extension(study, case.overrides, case.continues).apply(study)
    study = run(study)

    check_trials(study, case)
    sweep = record_study(study)
    assert [point.number for point in sweep.points] == [record.number for record in study.view().compared]
    assert replay(sweep, "nop", ReplayOptions(orders=1)).survivors == (len(sweep.points),) * 2
    check_prior(case, trial, tmp_path, sweep)


def run_of(directory):
    from sweeper.study.study import Study

    return run(Study.open(str(directory)))


def check_trials(study, case):
    """No params are trained twice, all are as they were given, and no rung lies at two marks."""
    records = study.records().values()
    trained = [params_key(record.params) for record in records if record.attempts and not record.is_continued]
    assert len(trained) == len(set(trained))
    assert params_key(case.add) in trained
    assert {params_key(point.params) for point in plan_sweep(study.config).points} <= set(trained)
    marks = {(rung.rung, rung.mark) for record in records for rung in record.rungs.values()}
    assert len(marks) == len({rung for rung, _ in marks}) > 0
    assert sum(record.is_continued for record in records) == len(case.continues)


def check_prior(case, trial, directory, sweep):
    """A sweep that varies what the study had fixed learns from all of its points."""
    settings = {name: value for name, value in trial["settings"].items() if name != "extra"}
    config = make_config(
        study="another", search_space={**case.space, "extra": {"grid": [1, 2]}} if case.sampler == {"name": "grid"}
        else {**case.space, "extra": {"choice": [1, 2]}}, sampler=case.sampler, rungs={},
        trial={**trial, "settings": settings}, pruner={"name": "early_dynamics", "prior": str(directory)},
    )  # fmt: skip
    plan = plan_sweep(config)
    if not case.is_prior:
        with pytest.raises(ConfigError, match="the budget of this sweep is not the same for all points"):
            prior_of(plan)
        return
    found = prior_of(plan)
    assert [record.params for record in found.values()] == [
        {**point.params, "extra": 1} for point in sweep.points
    ]
