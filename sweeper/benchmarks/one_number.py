"""Several benchmarks as one number: the mean, a weighted mean, or the mean of ranks among the study's trials. Pure."""

import math
from collections.abc import Mapping

from sweeper.config.benchmark_models import BenchmarkSection
from sweeper.study.benchmark_records import Score


def mean_score(section: BenchmarkSection, scores: Mapping[str, Score]) -> Score | None:
    """Return the mean of one model's benchmarks, weighted where the section says so.

    Ratings from 1 to 10 enter divided by 10. The standard error takes the benchmarks as independent. None where one is
    missing, or is better when lower: what is good and what is bad have no mean.
    """
    names = section.names
    if any(name not in scores or not scores[name].higher_is_better for name in names):
        return None
    weights = [section.weight(name) / scores[name].scale for name in names]
    total = math.fsum(section.weight(name) for name in names)
    pairs = list(zip(weights, (scores[name] for name in names), strict=True))
    value = math.fsum(weight * score.value for weight, score in pairs) / total
    error = math.hypot(*(weight * score.stderr for weight, score in pairs)) / total
    return Score(value=value, stderr=error)


def rank_means(section: BenchmarkSection, scores: Mapping[int, Mapping[str, Score]]) -> dict[int, Score]:
    """Return each model's mean rank over the benchmarks, 1 being the best; equal values share their mean rank.

    Ranks are among the models that have every benchmark, so they change when another one is measured.
    """
    complete = {
        number: found for number, found in scores.items() if all(name in found for name in section.names)
    }
    if not complete:
        return {}
    from scipy.stats import rankdata  # takes half a second to load

    sums = dict.fromkeys(complete, 0.0)
    for name in section.names:
        column = [
            -found[name].value if found[name].higher_is_better else found[name].value
            for found in complete.values()
        ]
        for number, rank in zip(complete, rankdata(column), strict=True):
            sums[number] += float(rank)
    n_names = len(section.names)
    return {
        number: Score(value=total / n_names, stderr=math.nan, higher_is_better=False)
        for number, total in sums.items()
    }
