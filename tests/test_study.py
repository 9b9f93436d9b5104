"""The study is the truth: what is recorded is there for whoever opens it next."""

import json
import math
import os
import re

import optuna
import pytest
from sweep_files import BASE as FINETUNING
from sweep_files import config_of, replaced
from sweeps import BASE, make_config, make_orchestrator, make_study, merged, reopened

from sweeper import encoding
from sweeper.checkpoint import DirectoryCheckpoints
from sweeper.config import config_from_dict
from sweeper.errors import ConfigError, StudyMismatchError, SweeperError
from sweeper.plan import DataFacts, plan_point
from sweeper.records import Decision, Origin, Outcome, OutcomeKind, Report, RungRecord, StepRow, TrialState
from sweeper.step_rows import StepRows
from sweeper.study import space
from sweeper.study.changes import check_same
from sweeper.study.storage import JournalBackend, mask_url, open_storage
from sweeper.study.study import Study


def row(step, loss=1.0, norm=0.5):
    return StepRow(step, step * 10, step * 30, loss, norm, 1e-3)


def test_all_points_wait_from_the_first_second(tmp_path):
    study = make_study(tmp_path, make_config())

    records = reopened(study).records()
    assert [record.state for record in records.values()] == [TrialState.WAITING] * 4
    assert len({record.point_id for record in records.values()}) == 4


def test_what_was_recorded_is_there_after_reopening(tmp_path):
    study = make_study(tmp_path, make_config())
    study.claim(1)
    rung = RungRecord(rung=0, mark=20, step=2, samples=20, signals={"loss": math.nan, "score": 0.5})
    study.record_rung(1, rung)
    study.record_decision(
        1, 0, Decision(trial=1, stop=True, rule="nan", reason="diverged", samples=20).entry()
    )
    study.finish(1, TrialState.PRUNED, reason="diverged")

    record = reopened(study).records()[1]
    assert record.state is TrialState.PRUNED
    assert record.value is None
    assert record.reason == "diverged"
    assert record.rungs[0].signals["score"] == 0.5
    assert math.isnan(record.rungs[0].signals["loss"])
    assert record.decisions[0]["rule"] == "nan"


@pytest.mark.parametrize("sets", [{}, {"a": [4, 80], "b": [6, 20]}])
def test_what_was_counted_in_the_data_is_there_after_reopening(tmp_path, sets):
    study = make_study(tmp_path, make_config())
    facts = DataFacts(rows=10, target_tokens=100, sets=sets)
    study.set_facts(facts)

    assert reopened(study).facts() == facts


def test_the_metric_at_a_rung_is_optunas_intermediate_value_at_the_mark(tmp_path):
    study = make_study(tmp_path, make_config())
    study.claim(0)
    study.record_rung(0, RungRecord(rung=0, mark=25, step=3, samples=30, signals={"score": 0.5}))

    assert study.frozen_trials()[0].intermediate_values == {25: 0.5}


def test_the_stored_attributes_are_json_that_every_reader_accepts(tmp_path):
    study = make_study(tmp_path, make_config())
    study.claim(0)
    study.record_rung(0, RungRecord(rung=0, mark=20, step=2, samples=20, signals={"loss": math.inf}))

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in (tmp_path / "study.journal").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_plain_optuna_reads_the_study(tmp_path):
    study = make_study(tmp_path, make_config())
    storage = open_storage(None, tmp_path)

    loaded = optuna.load_study(study_name=study.name, storage=storage)

    assert [trial.params["learning_rate"] for trial in loaded.trials] == [1e-5, 1e-4, 1e-3, 1e-2]
    assert loaded.direction.name == "MAXIMIZE"


def test_a_trial_is_claimed_once(tmp_path):
    study = make_study(tmp_path, make_config())
    study.claim(0)

    with pytest.raises(StudyMismatchError, match="Trial 0 of study `made-up` was taken by another driver"):
        reopened(study).claim(0)


def test_another_search_space_is_refused_with_the_difference(tmp_path):
    study = make_study(tmp_path, make_config())
    changed = make_config(search_space={"learning_rate": {"grid": [1e-5, 1e-4]}})

    with pytest.raises(
        StudyMismatchError, match=r"`search_space.learning_rate.grid` was \[1e-05, 0.0001, 0.001, 0.01\]"
    ):
        check_same(study, changed)


