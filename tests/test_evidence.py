"""Evidence: what early signals were worth, in numbers and in words."""

import dataclasses
import io
import math

import numpy as np
import pytest
from report_fixtures import make_config as make_report_config
from report_fixtures import make_view
from rich.console import Console
from scipy.stats import spearmanr
from sweeps import make_config, make_study

from sweeper.evidence_text import (
    audit_sentence,
    evidence_json,
    evidence_of_view,
    format_evidence,
    nothing_to_tell,
)
from sweeper.pruners.correlation import _rank_rho, partial, spearman, within_groups
from sweeper.pruners.evidence import DENOISED_NORM, Evidence, evidence_of, in_words
from sweeper.records import RungRecord, TrialRecord, TrialState
from sweeper.reporting.findings import findings_of
from sweeper.reporting.page_findings import evidence_section
from sweeper.reporting.plot_evidence import evidence_figure

RATES = np.geomspace(1e-5, 1e-2, 6)
BATCHES = (8, 32, 128)


def grid(value_of, **signals):
    """Return the finished trials of a grid; each signal is a function of rate and batch, at two rungs."""
    found = []
    for number, (batch, rate) in enumerate((b, r) for b in BATCHES for r in RATES):
        record = TrialRecord(
            number=number, state=TrialState.COMPLETE, params={"effective_batch_size": batch, "learning_rate": rate},
            point_id=str(number), value=value_of(rate, batch), budget_samples=1000,
        )  # fmt: skip
        for rung, samples in enumerate((100, 300)):
            record.rungs[rung] = RungRecord(
                rung=rung, mark=samples, step=1, samples=samples,
                signals={name: of(rate, batch) * (1 + rung) for name, of in signals.items()},
            )  # fmt: skip
        found.append(record)
    return found


def noise(seed):
    draw = np.random.default_rng(seed)
    return lambda rate, batch: float(draw.normal())


def view_of(records, **changes):
    return dataclasses.replace(make_view(records, make_report_config({})), **changes)


def printed(view):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(format_evidence(view))
    return console.export_text()


def at(found, signal, rung=0):
    return next(one for one in found if one.signal == signal and one.rung == rung)


def low_rate_is_good(rate, batch):
    return -math.log(rate)


def test_positive_means_that_high_goes_with_a_better_result_in_either_direction():
    records = grid(low_rate_is_good, loss=low_rate_is_good)

    assert at(evidence_of(records, direction="maximize"), "loss").overall.rho > 0.9
    assert at(evidence_of(records, direction="minimize"), "loss").overall.rho < -0.9


def test_a_signal_that_only_repeats_the_rate_adds_nothing_to_it():
    draw = noise(0)
    records = grid(
        lambda r, b: low_rate_is_good(r, b) + 0.5 * draw(r, b),
        loss=lambda r, b: low_rate_is_good(r, b) + 0.5 * draw(r, b),
    )

    evidence = at(evidence_of(records, direction="maximize"), "loss")

    assert evidence.overall.sign == 1
    assert evidence.partial.sign == 0
    assert evidence.by_rate.rho > 0.8
    assert in_words(evidence).endswith("but adds nothing to the rate and the batch size")


def test_a_signal_that_says_more_than_the_rate_is_said_to_add_to_it():
    hidden = {(r, b): noise(int(1e6 * r) + b)(r, b) for b in BATCHES for r in RATES}
    records = grid(lambda r, b: hidden[r, b], loss=lambda r, b: -hidden[r, b])

    words = in_words(at(evidence_of(records, direction="maximize"), "loss"))

    assert words.startswith(
        "at 10 % of the budget, low loss goes with a better result (1.00, 1.00 to 1.00, 18 trials)"
    )
    assert "and adds to the rate and the batch size" in words


def test_noise_is_said_to_be_nothing_sure():
    records = grid(noise(1), loss=noise(2))

    assert "loss says nothing sure about the result" in in_words(
        at(evidence_of(records, direction="maximize"), "loss")
    )


def test_correlation_within_one_rate_is_that_of_the_batches_alone():
    falling = np.array([4.0, 3, 2, 1, 0, 9, 8, 7, 6])  # within each group; overall it rises
    result = within_groups(np.arange(9.0), falling, np.array([0] * 5 + [1] * 4), seed=0)

    assert result.rho == -1.0
    assert result.n == 9


def test_groups_too_small_to_say_anything_are_left_out():
    values = np.arange(6.0)

    assert within_groups(values, values, np.array([0, 0, 0, 1, 1, 1]), seed=0) is None


def test_partial_correlation_of_what_the_others_explain_is_none_or_unsure():
    x = np.arange(12.0)

    assert partial(x, x, x[:, None], seed=0) is None


