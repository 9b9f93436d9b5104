"""The Python surface as a user's script calls it: what is found by its name, what is refused instead of ignored."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sweeps import BROUGHT, make_config, make_study, merged

from sweeper import api
from sweeper.api import LaunchOptions
from sweeper.config import config_from_dict
from sweeper.errors import ConfigError, StudyMismatchError, SweeperError


def fails(_: Any) -> str:
    return "good"


def test_the_package_shows_and_has_what_users_need_before_anything_imported_it() -> None:
    code = (
        "import sys, sweeper\n"
        "print({'errors', 'launch', 'load_study', 'pruners', 'resume'} <= set(dir(sweeper)), 'optuna' in sys.modules)\n"
        "print(sweeper.errors.ConfigError.exit_code, sweeper.pruners.EarlyDynamicsPruner.__name__)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True False\n2 EarlyDynamicsPruner\n"


@pytest.mark.parametrize("name", ["local", "in_process", "Ray"])
def test_an_executor_that_there_is_not_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError) as told:
        LaunchOptions(executor=name)

    assert str(told.value) == (
        f"`LaunchOptions.executor` must be `ray` or `in-process`, but got `{name}`. `in-process` runs the trials in "
        "this process, without Ray."
    )


class Watches:
    def on_event(self, event: Any) -> None:
        """Take note of nothing."""


@pytest.mark.parametrize(
    ("listeners", "told"),
    [
        (Watches(), "`listeners` must be a list, but got <"),
        ("rich", "`listeners` must be a list, but got 'rich'"),
        (
            [print],
            "A listener must be an object with a method `on_event(event)`, but got <built-in function print>",
        ),
        ([Watches], "A listener must be an object with a method `on_event(event)`, but got <class"),
    ],
)
def test_what_cannot_listen_is_refused_before_there_is_a_study(
    tmp_path: Path, listeners: Any, told: str
) -> None:
    config = config_from_dict(merged(BROUGHT, {"dir": str(tmp_path / "study")}))

    with pytest.raises(TypeError, match=re.escape(told)):
        api.launch(config, function=fails, listeners=listeners)
    with pytest.raises(TypeError, match=re.escape(told)):
        api.resume(str(tmp_path / "study"), listeners=listeners)

    assert not (tmp_path / "study").exists()


def test_one_override_may_stand_alone() -> None:
    assert config_from_dict(BROUGHT, overrides="seed=7").seed == 7


def test_the_curve_of_a_trial_that_there_is_not_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path / "study", make_config())

    view = api.load_study(tmp_path / "study")

    assert view.curve(3).empty  # it waits
    with pytest.raises(StudyMismatchError, match="has no trial 99: its trials are 0 to 3"):
        view.curve(99)


@pytest.mark.parametrize("in_row", [2, 9])
def test_a_reason_that_is_a_sentence_ends_with_one_full_stop(tmp_path: Path, in_row: int) -> None:
    failures = {"retries": 0, "max_consecutive": in_row}
    config = merged(BROUGHT, {"dir": str(tmp_path / "study"), "failures": failures})

    with pytest.raises(SweeperError, match=r"a mapping of names to numbers\. ") as told:
        api.launch(config, options=LaunchOptions(executor="in-process"), function=fails)

    assert ".." not in str(told.value)


def test_a_name_that_is_no_study_is_told_where_studies_are_looked_for() -> None:
    with pytest.raises(StudyMismatchError) as told:
        api.load_study("nope")

    assert str(told.value) == (
        "`nope` is not a study's directory: it holds no study.json. Give the directory that `sweeper launch` printed, "
        "the name of a study in studies/, or its name with `--storage URL`."
    )