def test_another_order_of_data_sets_is_refused_for_it_draws_other_rows(tmp_path):
    def mixing(sets):
        return config_of(replaced(FINETUNING, ("train_data: train.jsonl", f"data_sets: {{{sets}}}")))

    study = make_study(tmp_path, mixing("general: org/a, code: org/b"))

    check_same(study, mixing("general: org/a, code: org/b"))
    told = 'the order of `trial.data_sets` was ["general", "code"] and is now ["code", "general"]. Restore the old'
    with pytest.raises(StudyMismatchError, match=re.escape(told)):
        check_same(study, mixing("code: org/b, general: org/a"))


def test_resources_may_change(tmp_path):
    study = make_study(tmp_path, make_config())

    check_same(study, make_config(resources={"slots": 7}, failures={"retries": 3}))


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(StudyMismatchError, match=r"is not a study's directory: it holds no study\.json"):
        Study.open(str(tmp_path))


def test_a_torn_last_line_is_cut_before_the_next_append(tmp_path):
    study = make_study(tmp_path, make_config())
    study.claim(0)
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 9, "trial')

    again = reopened(study)
    again.claim(1)

    states = [record.state for record in reopened(again).records().values()]
    assert states == [TrialState.RUNNING, TrialState.RUNNING, TrialState.WAITING, TrialState.WAITING]
    assert journal.read_bytes().startswith(whole + b"{")


def test_optunas_own_backend_still_loses_a_study_with_a_torn_line(tmp_path):
    """The reason for ours. When this fails, Optuna mends it, and `JournalBackend` can go."""
    study = make_study(tmp_path, make_config())
    with open(tmp_path / "study.journal", "ab") as file:
        file.write(b'{"op_code": 9, "trial')
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    storage = optuna.storages.JournalStorage(backend)
    optunas_study = optuna.load_study(study_name=study.name, storage=storage)

    optunas_study.set_user_attr("a", 1)
    with pytest.raises(json.JSONDecodeError, match="delimiter"):
        optunas_study.set_user_attr("a", 2)


def test_a_damaged_line_inside_the_journal_is_named(tmp_path):
    study = make_study(tmp_path, make_config())
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = b"garbage\n"
    journal.write_bytes(b"".join(lines))

    with pytest.raises(SweeperError, match=r"study\.journal:3: the study's journal is damaged in this line"):
        reopened(study)


def test_a_journal_append_is_all_or_nothing_for_readers(tmp_path):
    backend = JournalBackend(tmp_path / "a.journal")
    backend.append_logs([{"a": 1}, {"b": 2}])
    with open(tmp_path / "a.journal", "ab") as file:
        file.write(b'{"c"')

    assert list(JournalBackend(tmp_path / "a.journal").read_logs(0)) == [{"a": 1}, {"b": 2}]
    assert list(backend.read_logs(1)) == [{"b": 2}]


def test_a_reader_of_the_journal_goes_on_where_it_left_off_whatever_it_is_asked_for_in_between(tmp_path):
    backend = JournalBackend(tmp_path / "a.journal")
    backend.append_logs([{"n": n} for n in range(4)])
    assert next(backend.read_logs(0)) == {"n": 0}  # and stops there

    assert [log["n"] for log in backend.read_logs(1)] == [1, 2, 3]
    assert [log["n"] for log in backend.read_logs(2)] == [2, 3]
    backend.append_logs([{"n": 4}])
    assert [log["n"] for log in backend.read_logs(4)] == [4]
    assert backend.n_read == 5


@pytest.mark.parametrize("n_trials", [1, 30])
def test_the_progress_of_all_trials_together_is_written_about_once_a_second(tmp_path, n_trials):
    now = [0.0]
    rates = [1e-5 * (1 + index) for index in range(n_trials)]
    study = make_study(tmp_path, make_config(search_space={"learning_rate": {"grid": rates}}))
    orchestrator = make_orchestrator(study, clock=lambda: now[0])
    specs = [orchestrator.next_trial() for _ in rates]
    before = len(list(study._storage.backend.read_logs(0)))

    for second in range(1, 61):
        now[0] = float(second)
        for spec in specs:
            steps = (StepRow(second, 1, 0, 1.0, 1.0, None),)
            orchestrator.on_report(spec.number, Report(rows=steps, train_s=now[0]))

    n_lines = len(list(study._storage.backend.read_logs(0))) - before
    assert 30 <= n_lines <= 60
    assert min(record.step for record in reopened(study).records().values()) >= 56 - n_trials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
    ],
)
def test_a_password_is_masked(url, shown):
    assert mask_url(url) == shown


