"""The audit: condemned trials that go on, and the rate of wrong kills that they show."""

import dataclasses

import pytest
from learning_sweeps import cost, honest, play

from sweeper.learning import LearnedOptions
from sweeper.pruners.audit import audit_decision, audit_report, clopper_pearson, is_chosen
from sweeper.pruners.learned import LearnedRule
from sweeper.records import TrialRecord, TrialState


def make_rule(**options):
    return LearnedRule(metric="score", direction="maximize", options=LearnedOptions(**options))


def audited(number, value, *, best=1.0, tolerance=0.1, state=TrialState.COMPLETE, samples=1000, stop=None):
    record = TrialRecord(
        number=number, state=state, params={}, point_id=str(number), value=value, samples=samples
    )
    details = {"best": best, "tolerance": tolerance, "chance": 0.01}
    record.decisions.append({"rule": "audit", "stop": False, "samples": 200, "details": details})
    if stop is not None:
        record.decisions.append({"rule": stop, "stop": True, "samples": samples, "details": {}})
    return record


def test_the_choice_is_seeded_and_has_about_its_share():
    chosen = [is_chosen(f"point-{n}", frac=0.1, seed=0) for n in range(5000)]

    assert chosen == [is_chosen(f"point-{n}", frac=0.1, seed=0) for n in range(5000)]
    assert chosen != [is_chosen(f"point-{n}", frac=0.1, seed=1) for n in range(5000)]
    assert 0.085 < sum(chosen) / 5000 < 0.115


def test_a_condemned_trial_that_was_chosen_goes_on_to_its_end():
    final, signals = honest(0)

    records = play(make_rule(audit_frac=0.3, skip_waiting=False), final, signals)

    went_on = [record for record in records.values() if audit_decision(record) is not None]
    assert went_on
    assert all(record.state is TrialState.COMPLETE for record in went_on)
    assert all("goes on in the shadow" in audit_decision(record)["reason"] for record in went_on)


def test_with_all_audited_nobody_that_has_begun_is_stopped():
    final, signals = honest(0)

    assert cost(play(make_rule(audit_frac=1.0, skip_waiting=False), final, signals)) == 1.0
    records = play(make_rule(audit_frac=1.0), final, signals)
    stopped = [record for record in records.values() if record.state is TrialState.PRUNED]
    assert stopped
    assert all(record.samples == 0 for record in stopped)


def test_without_audit_nobody_goes_on_in_the_shadow():
    final, signals = honest(0)

    records = play(make_rule(audit_frac=0.0), final, signals)

    assert all(audit_decision(record) is None for record in records.values())


def test_a_kill_is_wrong_where_the_trial_beat_the_best_of_then_by_more_than_the_tolerance():
    records = [
        audited(0, 1.2),
        audited(1, 1.05),
        audited(2, 0.3),
        audited(3, None, state=TrialState.PRUNED, samples=300, stop="nan"),
    ]

    report = audit_report(records, maximize=True)

    assert (report.n_audited, report.n_wrong, report.rate) == (4, 1, 0.25)
    assert report.spent_samples == 800 * 3 + 100
    assert (report.low, report.high) == pytest.approx((0.0063, 0.8059), abs=1e-4)


def test_where_low_is_good_a_lower_value_is_the_wrong_kill():
    assert audit_report([audited(0, 0.7)], maximize=False).n_wrong == 1
    assert audit_report([audited(0, 1.3)], maximize=False).n_wrong == 0


def test_an_audited_trial_that_still_runs_is_counted_apart():
    report = audit_report([audited(0, None, state=TrialState.RUNNING)], maximize=True)

    assert (report.n_audited, report.n_open, report.rate) == (0, 1, None)


def test_of_an_audited_trial_that_somebody_stopped_or_that_failed_nothing_is_known():
    records = [
        audited(0, 1.2),
        audited(1, None, state=TrialState.PRUNED, samples=300, stop="user"),
        audited(2, None, state=TrialState.FAIL, samples=300),
    ]

    report = audit_report(records, maximize=True)

    assert (report.n_audited, report.n_wrong, report.n_open, report.n_unknown) == (1, 1, 0, 2)
    assert (report.rate, report.expected) == (1.0, 0.01)
    assert report.spent_samples == 800 + 100 * 2


@pytest.mark.parametrize(
    ("hits", "n", "expected"), [(0, 20, (0.0, 0.1684)), (1, 20, (0.0013, 0.2487)), (20, 20, (0.8316, 1.0))]
)
def test_the_interval_is_clopper_and_pearsons(hits, n, expected):
    assert clopper_pearson(hits, n) == pytest.approx(expected, abs=1e-4)


def test_the_audits_rate_agrees_with_the_truth():
    """Condemn by a rule that is often wrong, and look at the ends of all that it condemned."""
    wrong = found = n_condemned = n_audited = 0
    for seed in range(5):
        final, signals = honest(seed, sd=0.05)
        rule = make_rule(audit_frac=1.0, risk=0.9, n_calibration=4, skip_waiting=False)
        records = play(rule, final, signals, seed=seed)
        everyone = [record for record in records.values() if audit_decision(record) is not None]
        truth = audit_report(everyone, maximize=True)
        chosen = [r for r in everyone if is_chosen(f"{seed}-{r.point_id}", frac=0.4, seed=0)]
        part = audit_report([dataclasses.replace(r) for r in chosen], maximize=True)
        wrong, n_condemned = wrong + truth.n_wrong, n_condemned + truth.n_audited
        found, n_audited = found + part.n_wrong, n_audited + part.n_audited

    low, high = clopper_pearson(found, n_audited)
    assert n_condemned > 50
    assert low <= wrong / n_condemned <= high