def test_a_correlation_of_draws_is_that_of_ranking_each_of_them():
    rng = np.random.default_rng(0)
    x, y, draws = rng.normal(size=40), rng.integers(0, 4, size=40) * 1.0, rng.integers(0, 40, size=(20, 40))

    assert _rank_rho(x, y, draws) == pytest.approx([spearmanr(x[draw], y[draw]).statistic for draw in draws])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    truth, hits = 0.58, 0  # Spearman's correlation of normals with 0.6: 6 / pi * asin(0.3)
    for seed in range(60):
        draw = np.random.default_rng(seed)
        x = draw.normal(size=30)
        y = 0.6 * x + 0.8 * draw.normal(size=30)
        found = spearman(x, y, seed=seed)
        hits += found.low <= truth <= found.high

    assert hits >= 50


def test_one_trial_that_differs_from_all_others_is_nothing_sure():
    y = np.random.default_rng(0).normal(size=20)
    x = (y == y.max()).astype(float)

    found = spearman(x, y, seed=0)

    assert found.rho > 0.3
    assert found.sign == 0


@pytest.mark.parametrize("n", [6, 7, 8])
def test_few_independent_trials_seldom_look_sure(n):
    draw = np.random.default_rng(n)
    found = [spearman(draw.normal(size=n), draw.normal(size=n), seed=seed) for seed in range(200)]

    assert sum(one.sign != 0 for one in found) <= 14


def test_the_same_seed_gives_the_same_interval():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=12), draw.normal(size=12)

    assert spearman(x, y, seed=3) == spearman(x, y, seed=3)
    assert spearman(x, y, seed=3) != spearman(x, y, seed=4)


def test_too_few_trials_have_no_evidence():
    assert evidence_of(grid(noise(1), loss=noise(2))[:5], direction="maximize") == []


def test_only_finished_trials_count():
    records = grid(low_rate_is_good, loss=low_rate_is_good)
    for record in records[:9]:
        record.state, record.value = TrialState.PRUNED, None

    assert at(evidence_of(records, direction="maximize"), "loss").overall.n == 9


def test_a_nan_signal_is_left_out():
    records = grid(low_rate_is_good, loss=lambda r, b: math.nan if r > 5e-3 else low_rate_is_good(r, b))

    assert at(evidence_of(records, direction="maximize"), "loss").overall.n == 15


