"""`sweeper benchmark`: measure the models of trials that have ended, and keep the numbers in the study."""

import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeper.benchmarks.loaded import load_kept
from sweeper.benchmarks.measure import check_benchmarks, identity, measure
from sweeper.checkpoint import checkpoints_place, open_checkpoints
from sweeper.config import override_recorded
from sweeper.config.benchmark_models import DEFAULT_TOP, BenchmarkSection
from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.items import write_items
from sweeper.plan.points import plan_point
from sweeper.records import TrialRecord
from sweeper.reporting.export.chosen import chosen_record
from sweeper.reporting.export.model_dir import kept_model
from sweeper.study import layout
from sweeper.study.benchmark_records import BenchmarkRun, Score
from sweeper.study.clock import utc_now
from sweeper.study.study import Study
from sweeper.study.view import StudyView


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """What is to be measured."""

    trials: tuple[int, ...] = ()  # these; empty: the best
    top: int | None = None  # so many of the best; None: as the config says, else 3
    checkpoint: int | None = None  # step; None: the final model
    again: bool = False  # also what was measured before
    overrides: tuple[str, ...] = ()  # over the study's config; only `benchmarks` counts


def benchmark(place: str, request: BenchmarkRequest, *, storage: str | None = None) -> StudyView:
    """Measure trials of a study one after the other in this process; return the study with the results in it.

    What was measured before, in the same way, is not measured again.

    Raises:
        ConfigError: If there is nothing to measure with, or a package or key is missing.
        StudyMismatchError: If there is no such study, trial or model; nothing was measured.
        SweeperError: If a benchmark fails; what was measured before it is kept.
    """
    study = Study.open(place, url=storage)
    config = override_recorded(study.config, request.overrides) if request.overrides else study.config
    if config.benchmarks is None:
        raise ConfigError(
            f"Study `{study.name}` has no `benchmarks`. Name one here, for example "
            "`benchmarks.tasks.arc_easy.num_fewshot=0`, or put the section into the sweep file."
        )
    check_benchmarks(config.benchmarks)
    view = study.view()
    records = chosen_trials(view, config.benchmarks, request)
    for record in records:
        _check_model(view, record, request.checkpoint)
    if config.trial.trust_remote_code:
        print("the study trusts the code that its models bring: it is run in this process", file=sys.stderr)
    for record in records:
        _measure_one(study, view, config.benchmarks, record, request)
    return study.view()


def benchmark_finalists(study: Study) -> None:
    """Measure the best trials of a sweep that has ended, where its config says so. Raises as `benchmark`."""
    section = study.config.benchmarks
    if section is None or section.when != "finalists" or study.view().best is None:
        return
    benchmark(str(study.directory), BenchmarkRequest(), storage=study.config.storage)


def chosen_trials(view: StudyView, section: BenchmarkSection, request: BenchmarkRequest) -> list[TrialRecord]:
    """Return the trials that a request names, else the best ones: as many as it says, or the section.

    Raises:
        ConfigError: If it names trials and how many.
        StudyMismatchError: If there is no such trial, or none has completed.
    """
    if request.trials:
        if request.top is not None:
            raise ConfigError("`--trial` names trials and `--top` the best ones: give one of them.")
        return [chosen_record(view, number) for number in request.trials]
    chosen_record(view, None)  # raises where none has completed
    return view.ranked[: request.top or section.top or DEFAULT_TOP]


def _measure_one(
    study: Study, view: StudyView, section: BenchmarkSection, record: TrialRecord, request: BenchmarkRequest
) -> None:
    step, known = request.checkpoint, {}
    for run in study.benchmark_box.read():
        if run.trial == record.number and run.step == step and not run.score.facts.get("n_unrated"):
            known[run.benchmark] = run.identity
    hashes = {name: identity(section, name) for name in section.names}
    names = [name for name in section.names if request.again or known.get(name) != hashes[name]]
    if not names:
        print(f"trial {record.number}: measured before in the same way", file=sys.stderr)
        return
    print(f"trial {record.number}: {', '.join(names)}", file=sys.stderr)
    with _model_dir(study, view, record, step) as directory:
        loaded = load_kept(directory, trust_remote_code=view.config.trial.trust_remote_code)
        measured = measure(loaded, section, names)
    for name, one in measured.items():
        if one.items is not None and step is None:
            write_items(layout.trial_dir(view.directory, record.number), one.items)
        study.benchmark_box.write(_run_of(record, name, step, one.score, hashes[name]))


def _run_of(record: TrialRecord, name: str, step: int | None, score: Score, hashed: str) -> BenchmarkRun:
    return BenchmarkRun(
        trial=record.number, benchmark=name, step=step, score=score, identity=hashed, at=utc_now()
    )


def _check_model(view: StudyView, record: TrialRecord, step: int | None) -> None:
    if step is None:
        kept_model(view, record)
    else:
        _checkpoint_dir(view, record, step)


def _checkpoint_dir(view: StudyView, record: TrialRecord, step: int) -> Path:
    """Return the directory of a trial's checkpoint.

    Raises:
        ConfigError: If the trial is a function's, or its checkpoints lie in an object store.
        StudyMismatchError: If there is no such checkpoint.
    """
    config = view.config
    if config.trial.function is not None:
        raise ConfigError(
            f"Study `{view.name}` trains with the function `{config.trial.function}`, and only that knows what its "
            "checkpoints hold. Let it keep a model in the trial's `model` directory."
        )
    trial_dir = layout.trial_dir(view.directory, record.number)
    url = config.trial.checkpoint.url
    if url is not None:
        raise ConfigError(
            f"`--checkpoint` reads checkpoints of a file system, but those of study `{view.name}` lie at {url}. Keep "
            "final models with `trial.checkpoint.save_model: true`."
        )
    place = checkpoints_place(None, study=view.name, trial_dir=str(trial_dir), number=record.number)
    saved = open_checkpoints(place).saved()
    for one in saved:
        if one.step == step:
            return Path(place) / one.name
    steps = ", ".join(str(one.step) for one in saved)
    raise StudyMismatchError(
        f"Trial {record.number} of study `{view.name}` has no checkpoint of step {step}: "
        f"{f'it has those of steps {steps}' if steps else 'it has none'}. "
        "`trial.checkpoint.every_samples` and `at` say when they are saved."
    )


@contextmanager
def _model_dir(study: Study, view: StudyView, record: TrialRecord, step: int | None) -> Iterator[Path]:
    """Yield a directory with the model: the kept one, or one made of a checkpoint for as long as the block runs."""
    if step is None:
        yield kept_model(view, record)
        return
    from sweeper.training.checkpoint_model import write_checkpoint_model

    settings = plan_point(view.config, record.params, facts=study.facts()).settings
    with tempfile.TemporaryDirectory(prefix="sweeper-") as scratch:
        target = Path(scratch) / "model"
        write_checkpoint_model(view.config.trial, settings, _checkpoint_dir(view, record, step), target)
        yield target
