"""Recorded sweeps: from a study, as files, and what is refused."""

import dataclasses
import math

import pytest
import trial_functions
from recorded_sweeps import make_point, make_recorded
from sweep_files import write_jsonl
from sweeps import make_config, make_orchestrator, make_study, reopened

from sweeper.errors import ConfigError
from sweeper.executors.in_process import InProcessExecutor
from sweeper.plan import plan_longer
from sweeper.records import Origin, TrialState
from sweeper.study.recorded import record_study, seed_sd
from sweeper.study.recorded_files import load_recorded, write_recorded


def run_study(directory, function=trial_functions.steady, slots=1, **changes):
    study = make_study(directory, make_config(**changes))
    InProcessExecutor(slots=slots, function=function).run(make_orchestrator(study))
    return study


@pytest.mark.parametrize("name", ["sweep.parquet", "sweep.jsonl"])
def test_a_recorded_sweep_reads_back_as_it_was_written(name, tmp_path):
    sweep = make_recorded([0.25, 0.75, 0.5], seed_sd=0.0625)

    write_recorded(sweep, tmp_path / name)

    back = load_recorded(tmp_path / name)
    assert (back.name, back.metric, back.direction, back.seed_sd) == ("made-up", "score", "maximize", 0.0625)
    for was, now in zip(sweep.points, back.points, strict=True):
        assert dict(now.params) == was.params
        assert (now.value, now.metrics, now.measured) == (was.value, was.metrics, was.measured)
        assert now.seconds == pytest.approx(was.seconds)
        assert [row.samples for row in now.rows] == [row.samples for row in was.rows]
        assert [row.loss for row in now.rows] == pytest.approx([row.loss for row in was.rows], rel=1e-6)


@pytest.mark.parametrize("name", ["sweep.parquet", "sweep.jsonl"])
def test_a_diverged_point_keeps_its_nan_its_budget_and_no_value(name, tmp_path):
    sweep = make_recorded([0.5, 0.75])
    broken = make_point(2, 0.9, nan_at=60)

    write_recorded(dataclasses.replace(sweep, points=(*sweep.points, broken)), tmp_path / name)

    point = load_recorded(tmp_path / name).points[2]
    assert math.isnan(point.value)
    assert math.isnan(point.rows[-1].loss)
    assert (point.rows[-1].samples, point.budget_samples, point.metrics) == (60, 100, {})


def test_a_signal_that_was_not_recorded_stays_absent(tmp_path):
    point = make_point(0, 0.5)
    rows = tuple(row._replace(grad_norm=None) for row in point.rows)
    sweep = dataclasses.replace(make_recorded([0.5]), points=(dataclasses.replace(point, rows=rows),))

    write_recorded(sweep, tmp_path / "sweep.parquet")

    back = load_recorded(tmp_path / "sweep.parquet")
    assert back.points[0].rows[0].grad_norm is None
    assert back.signals == ("loss", "score")


def test_a_finished_study_is_a_recorded_sweep(tmp_path):
    study = run_study(tmp_path)

    sweep = record_study(reopened(study))

    assert [point.value for point in sweep.points] == [
        trial_functions.value_of(point.params) for point in sweep.points
    ]
    assert [(at.samples, set(at.metrics)) for at in sweep.points[0].measured] == [
        (20, {"score"}),
        (50, {"score"}),
    ]
    assert sweep.points[2].rows == tuple(study.curves.rows(2))
    assert (sweep.points[0].budget_samples, sweep.points[0].total_steps, sweep.left_out) == (100, 10, 0)


def test_trials_that_were_stopped_by_comparison_are_left_out(tmp_path):
    pruner = {"signals": {"loss": {"direction": "minimize"}}, "min_peers": 2, "keep_frac": 0.3}
    space = {"learning_rate": {"grid": [1e-3, 1e-4, 1e-5, 1e-2]}}
    study = run_study(tmp_path, slots=4, pruner=pruner, search_space=space)

    sweep = record_study(study)

    assert sweep.left_out == 4 - len(sweep.points) > 0


def test_a_trial_that_trains_another_one_on_is_no_point(tmp_path):
    study = run_study(tmp_path)
    longer = plan_longer(study.config, study.records()[2].params, samples=200)
    number = study.add_trial(longer, Origin(by="somebody", continues=2))
    study.claim(number)
    study.finish(number, TrialState.COMPLETE, value=9.0)

    sweep = record_study(reopened(study))

    assert [point.number for point in sweep.points] == [0, 1, 2, 3]
    assert sweep.left_out == 0


