"""The cluster that a study was trained on last: joined again where it is wanted, and left where it is not."""

import dataclasses
from pathlib import Path

import pytest
import trial_functions
from report_fixtures import view_of_16
from sweeps import make_config

from sweeper.api import LaunchOptions, launch, resume
from sweeper.errors import ConfigError, InterruptedSweepError, NothingToDoError
from sweeper.events import Event, EventKind
from sweeper.readiness import with_options
from sweeper.reporting.best import best_yaml
from sweeper.study.study import Study

GONE = "127.0.0.1:9"


class StopAfterFirst:
    """Ends the driver once the first trial has ended."""

    def on_event(self, event: Event) -> None:
        if event.kind is EventKind.TRIAL_ENDED:
            raise KeyboardInterrupt


def options(place: Path, *, address: str | None = None) -> LaunchOptions:
    return LaunchOptions(dir=str(place), executor="in-process", address=address)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A study of which one trial is trained, on a cluster that is gone."""
    place = tmp_path / "s"
    with pytest.raises(InterruptedSweepError):
        launch(
            make_config(),
            options=options(place),
            function=trial_functions.steady,
            listeners=[StopAfterFirst()],
        )
    study = Study.open(str(place))
    study.update_config(with_options(study.config, LaunchOptions(address=GONE)))
    return place


def go_on(place: Path, *overrides: str, address: str | None = None) -> str | None:
    """Resume a study to its end; return the address that it has then."""
    there = LaunchOptions(executor="in-process", address=address)
    view = resume(str(place), overrides, options=there, function=trial_functions.steady)
    assert view.state == "finished"
    return view.config.resources.address


def test_the_in_process_executor_joins_no_cluster_and_leaves_the_address(begun: Path) -> None:
    assert go_on(begun) == GONE


def test_local_is_this_machine_from_now_on(begun: Path) -> None:
    assert go_on(begun, address="local") is None
    assert GONE not in (begun / "sweep.yaml").read_text()


def test_a_sweep_file_without_a_cluster_says_that_it_leaves_it(
    begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(make_config(), options=options(begun), function=trial_functions.steady)

    told = f"ran on the cluster at {GONE}; trials run on this machine now. `--address {GONE}` joins it again."
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("override", "address"), [("resources.address=null", None), (None, "local")])
def test_a_finished_study_forgets_its_cluster_too(
    override: str | None, address: str | None, begun: Path
) -> None:
    assert go_on(begun) == GONE

    with pytest.raises(NothingToDoError, match=r"left to train\. The changed settings are kept"):
        go_on(begun, *([override] if override else []), address=address)

    study = Study.open(str(begun))
    assert (study.config.resources.address, study.state()) == (None, "finished")
    assert GONE not in (begun / "sweep.yaml").read_text()
    with pytest.raises(NothingToDoError, match=r"left to train\. `sweeper report"):
        go_on(begun, *([override] if override else []), address=address)


def test_a_cluster_for_trials_of_this_process_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"`--address 127\.0\.0\.1:9` joins a cluster, but `--executor in-process`"
    ):
        launch(make_config(), options=options(tmp_path / "s", address=GONE), function=trial_functions.steady)
    assert not (tmp_path / "s").exists()


def test_best_yaml_names_the_cluster_for_its_reader_alone() -> None:
    view = view_of_16()
    assert view.best is not None
    view = dataclasses.replace(view, config=with_options(view.config, LaunchOptions(address=GONE)))
    text = best_yaml(view, view.best)

    assert f"# On a cluster, as the sweep: --address {GONE}\n" in text
    assert "\n  address: " not in text
