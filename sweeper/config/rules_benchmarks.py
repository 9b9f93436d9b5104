"""Rules of the `benchmarks` section."""

from sweeper.config.benchmark_models import BENCH, SCORE, BenchmarkSection
from sweeper.config.draft import Draft
from sweeper.config.messages import show


def check_benchmarks(draft: Draft) -> None:
    """Check that the benchmarks can be run when they are to run, and that every option means something."""
    section = draft.config.benchmarks
    if section is None or not draft.knows("benchmarks"):
        return
    _check_names(draft, section)
    _check_when(draft, section)
    for kind, entries in (("tasks", section.tasks), ("judged", section.judged)):
        for name, entry in entries.items():
            if entry.weight is not None and section.score != "weighted":
                draft.tell(
                    f"`benchmarks.{kind}.{name}.weight` is only read with `benchmarks.score: weighted`, but it is "
                    f"{show(section.score)}. Set that, or leave the weight out.",
                    "benchmarks", kind, name, "weight",
                )  # fmt: skip


def _check_names(draft: Draft, section: BenchmarkSection) -> None:
    if not section.names:
        draft.tell(
            "`benchmarks` must name a benchmark in `tasks` or `judged`, but both are empty. Name one, or leave the "
            "section out.",
            "benchmarks",
        )
    for name in section.judged:
        if name in section.tasks:
            draft.tell(
                f"`{name}` names a benchmark of `tasks` and one of `judged`. Rename one of them.",
                "benchmarks", "judged", name,
            )  # fmt: skip
    seen: dict[str, str] = {}
    for name in section.names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            draft.tell(
                f"The benchmarks `{other}` and `{name}` differ only in upper and lower case, so that their files are "
                "one on some disks. Rename one of them.",
                "benchmarks", "tasks" if name in section.tasks else "judged", name,
            )  # fmt: skip
    for kind, entries in (("tasks", section.tasks), ("judged", section.judged)):
        if SCORE in entries:
            draft.tell(
                f"`{SCORE}` cannot name a benchmark: `{BENCH}/{SCORE}` is the number of all of them. Choose another "
                "name.",
                "benchmarks", kind, SCORE,
            )  # fmt: skip
    if BENCH in draft.config.trial.eval_data:
        draft.tell(
            f"`{BENCH}` cannot name an eval set where there are `benchmarks`, whose metrics begin so. Rename it.",
            "trial", "eval_data", BENCH,
        )  # fmt: skip


def _check_when(draft: Draft, section: BenchmarkSection) -> None:
    trial = draft.config.trial
    if section.top is not None and section.when != "finalists":
        draft.tell(
            f"`benchmarks.top` is only read with `benchmarks.when: finalists`, but that is {show(section.when)}. "
            "Set it, or leave `top` out; `sweeper benchmark --top K` says it for one call.",
            "benchmarks", "top",
        )  # fmt: skip
    sharding = draft.config.resources.sharding if draft.knows("resources") else None
    if section.when == "completed" and sharding is not None:
        draft.tell(
            f"`benchmarks.when: completed` measures a model on one device, but `resources.sharding: {sharding}` shares "
            "it out. Use `when: finalists`, or leave the sharding out.",
            "benchmarks", "when",
        )  # fmt: skip
    if not draft.knows("trial.function", "trial.checkpoint"):
        return
    if section.when == "completed" and trial.function is not None:
        draft.tell(
            "`benchmarks.when: completed` runs within the built-in fine-tuning, but this trial is a function of your "
            "own. Let the function measure it, or choose `asked` or `finalists`.",
            "benchmarks", "when",
        )  # fmt: skip
    if section.when == "finalists" and trial.function is None and not trial.checkpoint.save_model:
        draft.tell(
            "`benchmarks.when: finalists` needs the finalists' models, but `trial.checkpoint.save_model` is false. "
            "Set it to true.",
            "benchmarks", "when",
        )  # fmt: skip
