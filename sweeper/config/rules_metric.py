"""Rules of the metric, the trial's derived metrics, and the measures they are made of."""

from sweeper.config.benchmark_models import BENCH, SCORE
from sweeper.config.draft import Draft
from sweeper.config.messages import did_you_mean, join, show, unknown_name
from sweeper.config.names import MEASURES
from sweeper.records import GRAD_NORM, LOSS

_RESERVED = (LOSS, GRAD_NORM, "learning_rate")


def check_metric(draft: Draft) -> None:
    """Check that the study's metric exists, and that every derived metric is made of measures that exist."""
    if draft.config.trial.function is not None or not draft.knows("trial.function"):
        return  # a function reports what it likes
    _check_derived(draft)
    metric = draft.config.metric
    at_end = is_known_at_the_end(draft, metric)
    if draft.knows("metric", "trial.metrics", "trial.eval_data", "benchmarks") and not at_end:
        told = measure_problem(draft, metric, "`metric`")
        if told and draft.config.trial.eval_data:
            draft.tell(told, "metric")
    _check_generation(draft)


def known_values(draft: Draft) -> list[str]:
    """Return every value by which trials can be compared: derived metrics and `set/measure`."""
    trial = draft.config.trial
    return [*trial.metrics, *(f"{name}/{measure}" for name in trial.eval_data for measure in MEASURES)]


def is_known_at_the_end(draft: Draft, metric: str) -> bool:
    """Whether a trial has this metric only once it has ended, and no eval set's value of it before."""
    return metric == LOSS or metric in _benchmark_values(draft)


def _benchmark_values(draft: Draft) -> list[str]:
    """Return the benchmarks' numbers that a trial ends with; a mean of ranks is known only of the whole study."""
    section = draft.config.benchmarks
    if section is None or section.when != "completed":
        return []
    score = [] if section.score == "rank_mean" else [SCORE]
    return [f"{BENCH}/{name}" for name in (*section.names, *score)]


def measure_problem(draft: Draft, name: str, where: str) -> str | None:
    """Say why `name` is no value that a trial of this file has, or None where it is one."""
    known = known_values(draft)
    if name in known:
        return None
    eval_set, slash, measure = name.rpartition("/")
    if slash and eval_set in draft.config.trial.eval_data:
        return f"{where} names {unknown_name(measure, MEASURES, what='measure')}"
    near = did_you_mean(name, known)
    if near:
        return f"{where} must name a value of this sweep, but got {show(name)}. Did you mean `{near}`?"
    sets = list(draft.config.trial.eval_data)
    allowed = (
        f"`<eval set>/<measure>` with {join(sets)} and {join(MEASURES)}" if sets else "an eval set of `trial`"
    )
    return (
        f"{where} must name a key of `trial.metrics` or {allowed}, but got {show(name)}. Choose one of these."
    )


def _check_derived(draft: Draft) -> None:
    if not draft.knows("trial.metrics", "trial.eval_data"):
        return
    for name, weights in draft.config.trial.metrics.items():
        path = ("trial", "metrics", name)
        if name in _RESERVED or "/" in name:
            draft.tell(
                f"`{name}` cannot name a metric: it is taken, or has a `/`. Choose another name.", *path
            )
        if not weights or not sum(weights.values()) > 0 or min(weights.values()) < 0:
            draft.tell(
                f"The weights of `{'.'.join(path)}` must be at least 0, with a sum greater than 0, but got "
                f"{show(list(weights.values()))}. Write for example `{{dev/exact_match: 1}}`.",
                *path,
            )
        for measure in weights:
            if measure in draft.config.trial.metrics:
                told = (
                    f"`{'.'.join(path)}` is made of `{measure}`, which is derived itself. Name `set/measure` "
                    "only."
                )
                draft.tell(told, *path, measure)
            elif problem := measure_problem(draft, measure, f"`{'.'.join(path)}`"):
                draft.tell(problem, *path, measure)


def _check_generation(draft: Draft) -> None:
    """Exact match compares generated answers, so it needs generation."""
    if (
        not draft.knows("trial.evaluation", "trial.metrics", "metric")
        or draft.config.trial.evaluation.generate
    ):
        return
    derived = [
        (("trial", "metrics", name, key), key) for name, w in draft.config.trial.metrics.items() for key in w
    ]
    for path, name in [(("metric",), draft.config.metric), *derived]:
        if name.endswith("/exact_match"):
            draft.tell(
                f"`{name}` needs generated answers, but `trial.evaluation.generate` is false. Set it to "
                "true or choose another measure.",
                *path,
            )
