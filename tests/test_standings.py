"""The ranks at a rung, kept up to date: the same as ranked anew, with ties, NaN and trials that diverged."""

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from sweeper.pruners.standings import Standings
from sweeper.records import LoggedRecords, RungRecord, TrialRecord, TrialState

WEIGHTS = [("loss", 0.25, True), ("grad_norm", 0.75, False)]
SIGNAL = st.one_of(st.integers(0, 4).map(float), st.sampled_from([math.nan, math.inf, -math.inf]))
DIVERGED = {"stop": True, "rule": "nan"}


def mean_rank(values, value, *, high_is_good):
    goods = [v if high_is_good else -v for v in values if math.isfinite(v)]
    n_last = len(values) - len(goods)
    if not math.isfinite(value):
        return Fraction(n_last - 1, 2 * max(len(values) - 1, 1))
    own = value if high_is_good else -value
    first, last = n_last + sum(g < own for g in goods), n_last + sum(g <= own for g in goods) - 1
    return Fraction(first + last, 2 * max(len(values) - 1, 1))


def n_better(peers, number):
    """Rank anew, in the plainest way, and exactly."""
    score = dict.fromkeys(peers, Fraction(0))
    for name, weight, high_is_good in WEIGHTS:
        values = [rung.signals.get(name, math.nan) for rung in peers.values()]
        for one, rung in peers.items():
            value = rung.signals.get(name, math.nan)
            score[one] += Fraction(weight) * mean_rank(values, value, high_is_good=high_is_good)
    return sum(other > score[number] for other in score.values())


def waiting(n):
    return LoggedRecords(
        {k: TrialRecord(number=k, state=TrialState.RUNNING, params={}, point_id=str(k)) for k in range(n)}
    )


@given(st.lists(st.tuples(SIGNAL, SIGNAL, st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_ranks_kept_up_to_date_are_those_ranked_anew(reports):
    records, kept = waiting(len(reports)), Standings(WEIGHTS)

    for number, (loss, norm, diverges, is_read) in enumerate(reports):
        if diverges:
            records[number].state, records[number].decisions = TrialState.PRUNED, [DIVERGED]
        else:
            signals = {"loss": loss, "grad_norm": norm}
            records[number].rungs[0] = RungRecord(rung=0, mark=1, step=1, samples=1, signals=signals)
        records.note(number)
        if is_read:
            kept.read(records)
    kept.read(records)

    peers = {n: r.rungs[0] for n, r in records.items() if r.rungs}
    assert kept.n_peers(0) == len(reports)
    assert kept.peers(0) == list(range(len(reports)))
    assert {n: kept.at(0).n_better(n) for n in peers} == {n: n_better(peers, n) for n in peers}


def at_one_rung(*signals):
    records = waiting(len(signals))
    for number, shown in enumerate(signals):
        records[number].rungs[0] = RungRecord(rung=0, mark=1, step=1, samples=1, signals=shown)
    return records


def test_scores_that_differ_by_rounding_are_a_tie():
    # Three signals of equal weight: ranks 0, 1, 3 of one trial and 1, 3, 0 of another add up to the same.
    kept = Standings([(name, 1 / 3, True) for name in "abc"])
    ranks = [(a, b, c) for a in range(12) for b in range(12) for c in range(12) if a + b + c == 16][:12]
    kept.read(at_one_rung(*(dict(zip("abc", map(float, one), strict=True)) for one in ranks)))
    scores = [
        sum(mean_rank([r[i] for r in ranks], one[i], high_is_good=True) for i in range(3)) for one in ranks
    ]

    assert [kept.at(0).n_better(n) for n in range(12)] == [sum(s > mine for s in scores) for mine in scores]


def test_an_infinite_signal_ranks_last_whatever_the_direction():
    records = at_one_rung(
        {"loss": 1.0, "grad_norm": 1.0},
        {"loss": math.inf, "grad_norm": 1.0},
        {"loss": 1.0, "grad_norm": -math.inf},
    )
    kept = Standings(WEIGHTS)
    kept.read(records)

    assert kept.at(0).n_better(0) == 0
    assert min(kept.at(0).n_better(1), kept.at(0).n_better(2)) >= 1


def test_a_trial_that_diverged_after_a_rung_counts_there_once():
    records, kept = waiting(2), Standings(WEIGHTS)
    records[0].rungs[0] = RungRecord(rung=0, mark=1, step=1, samples=1, signals={"loss": 1.0})
    records.note(0)
    kept.read(records)

    records[0].state, records[0].decisions = TrialState.PRUNED, [DIVERGED]
    records.note(0)
    kept.read(records)

    assert (kept.n_peers(0), kept.n_peers(1)) == (1, 1)


def test_plain_records_are_read_anew():
    kept = Standings(WEIGHTS)
    for loss in (1.0, 2.0):
        records = dict(waiting(1))
        records[0].rungs[0] = RungRecord(rung=0, mark=1, step=1, samples=1, signals={"loss": loss})
        kept.read(records)

    assert kept.n_peers(0) == 1
