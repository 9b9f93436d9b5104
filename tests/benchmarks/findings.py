"""The paper's findings beside what the tiny model shows: each search space run as a sweep, small, over seeds.

Every sweep is really run, by `sweeper launch`, into `--dir`; what is there already is not run again, so the whole can
be run in pieces. A difference is stated as its mean over the seeds, paired, with its interval of 95 %; it is within the
seed noise unless the paired t rejects that at 5 %, corrected by Holm for the comparisons with one reference.

    python tests/benchmarks/findings.py --dir /tmp/findings [--only stacked_phased] [--seeds 3]
"""

import argparse
import dataclasses
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sweeper.api import load_study
from sweeper.confirm.statistics import Comparison, compare
from sweeper.records import TrialState
from sweeper.study.view import StudyView

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples" / "tiny"
# One new skill a data set; each with a tenth of what the base model knows, as in examples/tiny/data.
SKILLS = {"instruction": "rotate", "knowledge": "title", "skills": "shift"}

SWEEP = """\
study: {name}
metric: score
direction: maximize
trial:
  model: {tiny}/model
  {data}
  eval_data: {{new: {tiny}/data/eval_new.jsonl, kept: {tiny}/data/eval_kept.jsonl}}
  metrics: {{score: {{new/exact_match: 0.5, kept/exact_match: 0.5}}}}
  budget: {{samples: 3072}}
  evaluation: {{at: end, batch_size: 96, max_new_tokens: 16}}
  settings: {{micro_batch_size: 32, max_length: 64}}
search_space: {file}
pruner: nop
resources: {{slots: 1}}
"""

Point = tuple[Any, ...]
Scores = dict[Point, dict[int, float]]  # score by seed, by point


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One search space, made small, and what it says of the paper's finding."""

    finding: str
    file: str
    overrides: tuple[str, ...]
    by: tuple[str, ...]  # what a point is told by
    read: Callable[[Scores], str]


def best_of(scores: Scores, points: Iterable[Point]) -> Point:
    """Return the point with the best mean. Chosen and read from the same seeds, so it flatters a little."""
    return max((point for point in points if point in scores), key=lambda point: mean(scores[point]))


def mean(values: dict[int, float]) -> float:
    return statistics.fmean(values.values())


def told(difference: Comparison) -> str:
    word = "" if difference.is_real else ", within the seed noise"
    return f"{difference.difference:+.3f} ({difference.low:+.3f} to {difference.high:+.3f}{word})"


def against(scores: Scores, candidates: Sequence[Point], reference: Point) -> list[Comparison]:
    """Compare points with one of them, corrected for their number."""
    values = [scores[reference], *(scores[point] for point in candidates)]
    return list(compare(values, maximize=True))


def batch_and_rate(scores: Scores) -> str:
    batches = sorted({point[0] for point in scores})
    best = {batch: best_of(scores, [point for point in scores if point[0] == batch]) for batch in batches}
    each = ", ".join(f"batch {batch} {mean(scores[p]):.2f} at {p[1]:g}" for batch, p in best.items())
    (last,) = against(scores, [best[batches[-1]]], best[batches[0]])
    return f"best of each: {each}; batch {batches[-1]} against {batches[0]}: {told(last)}"


def schedule(scores: Scores) -> str:
    reference = ("constant", 0)
    others = [point for point in scores if point != reference]
    found = dict(zip(others, against(scores, others, reference), strict=True))
    better = [point for point in others if found[point].is_real and found[point].difference > 0]
    worse = [point for point in others if found[point].is_real and found[point].difference < 0]
    return (
        f"constant without warm-up {mean(scores[reference]):.2f}; of the other {len(others)}, better beyond the seed "
        f"noise: {_named(better, found)}; worse: {_named(worse, found)}"
    )


def _named(points: list[Point], found: dict[Point, Comparison]) -> str:
    return (
        ", ".join(f"{name} with {steps} steps {told(found[(name, steps)])}" for name, steps in points)
        or "none"
    )


def strategy(scores: Scores) -> str:
    stacked = next(point for point in scores if point[0] == "stacked")
    phased = [point for point in scores if point[0] == "phased"]
    each = [
        f"phased with {point[1]:.0%} replay {mean(scores[point]):.2f}, {told(difference)}"
        for point, difference in zip(phased, against(scores, phased, stacked), strict=True)
    ]
    return f"stacked {mean(scores[stacked]):.2f}; against it " + "; ".join(each)


def recipe(scores: Scores) -> str:
    small, large = (pick(point[0] for point in scores) for pick in (min, max))
    tulu = best_of(scores, [p for p in scores if p[:2] == (small, "linear") and p[2] > 0])
    lab = best_of(scores, [p for p in scores if p[:2] == (large, "constant") and p[2] == 0])
    best = best_of(scores, scores)
    corner = f"batch {best[0]}, {best[1]}, warm-up {best[2]:g}, rate {best[3]:g}"
    return (
        f"TULU's {mean(scores[tulu]):.2f} (rate {tulu[3]:g}), LAB's {mean(scores[lab]):.2f} (rate {lab[3]:g}); LAB "
        f"against TULU: {told(against(scores, [lab], tulu)[0])}; best of all: {corner}, {mean(scores[best]):.2f}"
    )