def test_an_unreachable_database_is_a_config_error_without_its_password(tmp_path):
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/x", tmp_path)

    assert "secret" not in str(caught.value)
    assert "Check that the server runs" in str(caught.value)


def test_an_unknown_storage_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must start with postgresql://"):
        open_storage("redis://x", tmp_path)


def test_the_first_recorded_value_of_a_rung_stays(tmp_path):
    study = make_study(tmp_path, make_config())
    first = make_orchestrator(study)
    spec = first.next_trial()
    first.on_report(spec.number, Report(rows=tuple(row(s, loss=5.0) for s in range(1, 4))))
    first.on_lost(spec.number, "died")

    again = make_orchestrator(reopened(study))
    assert again.next_trial().number == spec.number
    again.on_report(spec.number, Report(rows=tuple(row(s, loss=1.0) for s in range(1, 4))))

    assert reopened(study).records()[0].rungs[0].signals["loss"] == 5.0


def test_a_curve_is_cut_where_the_trial_goes_on_from(tmp_path):
    study = make_study(tmp_path, make_config())
    first = make_orchestrator(study)
    spec = first.next_trial()
    saving = tmp_path / "saving"
    saving.mkdir()
    (saving / "a").write_text("a")
    name = DirectoryCheckpoints(tmp_path / "trials/0/checkpoints").save(saving, step=3, samples=30)
    first.on_report(spec.number, Report(rows=tuple(row(s) for s in range(1, 4)), checkpoint=name))
    first.on_report(spec.number, Report(rows=(row(4), row(5))))
    first.on_end(spec.number, Outcome(kind=OutcomeKind.STOPPED))
    assert len(study.curves.rows(0)) == 5

    make_orchestrator(reopened(study)).next_trial()

    assert [r.step for r in study.curves.rows(0)] == [1, 2, 3]


def test_what_was_added_to_a_curve_is_read_once_for_each_write(tmp_path):
    curves = make_study(tmp_path, make_config()).curves
    assert curves.rows_after(0, 0) == []  # it never reported
    curves.write(0, [row(step) for step in (1, 2, 3)])
    assert [r.step for r in curves.rows_after(0, 1)] == [2, 3]

    file = curves.path(0)
    content, stood = file.read_bytes(), file.stat()
    file.write_bytes(b"x" * len(content))  # whoever reads this notices
    os.utime(file, ns=(stood.st_atime_ns, stood.st_mtime_ns))
    assert curves.rows_after(0, 3) == []
    with pytest.raises(SweeperError, match="is damaged"):
        curves.rows_after(0, 2)  # a tracker that lost what it had

    curves.write(0, [row(step) for step in (1, 2, 3, 4)])
    assert curves.rows_after(0, 3) == curves.rows(0)[3:]


def test_a_long_curve_is_written_less_often_but_with_every_checkpoint(tmp_path):
    now = [0.0]
    study = make_study(tmp_path, make_config())
    orchestrator = make_orchestrator(study, clock=lambda: now[0])
    number, n_steps = orchestrator.next_trial().number, 60_000

    def on_disk(at_s, step, **facts):
        now[0] = at_s
        orchestrator.on_report(number, Report(rows=(row(step),), **facts))
        return study.curves.rows(number)[-1].step

    orchestrator.on_report(number, Report(rows=tuple(map(row, range(1, n_steps + 1))), checkpoint="1"))
    assert on_disk(5.9, n_steps + 1) == n_steps
    assert on_disk(6.1, n_steps + 2) == n_steps + 2
    assert on_disk(6.2, n_steps + 3, checkpoint="2") == n_steps + 3


def test_a_curve_is_not_written_again_by_an_interrupt_that_found_it_on_disk(tmp_path):
    study = make_study(tmp_path, make_config())
    orchestrator = make_orchestrator(study)
    spec = orchestrator.next_trial()
    orchestrator.interrupt()
    orchestrator.on_report(spec.number, Report(rows=(row(1), row(2)), checkpoint="2"))
    file = study.curves.path(spec.number).stat().st_ino  # a new one each time that it is replaced

    orchestrator.on_end(spec.number, Outcome(kind=OutcomeKind.STOPPED, report=Report(rows=())))
    assert study.curves.path(spec.number).stat().st_ino == file
    assert study.curves.rows(spec.number) == [row(1), row(2)]