def test_trials_that_diverged_stay_as_points_without_a_value(tmp_path):
    study = run_study(tmp_path, trial_functions.diverges_at_high_rate)

    sweep = record_study(study)

    assert [math.isnan(point.value) for point in sweep.points] == [False, False, False, True]
    assert sweep.points[3].budget_samples == 100


def test_a_study_without_a_completed_trial_is_refused(tmp_path):
    study = make_study(tmp_path, make_config())

    with pytest.raises(ConfigError, match="has no point with a final `score`"):
        record_study(study)


def test_another_metric_of_the_same_runs_can_be_judged():
    sweep = make_recorded([0.25, 0.75], seed_sd=0.1).with_metric("other", "minimize")

    assert (sweep.best, sweep.seed_sd) == (-0.75, None)
    with pytest.raises(ConfigError, match=r"no final metric `speed`\. Choose one of score, other"):
        sweep.with_metric("speed")


def test_the_noise_between_seeds_is_that_of_the_better_half():
    first, second = make_recorded([0.0, 0.1, 0.8, 0.9]), make_recorded([0.5, 0.6, 0.82, 0.88])

    assert seed_sd([first, second]) == pytest.approx(0.02 / math.sqrt(2))


def test_the_noise_of_sweeps_without_shared_points_is_refused():
    with pytest.raises(ConfigError, match="needs the same points under two seeds or more"):
        seed_sd([make_recorded([0.5])])


ROW = {"point": 0, "param.rate": 1e-3, "step": 1, "samples": 8, "loss": 2.0, "metric.score": 0.5}
FACTS = {"name": "mine", "metric": "score", "direction": "maximize"}


def test_curves_of_ones_own_need_only_the_documented_columns(tmp_path):
    rows = [{**ROW, "point": name, "param.rate": rate} for name, rate in (("a", 1e-3), ("b", 1e-2))]

    sweep = load_recorded(write_jsonl(tmp_path / "own.jsonl", [{"direction": "minimize"}, *rows]))

    assert (sweep.name, sweep.metric, sweep.best, len(sweep.points)) == ("own", "score", 0.5, 2)
    assert sweep.points[0].seconds == 8.0


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([FACTS], "needs the columns `point`, `step`, `samples`"),
        ([FACTS, {k: v for k, v in ROW.items() if k != "step"}], "needs the columns"),
        ([FACTS, ROW, {**ROW, "point": None}], "A row has no `point`"),
        ([FACTS, ROW, ROW], "The steps of point `0` do not grow"),
        ([FACTS, {**ROW, "loss": "low"}], "Point `0` has a value that is no number"),
        *(
            ([FACTS, {**ROW, key: "low"}], "Point `0` has a value that is no number")
            for key in ("step", "samples", "metric.score", "seconds", "budget_samples")
        ),
        ([FACTS, {**ROW, "point": [1, 2]}], r"`point` must be a number or a name, but got \[1, 2\]"),
        ([{**FACTS, "seed_sd": "small"}, ROW], "`seed_sd` must be a number, but got the text `small`"),
        ([{"metric": "speed", "direction": "maximize"}, ROW], "It holds no metric `speed`"),
        ([{"metric": "score"}, ROW], "It does not say whether more or less is better"),
        (
            [{"metric": "score", "direction": "up"}, ROW],
            "A direction is `minimize` or `maximize`, but got `up`",
        ),
        ([FACTS, [1, 2]], ":2: Each line must be a JSON object"),
    ],
)
def test_a_file_that_does_not_hold_what_the_schema_says_is_refused(lines, match, tmp_path):
    path = write_jsonl(tmp_path / "bad.jsonl", lines)

    with pytest.raises(ConfigError, match=match):
        load_recorded(path)


def test_a_file_that_is_no_parquet_no_json_or_not_there_is_refused(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    (tmp_path / "bad.jsonl").write_text('{"point": 0\n')

    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        load_recorded(tmp_path / "bad.parquet")
    with pytest.raises(ConfigError, match=r"bad\.jsonl:1: This line is no JSON"):
        load_recorded(tmp_path / "bad.jsonl")
    with pytest.raises(ConfigError, match="There is no file"):
        load_recorded(tmp_path / "absent.parquet")
    with pytest.raises(ConfigError, match=r"a \.parquet or a \.jsonl file"):
        load_recorded(tmp_path / "curves.csv")