def memory(scores: Scores) -> str:
    batches = sorted({point[0] for point in scores})
    lives = [point[1] for point in scores if point[0] == batches[0]]
    spans = []
    for life in lives:
        name = "beta2 0.95" if life is None else f"half-life {life:g}"
        (found,) = against(scores, [(batches[-1], life)], (batches[0], life))
        spans.append(f"{name}: {told(found)}")
    return f"batch {batches[-1]} against {batches[0]} at one rate, with " + "; ".join(spans)


EXPERIMENTS = (
    Experiment(
        finding="larger batches with lower rates do better",
        file="paper_granite",
        overrides=(
            "search_space.effective_batch_size.grid=[8, 32, 128]",
            "search_space.learning_rate.grid=[1e-4, 3e-4, 1e-3, 3e-3]",
        ),
        by=("effective_batch_size", "learning_rate"),
        read=batch_and_rate,
    ),
    Experiment(
        finding="no warm-up and a constant rate cost nothing",
        file="schedule_warmup",
        overrides=(
            "search_space.warmup_steps.grid=[0, 10, 40]",
            "effective_batch_size=8",
            "learning_rate=3e-4",
        ),
        by=("lr_scheduler_type", "warmup_steps"),
        read=schedule,
    ),
    Experiment(
        finding="stacked equals phased",
        file="stacked_phased",
        overrides=("effective_batch_size=8", "learning_rate=3e-4"),
        by=("data_strategy", "replay_frac"),
        read=strategy,
    ),
    Experiment(
        finding="LAB's recipe does better than TULU's",
        file="tulu_lab",
        overrides=(
            "search_space.effective_batch_size.grid=[8, 128]",
            "search_space.learning_rate.grid=[3e-4, 1e-3]",
        ),
        by=("effective_batch_size", "lr_scheduler_type", "warmup_frac", "learning_rate"),
        read=recipe,
    ),
    Experiment(
        finding="(ours) is it the batch, or Adam's memory in tokens?",
        file="batch_beta2",
        overrides=(
            "search_space.effective_batch_size.grid=[8, 128]",
            "search_space.adam_beta2_half_life_tokens.grid=[null, 1e3, 1e4]",
            "learning_rate=1e-3",
        ),
        by=("effective_batch_size", "adam_beta2_half_life_tokens"),
        read=memory,
    ),
)


def data_of(experiment: Experiment, directory: Path) -> str:
    """Return how the sweep file names its data; named sets are made first."""
    if experiment.file != "stacked_phased":
        return f"train_data: {TINY}/data/train.jsonl"
    for name, skill in SKILLS.items():
        if not (directory / name / "train.jsonl").exists():
            make = [sys.executable, str(TINY / "make_data.py"), "--out", str(directory / name)]
            subprocess.run(
                [*make, "--new", skill, "--train-rows", "683"], check=True, stdout=subprocess.DEVNULL
            )
    return "data_sets: {" + ", ".join(f"{name}: {directory}/{name}/train.jsonl" for name in SKILLS) + "}"


def run(experiment: Experiment, seeds: int, directory: Path) -> StudyView:
    """Run one sweep to its end, or read it where it has ended."""
    directory.mkdir(parents=True, exist_ok=True)
    sweep = directory / f"sweep-{experiment.file}.yaml"  # not the name of the search space
    text = SWEEP.format(
        name=experiment.file, tiny=TINY, file=experiment.file, data=data_of(experiment, directory)
    )
    sweep.write_text(text, encoding="utf-8")
    place = directory / experiment.file
    command = [
        sys.executable, "-m", "sweeper.cli", "launch", str(sweep), *experiment.overrides,
        f"search_space.seed.grid={list(range(seeds))}", "--dir", str(place), "--executor", "in-process",
    ]  # fmt: skip
    ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ended.returncode not in (0, 3):  # 3: it had ended before
        sys.exit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return load_study(str(place))


def scores_of(view: StudyView, by: tuple[str, ...]) -> Scores:
    """Return the completed trials' scores by seed, by point."""
    scores: Scores = {}
    for record in view.records:
        if record.state is TrialState.COMPLETE and record.value is not None:
            point = tuple(record.params[name] for name in by)
            scores.setdefault(point, {})[record.params["seed"]] = record.value
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, required=True, help="where the studies are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=[experiment.file for experiment in EXPERIMENTS])
    options = parser.parse_args()
    print("| finding of the paper | file | the tiny model |\n| --- | --- | --- |", flush=True)
    for experiment in EXPERIMENTS:
        if options.only in (None, experiment.file):
            view = run(experiment, options.seeds, options.dir.absolute())
            shown = experiment.read(scores_of(view, experiment.by))
            trials = f"{len(view.records)} trials"
            print(f"| {experiment.finding} | `{experiment.file}` | {shown} ({trials}) |", flush=True)


if __name__ == "__main__":
    main()