def test_steps_that_came_after_an_interrupt_s_checkpoint_are_in_the_curve(tmp_path):
    study = make_study(tmp_path, make_config())
    orchestrator = make_orchestrator(study)
    spec = orchestrator.next_trial()
    orchestrator.interrupt()
    orchestrator.on_report(spec.number, Report(rows=(row(1), row(2)), checkpoint="2"))

    orchestrator.on_end(spec.number, Outcome(kind=OutcomeKind.STOPPED, report=Report(rows=(row(3),))))

    assert study.curves.rows(spec.number) == [row(1), row(2), row(3)]


def test_the_time_of_an_attempt_counts_though_its_driver_was_killed(tmp_path):
    now = [0.0]
    study = make_study(tmp_path, make_config())
    killed = make_orchestrator(study, clock=lambda: now[0])
    spec = killed.next_trial()
    now[0] = 100.0
    killed.on_report(spec.number, Report(rows=(row(1),), train_s=90.0, evaluation_s=9.0))

    found = reopened(study).records()[0]
    assert (found.train_s, found.evaluation_s) == (90.0, 9.0)

    again = make_orchestrator(reopened(study))
    assert again.next_trial().number == spec.number
    last = Report(rows=(row(1), row(2)), metrics={"score": 1.0}, train_s=10.0, evaluation_s=1.0)
    again.on_end(spec.number, Outcome(kind=OutcomeKind.DONE, report=last))

    found = reopened(study).records()[0]
    assert (found.attempts, found.train_s, found.evaluation_s) == (2, 100.0, 10.0)


def test_nan_and_missing_values_survive_in_a_curve(tmp_path):
    study = make_study(tmp_path, make_config())
    study.curves.write(0, [StepRow(1, 10, 0, math.nan, None, 1e-3), StepRow(2, 20, 0, math.inf, 2.0, None)])

    rows = study.curves.rows(0)
    assert math.isnan(rows[0].loss)
    assert rows[0].grad_norm is None
    assert rows[1] == StepRow(2, 20, 0, math.inf, 2.0, None)


@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_a_curve_is_the_same_from_rows_and_from_columns(tmp_path, n_rows):
    curves = make_study(tmp_path, make_config()).curves
    rows = [StepRow(1, 10, 0, -math.inf, None, 1e-3), row(2), StepRow(3, 30, 7, 0.1 + 0.2, 5e-324, None)]
    rows = rows[:n_rows]
    curves.write(0, rows)
    kept = StepRows(rows)
    curves.write(1, kept)
    kept.extend([row(4)])  # what was written looks into it no more

    assert curves.path(0).read_bytes() == curves.path(1).read_bytes()
    assert curves.rows(0) == curves.rows(1) == rows
    assert curves.frame(0).shape == (n_rows, 6)


@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc", "cmaes"])
def test_a_drawn_study_goes_on_as_the_uninterrupted_one(sampler, tmp_path):
    """Half of the draws, then a new process: the same points as in one go."""
    space = {"learning_rate": {"log_uniform": [1e-5, 1e-2]}, "other": {"uniform": [0.0, 1.0]}}
    changes = merged({"search_space": space}, {"sampler": {"name": sampler, "n_trials": 8}})

    def draw_all(directory, reopen_at):
        study = make_study(directory, config_from_dict({**BASE, **changes}))
        orchestrator = make_orchestrator(study)
        for number in range(8):
            if number == reopen_at:
                orchestrator = make_orchestrator(reopened(study))
            spec = orchestrator.next_trial()
            orchestrator.on_end(
                spec.number,
                Outcome(
                    kind=OutcomeKind.DONE, report=Report(rows=(), metrics={"score": spec.params["other"]})
                ),
            )
        assert orchestrator.is_done
        return [record.params for record in reopened(study).records().values()]

    assert draw_all(tmp_path / "one", None) == draw_all(tmp_path / "two", 4)


def test_a_point_that_is_drawn_again_is_not_trained_again(tmp_path):
    space = {"learning_rate": {"choice": [1e-4, 1e-3]}}
    study = make_study(tmp_path, make_config(search_space=space, sampler={"name": "random", "n_trials": 6}))
    orchestrator = make_orchestrator(study)
    while (spec := orchestrator.next_trial()) is not None:
        orchestrator.on_end(
            spec.number, Outcome(kind=OutcomeKind.DONE, report=Report(rows=(), metrics={"score": 1.0}))
        )

    records = reopened(study).records().values()
    assert sum(record.state is TrialState.COMPLETE for record in records) == 2
    assert all("the same point as trial" in r.reason for r in records if r.state is TrialState.PRUNED)
    assert len(records) == 6


