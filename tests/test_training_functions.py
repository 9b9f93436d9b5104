"""A user's own trial function."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_fixtures import RecordingChannel

from sweeper.checkpoint import DirectoryCheckpoints
from sweeper.context import TrialContext, TrialStopped
from sweeper.errors import ConfigError, SweeperError
from sweeper.training.functions import load_function, run_function
from sweeper.trial_spec import TrialSpec


def context(
    tmp_path: Path, *, metric: str = "score", channel: RecordingChannel | None = None
) -> TrialContext:
    spec = TrialSpec(
        number=0, attempt=1, study="s", params={}, settings={}, trial={}, seed=0, budget_samples=10,
        total_steps=10, micro_batch_size=1, gradient_accumulation_steps=1, marks=(), evaluation_marks=(),
        checkpoint_marks=(), metric=metric,
    )  # fmt: skip
    return TrialContext(
        spec=spec, channel=channel or RecordingChannel(), checkpoint=DirectoryCheckpoints(tmp_path / "c")
    )


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        (tmp_path / f"{name}.py").write_text(text)
        return tmp_path

    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    return write


def test_a_function_beside_the_sweep_file_is_found(module: Callable[[str, str], Path]) -> None:
    directory = module("beside_sweep", "def train(context):\n    return 1.5\n")
    assert load_function("beside_sweep:train", directory=directory)(None) == 1.5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("fine_a:missing", "x = 1\n", "has no `missing`"),
        ("fine_b:x", "x = 1\n", "holds a value, not a function, as `x`"),
        ("fine_c:train", "1 / 0\n", "importing `fine_c` failed with ZeroDivisionError"),
        ("fine_d:train", "import no_such_library\n", "imports `no_such_library`, which is not installed"),
        ("fine_e:train", "def train(:\n", "failed with SyntaxError"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_explained(
    module: Callable[[str, str], Path], name: str, text: str, said: str
) -> None:
    directory = module(name.partition(":")[0], text)
    with pytest.raises(ConfigError, match=said):
        load_function(name, directory=directory)


def test_a_missing_module_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no module `no_such_module`"):
        load_function("no_such_module:train")


@pytest.mark.parametrize("name", ["train", "a.b", ":f", "m:"])
def test_a_name_without_a_module_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be written as `module:function`"):
        load_function(name)


def test_a_returned_number_is_the_study_s_metric(tmp_path: Path) -> None:
    assert run_function(lambda _: 3, context(tmp_path)) == {"score": 3.0}


def test_a_returned_mapping_is_taken_over_what_was_reported(tmp_path: Path) -> None:
    def train(trial: TrialContext) -> dict[str, float]:
        trial.report(step=1, samples=1, loss=1.0, score=1.0, other=2.0)
        return {"score": 5.0}

    assert run_function(train, context(tmp_path)) == {"score": 5.0, "other": 2.0}


def test_without_a_return_the_last_reported_metric_counts(tmp_path: Path) -> None:
    def train(trial: TrialContext) -> None:
        trial.report(step=1, samples=1, score=1.0)
        trial.report(step=2, samples=2, score=0.5)

    assert run_function(train, context(tmp_path)) == {"score": 0.5}


def test_a_study_of_the_loss_takes_the_last_reported_loss(tmp_path: Path) -> None:
    def train(trial: TrialContext) -> None:
        trial.report(step=1, samples=1, loss=2.0)
        trial.report(step=2, samples=2, loss=1.0)

    assert run_function(train, context(tmp_path, metric="loss")) == {"loss": 1.0}


def test_any_other_return_is_refused(tmp_path: Path) -> None:
    def train(_: TrialContext) -> Any:
        return "good"

    with pytest.raises(
        SweeperError, match="returned 'good', but must return nothing, a number, or a mapping"
    ):
        run_function(train, context(tmp_path))


def yields(trial: TrialContext) -> Any:
    yield trial.report(step=1, samples=1, score=1.0)


async def yields_later(trial: TrialContext) -> Any:
    yield trial.report(step=1, samples=1, score=1.0)


async def waits(trial: TrialContext) -> None:
    trial.report(step=1, samples=1, score=1.0)


@pytest.mark.filterwarnings("ignore:coroutine 'waits' was never awaited:RuntimeWarning")  # nor is it to be
@pytest.mark.parametrize("train", [yields, yields_later, waits])
def test_a_function_that_would_not_run_by_being_called_is_refused_with_what_to_do(
    tmp_path: Path, train: Callable[[TrialContext], Any]
) -> None:
    with pytest.raises(
        SweeperError, match=r"Write it without `yield` and `async`, and report by `context\.report`"
    ):
        run_function(train, context(tmp_path))


def test_a_told_stop_goes_through(tmp_path: Path) -> None:
    channel = RecordingChannel()
    channel.stop.set()

    with pytest.raises(TrialStopped):
        run_function(lambda trial: trial.report(step=1, samples=1), context(tmp_path, channel=channel))