def test_all_signals_of_a_rung_lie_at_its_mark_whatever_trials_have_them():
    norms = noise(3)
    records = grid(noise(1), loss=noise(2), grad_norm=lambda r, b: math.nan if b == 8 else norms(r, b))
    for record in records:
        record.rungs[0] = dataclasses.replace(
            record.rungs[0], samples=-(-100 // record.params["effective_batch_size"]) * 128
        )

    found = evidence_of(records, direction="maximize")

    assert {(one.rung, one.place) for one in found} == {(0, "10 %"), (1, "30 %")}


def test_a_mark_in_steps_lies_at_its_part_of_the_steps():
    records = grid(noise(1), loss=noise(2))
    for record in records:
        record.total_steps = 50
        record.rungs[0] = dataclasses.replace(record.rungs[0], mark=5, step=5)

    assert at(evidence_of(records, direction="maximize"), "loss").place == "10 %"


def test_slopes_between_rungs_are_signals_of_their_own():
    found = evidence_of(grid(low_rate_is_good, loss=low_rate_is_good), direction="maximize")

    assert at(found, "loss slope", rung=1).overall.rho > 0.9


@pytest.mark.parametrize("signal_squared", [0.5, 2.0])
def test_the_norm_without_noise_is_the_one_that_two_batch_sizes_share(signal_squared):
    records = grid(
        noise(0),
        grad_norm=lambda r, b: math.sqrt(signal_squared * (1 - math.log10(r)) + 40.0 / b),
    )  # |g_B|^2 = |G|^2 + S / B: McCandlish et al., arXiv:1812.06162, A.2

    found = evidence_of([r for r in records if r.params["effective_batch_size"] != 32], direction="maximize")

    by_rate = at(found, DENOISED_NORM)
    assert by_rate.by_rate is not None
    from sweeper.pruners.evidence import denoised_norms

    norms = np.array([r.rungs[0].signals["grad_norm"] for r in records])
    expected = [signal_squared * (1 - math.log10(r.params["learning_rate"])) for r in records]
    assert denoised_norms(records, norms) == pytest.approx(expected)


def test_without_a_rate_there_is_no_comparison_with_it():
    records = grid(low_rate_is_good, loss=low_rate_is_good)
    for record in records:
        record.params = {"alpha": record.params["learning_rate"]}

    evidence = at(evidence_of(records, direction="maximize"), "loss")

    assert (evidence.partial, evidence.by_rate, evidence.within_rate) == (None, None, None)
    assert in_words(evidence).endswith("18 trials)")


def test_evidence_survives_its_json():
    found = evidence_of(grid(low_rate_is_good, loss=low_rate_is_good), direction="maximize")

    assert [Evidence.from_dict(one.as_dict()) for one in found] == found


def test_a_signals_name_prints_no_escape_code_of_a_terminal(tmp_path):
    view = make_study(tmp_path, make_config()).view()
    found = evidence_of(grid(low_rate_is_good, **{"odd\x1b[2J": low_rate_is_good}), direction="maximize")
    view = dataclasses.replace(view, evidence=[one.as_dict() for one in found], state="finished")

    text = printed(view)
    assert "odd [2J" in text
    assert "\x1b" not in text


def test_early_rungs_of_a_long_training_are_told_apart_in_words_table_and_plot():
    records = grid(low_rate_is_good, loss=low_rate_is_good)
    for record in records:
        record.budget_samples = 100_000
    view = view_of(records)

    text = printed(view)
    assert "at 0.1 % of the budget, high loss goes with a better result" in text
    assert "at 0.3 % of the budget, high loss goes with a better result" in text
    assert [line.split()[:3] for line in text.splitlines()[3:5]] == [
        ["0.1", "%", "loss"],
        ["0.3", "%", "loss"],
    ]
    labels = evidence_figure(evidence_of_view(view), "score").layout["yaxis"]["ticktext"]
    assert {"0.1 %: loss", "0.3 %: loss"} <= set(labels)


def test_two_rungs_at_one_place_of_the_budget_keep_a_row_each_in_the_plot():
    found = evidence_of(grid(low_rate_is_good, loss=low_rate_is_good), direction="maximize")
    figure = evidence_figure([dataclasses.replace(one, frac=0.1) for one in found], "score")

    assert figure.layout["yaxis"]["ticktext"].count("10 %: loss") == 2
    assert len(figure.data[0]["x"]) == len(found)


def without_rungs(records, n):
    """Return the trials of which the first n came to no rung."""
    for record in records[:n]:
        record.rungs.clear()
    return records


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (
            grid(noise(1), loss=noise(2))[:4],
            "Too few trials have finished to say what an early signal is worth: 4 of the 6 that it takes.",
        ),
        (without_rungs(grid(noise(1), loss=noise(2)), 18), "none of the 18 complete trials came to the same rung"),
        (
            without_rungs(grid(noise(1), loss=noise(2)), 15),
            "no more than 3 of the 18 complete trials came to the same rung before their end, and it takes 6.",
        ),
        (grid(lambda r, b: 0.5, loss=noise(2)), "the 18 complete trials all ended with accuracy = 0.5."),
        (
            grid(noise(1), loss=lambda r, b: math.nan),
            "at no rung do a signal and the result both differ among 6 or more of the 18 complete trials.",
        ),
    ],
)  # fmt: skip
def test_why_there_is_no_evidence_is_said_as_it_is(records, why):
    assert why in nothing_to_tell(view_of(records))


def test_an_audit_is_told_where_there_is_no_evidence():
    records = grid(lambda r, b: 0.5, loss=noise(2))
    details = {"best": 0.5, "tolerance": 0.1, "chance": 0.01}
    records[0].decisions.append({"rule": "audit", "stop": False, "samples": 200, "details": details})
    view = view_of(records)

    told = "Audit: 0 of 1 condemned trials that went on proved the stop wrong"
    assert told in printed(view)
    assert told in evidence_section(view, findings_of(view), lambda figure: "")


@pytest.mark.parametrize(
    ("n_lost", "told"),
    [
        (0, "Audit: 0 of 2 condemned trials that went on proved the stop wrong (0 % to 84 %), at 0 samples."),
        (1, "at 0 samples. 1 more was stopped or failed before the end, which tells nothing of the stop."),
        (2, "at 0 samples. 2 more were stopped or failed before the end, which tells nothing of the stop."),
    ],
)
def test_audited_trials_that_did_not_come_to_their_end_are_told_apart(n_lost, told):
    records = grid(lambda r, b: 0.5, loss=noise(2))
    details = {"best": 0.5, "tolerance": 0.1, "chance": 0.01}
    for record in records[: 2 + n_lost]:
        record.decisions.append(
            {"rule": "audit", "stop": False, "samples": record.samples, "details": details}
        )
    for record in records[2 : 2 + n_lost]:
        record.state, record.value = TrialState.FAIL, None
    view = view_of(records)

    assert audit_sentence(view).endswith(told)
    assert evidence_json(view)["audit"]["n_unknown"] == n_lost


@pytest.mark.parametrize(("state", "n"), [("finished", 9), ("running", 18), ("interrupted", 18)])
def test_evidence_that_was_kept_is_told_until_the_study_is_extended(state, n):
    records = grid(low_rate_is_good, loss=low_rate_is_good)
    kept = tuple(one.as_dict() for one in evidence_of(records[:9], direction="maximize"))

    found = evidence_of_view(view_of(records, evidence=kept, state=state))

    assert at(found, "loss").overall.n == n