def test_a_point_that_was_drawn_again_is_not_trained_again_though_the_driver_died_in_between(tmp_path):
    space = {"learning_rate": {"choice": [1e-4]}}
    study = make_study(tmp_path, make_config(search_space=space, sampler={"name": "random", "n_trials": 3}))
    orchestrator = make_orchestrator(study)
    done = Outcome(kind=OutcomeKind.DONE, report=Report(rows=(), metrics={"score": 1.0}))
    orchestrator.on_end(orchestrator.next_trial().number, done)
    # Entered, and not yet ended as a repeated one.
    study.draw(lambda params: plan_point(study.config, params))

    again = make_orchestrator(reopened(study))

    assert again.next_trial() is None
    records = reopened(study).records()
    states = [record.state for record in records.values()]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert records[1].reason == "the same point as trial 0: trained once"


def test_a_failed_point_that_was_claimed_again_is_trained_though_the_driver_died_in_between(tmp_path):
    study = make_study(tmp_path, make_config(failures={"retries": 0}))
    orchestrator = make_orchestrator(study)
    failed = orchestrator.next_trial().number
    orchestrator.on_end(failed, Outcome(kind=OutcomeKind.FAILED, error="boom"))
    point = plan_point(study.config, study.records()[failed].params)
    number = study.add_trial(point, Origin(by="somebody", retries=failed))
    study.claim(number)

    assert make_orchestrator(reopened(study)).next_trial().number == number


def test_a_point_that_was_added_is_not_drawn_again_however_its_numbers_are_written(tmp_path):
    drawn = {"x": {"choice": [1, 2.0]}}
    study = make_study(tmp_path, make_config(search_space=drawn, sampler={"name": "random", "n_trials": 9}))
    for x in (1.0, 2):
        study.add_trial(plan_point(study.config, {"x": x}), Origin(by="somebody"))
    orchestrator = make_orchestrator(reopened(study))
    while (spec := orchestrator.next_trial()) is not None:
        orchestrator.on_end(
            spec.number, Outcome(kind=OutcomeKind.DONE, report=Report(rows=(), metrics={"score": 1.0}))
        )

    records = reopened(study).records()
    assert [n for n, record in records.items() if record.state is TrialState.COMPLETE] == [0, 1]
    assert len(records) == 2 + 5 + 1  # after five repeats one more is looked for at random, and there is none


@pytest.mark.parametrize(
    "value", [[1, {"a": None}], {"b": [True]}, "json:x", "json:[1]", "json", "", None, True, 1.5]
)
def test_a_choice_is_read_back_as_it_was_given(value, tmp_path):
    assert space.decode_choice(space.encode_choice(value)) == value
    config = make_config(search_space={"learning_rate": {"grid": [1e-3]}, "x": {"grid": [1, value]}})

    read = reopened(make_study(tmp_path, config)).records()[1].params["x"]
    assert (read, type(read)) == (value, type(value))


def test_a_drawn_choice_is_read_back_as_it_was_drawn(tmp_path):
    drawn = {"x": {"choice": [1, True, "json:x"]}}
    study = make_study(tmp_path, make_config(search_space=drawn, sampler={"name": "random", "n_trials": 9}))
    given = []
    orchestrator = make_orchestrator(study)
    while (spec := orchestrator.next_trial()) is not None:
        given.append(repr(spec.params["x"]))

    kept = [r.params["x"] for r in reopened(study).records().values() if r.state is TrialState.RUNNING]
    assert [repr(value) for value in kept] == given
    assert sorted(given) == ["'json:x'", "1", "True"]


def test_text_that_an_older_study_did_not_mark_is_read_as_it_stands():
    assert space.decode_choice("json:x") == "json:x"


def test_encoding_returns_what_went_in():
    rung = RungRecord(
        rung=1, mark=20, step=2, samples=24, signals={"a": math.inf, "b": -math.inf, "c": 1e-300}
    )

    assert encoding.decode_rung(json.loads(json.dumps(encoding.encode_rung(rung)))) == rung
