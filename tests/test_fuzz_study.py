"""Damaged files of a study: a message or a study that is as it was earlier, never a traceback or a wrong value."""

import json
import shutil
from pathlib import Path

import pytest
import trial_functions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweeps import make_config, make_orchestrator, make_study

from sweeper.checkpoint import DirectoryCheckpoints
from sweeper.config import config_from_dict, parse_config
from sweeper.errors import SweeperError
from sweeper.executors.in_process import InProcessExecutor
from sweeper.records import StepRow
from sweeper.reporting.status import status_json
from sweeper.study.curves import CurveStore
from sweeper.study.study import Study

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small study that has run to its end, and what its status says after every line of its journal."""
    directory = tmp_path_factory.mktemp("finished") / "study"
    study = make_study(directory, make_config())
    InProcessExecutor(slots=2, function=trial_functions.steady).run(make_orchestrator(study))
    return directory


def look_at(directory):
    """Read all that a study shows, as `status` and `report` do."""
    view = Study.open(str(directory)).view()
    json.dumps(status_json(view))
    return {record.number: (str(record.state), record.value, record.reason) for record in view.records}


def copy_of(finished, tmp_path, name="study"):
    place = tmp_path / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(finished, place)
    return place


def damaged(content, position, mask, *, cut):
    at = position % len(content)
    return content[:at] if cut else content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


POSITION = st.integers(min_value=0, max_value=2**31)
MASK = st.integers(min_value=1, max_value=255)


@QUICK
@given(position=POSITION)
def test_a_truncated_journal_is_an_earlier_state_or_a_message(finished, tmp_path, position):
    study = copy_of(finished, tmp_path)
    journal = study / "study.journal"
    whole = look_at(finished)
    journal.write_bytes(damaged(journal.read_bytes(), position, 0, cut=True))

    try:
        found = look_at(study)
    except SweeperError:
        return
    for number, (state, value, _) in found.items():
        assert value is None or (state, value) == whole[number][:2]


@QUICK
@given(position=POSITION, mask=MASK)
def test_a_flipped_byte_in_a_journal_is_a_message_or_one_changed_line(finished, tmp_path, position, mask):
    study = copy_of(finished, tmp_path)
    journal = study / "study.journal"
    journal.write_bytes(damaged(journal.read_bytes(), position, mask, cut=False))

    message = "Restore"
    try:
        look_at(study)
    except SweeperError as error:
        message = str(error)
    assert any(words in message for words in ("Restore", "no study", "not made by sweeper"))


@QUICK
@given(position=POSITION, mask=MASK, cut=st.booleans())
def test_a_damaged_study_json_is_a_message_or_means_the_same(finished, tmp_path, position, mask, cut):
    study = copy_of(finished, tmp_path)
    marker = study / "study.json"
    marker.write_bytes(damaged(marker.read_bytes(), position, mask, cut=cut))

    try:
        assert look_at(study) == look_at(finished)
    except SweeperError:
        return


ROWS = [StepRow(step, step * 8, step * 80, 1.0 / step, 2.0 / step, 1e-3) for step in range(1, 40)]


@QUICK
@given(position=POSITION, mask=MASK, cut=st.booleans())
def test_a_damaged_curve_is_a_message_or_the_same_curve(tmp_path, position, mask, cut):
    store = CurveStore(tmp_path)
    store.write(0, ROWS)
    path = store.path(0)
    path.write_bytes(damaged(path.read_bytes(), position, mask, cut=cut))

    try:
        found = store.rows(0)
    except SweeperError:
        return
    assert not cut
    assert found == ROWS


@QUICK
@given(
    position=POSITION,
    mask=MASK,
    cut=st.booleans(),
    file=st.sampled_from(["a.bin", "sub/b.bin", "MANIFEST.json"]),
)
def test_a_damaged_checkpoint_is_not_used(tmp_path, position, mask, cut, file):
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    store = DirectoryCheckpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        source = tmp_path / "source"
        (source / "sub").mkdir(parents=True)
        (source / "a.bin").write_bytes(bytes(range(50)) + bytes([step]))
        (source / "sub/b.bin").write_bytes(b"b" * 30)
        store.save(source, step=step, samples=step)
    path = tmp_path / "checkpoints/step-00000002" / file
    path.write_bytes(damaged(path.read_bytes(), position, mask, cut=cut))

    loaded = store.load()
    if loaded.step == 2:  # white space of the manifest, which says the same
        assert file == "MANIFEST.json"
        assert (loaded.path / "a.bin").read_bytes() == bytes(range(50)) + bytes([2])
        assert (loaded.path / "sub/b.bin").read_bytes() == b"b" * 30


SWEEP = """\
study: demo
metric: score
direction: maximize
trial: {function: "a:b", budget: {samples: 100}, settings: {effective_batch_size: 10}}
search_space: {learning_rate: {grid: [1e-5, 1e-4]}}
pruner: {name: early_dynamics, keep_frac: 0.5}
"""


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_sweep_file_is_read_or_refused_with_a_message(data):
    text = SWEEP
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(at, min(len(text), at + 8)))
        text = text[:at] + data.draw(st.text(max_size=6)) + text[end:]
    try:
        parse_config(text, file="sweep.yaml", base_dir=Path("nowhere"), check_files=False)
    except SweeperError:
        return


@settings(max_examples=150)
@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["study", "trial", "search_space", "grid", "budget", "metric", "x"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_mapping_is_a_config_or_refused_with_a_message(content):
    try:
        config_from_dict(content if isinstance(content, dict) else {"study": content})
    except SweeperError:
        return
