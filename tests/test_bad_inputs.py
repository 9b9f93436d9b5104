"""Bad inputs by the real command line: each is told in one message with value, place and remedy, and nothing starts."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_fixtures import SWEEP, TESTS, Run, another_user, cli, command, fingerprint, write_sweep

TINY = TESTS.parent / "examples" / "tiny"
CLOSED = "127.0.0.1:1"  # nobody listens on port 1

BUILT_IN = f"""\
study: fine-tune
metric: dev/loss
direction: minimize
trial:
  model: {TINY}/model
  train_data: train.jsonl
  eval_data: {{dev: dev.jsonl}}
  budget: {{samples: 96}}
  settings: {{micro_batch_size: 8}}
search_space:
  learning_rate: {{grid: [1e-4, 1e-3]}}
  effective_batch_size: {{grid: [8, 16]}}
rungs: {{samples: [32]}}
pruner: early_dynamics
resources: {{slots: 2, gpus_per_trial: 0}}
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A right sweep file with edits, and what is told about it."""

    name: str
    edits: tuple[tuple[str, str], ...] = ()
    base: str = SWEEP
    extra: tuple[str, ...] = ()  # further words on the command line
    code: int = 2
    told: tuple[str, ...]  # each must stand in the message
    hidden: tuple[str, ...] = ()  # none may


def edited(old: str, new: str) -> tuple[tuple[str, str], ...]:
    return ((old, new),)


IN_THE_FILE = [
    Case(
        name="YAML that does not parse",
        edits=edited("study: made-up", "study: [made-up"),
        told=("sweep.yaml:", "YAML"),
    ),
    Case(
        name="a key that stands twice",
        edits=edited("direction: maximize", "direction: maximize\nmetric: score"),
        told=("sweep.yaml:4", "`metric`", "twice"),
    ),
    Case(
        name="a key that nobody knows",
        edits=edited("rungs:", "rugns:"),
        told=("sweep.yaml:10: unknown key `rugns`. Did you mean `rungs`?",),
    ),
    Case(
        name="a value of another type",
        edits=edited("{samples: 100}", "{samples: many}"),
        told=("sweep.yaml:6: `trial.budget.samples` must be a whole number, but got the text `many`.",),
    ),
    Case(
        name="a rate of 0",
        base=BUILT_IN,
        edits=edited("grid: [1e-4, 1e-3]", "grid: [0, 1e-3]"),
        told=("sweep.yaml:11", "greater than 0, but got 0. Choose a larger value."),
    ),
    Case(
        name="a rate that is NaN",
        base=BUILT_IN,
        edits=edited("grid: [1e-4, 1e-3]", "grid: [.nan, 1e-3]"),
        told=("sweep.yaml:11", "finite number, but got nan", "Remove"),
    ),
    Case(
        name="a negative rate",
        base=BUILT_IN,
        edits=edited("grid: [1e-4, 1e-3]", "grid: [1e-4, -1e-3]"),
        told=("sweep.yaml:11", "greater than 0, but got -0.001"),
    ),
    Case(
        name="a grid without values",
        edits=edited("grid: [1e-5, 1e-4, 1e-3, 1e-2]", "grid: []"),
        told=("sweep.yaml:9: `search_space.learning_rate.grid` must not be empty", "Give"),
    ),
    Case(
        name="a value that stands twice in a grid",
        edits=edited("1e-3, 1e-2]", "1e-3, 0.001]"),
        told=("sweep.yaml:9", "holds 0.001 twice", "Remove"),
    ),
    Case(
        name="a dimension of two kinds",
        edits=edited("{grid: [", "{choice: [1], grid: ["),
        told=("sweep.yaml:9", "exactly one of `grid`"),
    ),
    Case(
        name="a batch that cannot be cut",
        base=BUILT_IN,
        edits=edited("grid: [8, 16]", "grid: [8, 60]"),
        told=(
            "sweep.yaml:12: `effective_batch_size` must be a multiple",
            "got 60. Nearest valid values: 56 and 64.",
        ),
    ),
    Case(
        name="a budget below one step",
        base=BUILT_IN,
        edits=(("{samples: 96}", "{samples: 8}"), ("rungs: {samples: [32]}\n", "rungs: {samples: [4]}\n")),
        told=("The budget of 8 samples is less than one optimiser step of effective_batch_size = 16. Raise",),
    ),
    Case(
        name="a rung past the budget",
        edits=edited("[20, 50]", "[20, 500]"),
        told=("sweep.yaml:10: `rungs.samples`", "below the budget of 100 samples, but got"),
    ),
    Case(
        name="no model at this path",
        base=BUILT_IN,
        edits=edited(f"{TINY}/model", "./nowhere"),
        told=("sweep.yaml:5: `trial.model` names `./nowhere`", "does not exist. Correct the path"),
    ),
    Case(
        name="no data at this path",
        base=BUILT_IN,
        edits=edited("train_data: train.jsonl", "train_data: nothing.jsonl"),
        told=("sweep.yaml:6: `trial.train_data` names `nothing.jsonl`", "does not exist"),
    ),
    Case(
        name="data without a byte",
        base=BUILT_IN,
        edits=edited("train_data: train.jsonl", "train_data: empty.jsonl"),
        told=("sweep.yaml:6", "`empty.jsonl`", "is empty. Put rows into it or name another file."),
    ),
    Case(
        name="a pruner that nobody knows",
        edits=edited("pruner: nop", "pruner: medain"),
        told=("sweep.yaml:11: unknown pruner `medain`. Did you mean `median`?",),
    ),
    Case(
        name="a pruner's module that does not import",
        edits=edited("pruner: nop", "pruner: 'no_such_module:Pruner'"),
        told=("`pruner.name` no_such_module:Pruner does not import", "working directory"),
    ),
    Case(
        name="a class that is no pruner",
        edits=edited("pruner: nop", "pruner: 'my_pruner:NoPruner'"),
        told=("my_pruner:NoPruner is no optuna.pruners.BasePruner", "Derive"),
    ),
    Case(
        name="options that an own pruner does not take",
        edits=edited("pruner: nop", "pruner: {name: 'my_pruner:Pruner', options: {evry: 3}}"),
        told=("`pruner.options` do not fit pruner `my_pruner:Pruner`", "'evry'", "It takes `every`."),
    ),
    Case(
        name="options that an own pruner does not take, which does not tell what it takes",
        edits=edited("pruner: nop", "pruner: {name: 'my_pruner:Untold', options: {evry: 3}}"),
        told=("`pruner.options` do not fit pruner `my_pruner:Untold`", "'evry'."),
    ),
    Case(
        name="a number instead of a pruner",
        edits=edited("pruner: nop", "pruner: 'my_pruner:NUMBER'"),
        told=("my_pruner:NUMBER is no optuna.pruners.BasePruner", "Derive"),
    ),
    Case(
        name="options that Optuna's pruner does not take",
        edits=edited("pruner: nop", "pruner: {name: percentile, options: {percentile: 120}}"),
        told=("sweep.yaml:11: optuna's PercentilePruner does not take these options", "120"),
    ),
    Case(
        name="a metric that is missing where it is judged",
        base=BUILT_IN,
        edits=(
            ("pruner: early_dynamics", "pruner: median"),
            ("{samples: 96}", "{samples: 96}\n  evaluation: {at: end}"),
        ),
        told=("sweep.yaml:9: The pruner `median` judges `dev/loss` at the rungs, but",),
    ),
    Case(
        name="a signal that nobody reports",
        base=BUILT_IN,
        edits=edited(
            "pruner: early_dynamics", "pruner: {name: early_dynamics, signals: {los: {direction: minimize}}}"
        ),
        told=("sweep.yaml:14: `pruner.signals` names `los`, which no trial reports. Did you mean `loss`?",),
    ),
    Case(
        name="a sampler that nobody knows",
        edits=edited("pruner: nop", "pruner: nop\nsampler: {name: bayes, n_trials: 3}"),
        told=("sweep.yaml:12: `sampler.name`", "`bayes`"),
    ),
    Case(
        name="a sampler that is not told how many to draw",
        edits=edited("pruner: nop", "pruner: nop\nsampler: tpe"),
        told=("sweep.yaml:12: `sampler.n_trials` is missing", "`tpe`"),
    ),
    Case(
        name="a metric that the sweep does not have",
        base=BUILT_IN,
        edits=edited("metric: dev/loss", "metric: dev/accuracy"),
        told=("sweep.yaml:2: `metric` names unknown measure `accuracy`. Did you mean `token_accuracy`?",),
    ),
    Case(
        name="an eval set that is not there",
        base=BUILT_IN,
        edits=edited(
            "eval_data: {dev: dev.jsonl}", "eval_data: {dev: dev.jsonl}\n  metrics: {score: {test/loss: 1.0}}"
        ),
        told=("sweep.yaml:8: `trial.metrics.score`", "`test/loss`"),
    ),
    Case(
        name="more GPUs per trial than the batch can be shared over",
        edits=edited("gpus_per_trial: 0", "gpus_per_trial: 8"),
        told=(
            "sweep.yaml:",
            "`effective_batch_size` must be a multiple",
            "8 workers cannot share 10 sequences",
        ),
    ),
    Case(
        name="a GPU where there is none",
        edits=edited("gpus_per_trial: 0", "gpus_per_trial: 1"),
        told=(
            "`resources.gpus_per_trial` = 1 does not fit: this machine has 0 GPUs. Set it to 0",
            "--address",
        ),
    ),
    Case(
        name="a study's name that is none",
        edits=edited("study: made-up", "study: made/up"),
        told=("sweep.yaml:1: `study` is no valid name, but got the text `made/up`. Use letters",),
    ),
    Case(
        name="a function in a module that is not there",
        edits=edited("my_trial:train", "no_such_trial:train"),
        told=(
            "`trial.function: no_such_trial:train`: there is no module `no_such_trial`",
            "Correct the name",
        ),
    ),
    Case(
        name="a function that its module has not",
        edits=edited("my_trial:train", "my_trial:trian"),
        told=("`trial.function`", "my_trial.py", "has no `trian`. Correct the name."),
    ),
    Case(
        name="a function's module that raises",
        edits=edited("my_trial:train", "broken_module:train"),
        told=(
            "importing `broken_module` failed with ZeroDivisionError: division by zero",
            "Correct the module.",
        ),
    ),
    Case(
        name="a storage of an unknown kind",
        edits=edited("study: made-up", "study: made-up\nstorage: redis://me:hunter2@host/0"),
        told=("`storage` must start with postgresql://", "redis://me", "Leave it out"),
        hidden=("hunter2",),
    ),
]

ON_THE_COMMAND_LINE = [
    Case(name="an override without a value", extra=("seed",), told=("`seed`", "key=value")),
    Case(
        name="an override of nothing", extra=("trial.budgt.samples=3",), told=("`trial.budgt", "Did you mean")
    ),
    Case(
        name="an override with a wrong value", extra=("seed=-1",), told=("override `seed=-1`", "at least 0")
    ),
    Case(
        name="a directory below a file",
        extra=("--dir", "sweep.yaml/study"),
        told=("sweep.yaml/study cannot be written", "is a file", "--dir"),
    ),
    Case(
        name="a database that does not answer",
        extra=("--storage", f"postgresql://me:hunter2@{CLOSED}/studies"),
        told=(f"postgresql://me:***@{CLOSED}/studies cannot be opened", "Check that the server runs"),
        hidden=("hunter2",),
    ),
    Case(
        name="another search space under the name of a study that exists",
        extra=("study=bystander", "search_space.learning_rate={grid: [1e-5, 0.5]}"),
        code=4,
        told=(
            "Cannot go on with study `bystander`",
            "`search_space.learning_rate.grid`",
            "0.5",
            "choose a new study name",
        ),
    ),
    Case(
        name="another seed under the name of a study that exists",
        extra=("study=bystander", "seed=7"),
        code=4,
        told=("Cannot go on with study `bystander`: `seed` was 0 and is now 7. Restore the old",),
    ),
]

OTHER_COMMANDS = [
    ("there is no such sweep file", ("launch", "nowhere.yaml"), 2, ("There is no file `nowhere.yaml`.",)),
    (
        "the sweep file is a directory",
        ("plan", "studies"),
        2,
        ("`studies` is a directory. Name the sweep file",),
    ),
    (
        "the sweep file is empty",
        ("plan", "empty.jsonl"),
        2,
        ("empty.jsonl", "must be a mapping of sections", "empty"),
    ),
    ("the sweep file is no text", ("plan", "binary.yaml"), 2, ("binary.yaml: The file is no UTF-8 text",)),
    (
        "resume of a folder that is no study",
        ("resume", "studies"),
        4,
        ("`studies` is not a study's directory",),
    ),
    ("status of a name that is no study", ("status", "nobody"), 4, ("`nobody` is not a study's directory",)),
    (
        "report of a file",
        ("report", "sweep.yaml"),
        4,
        ("`sweep.yaml` is not a study's directory", "sweeper launch"),
    ),
    (
        "a report into no directory",
        ("report", "bystander", "--out", ""),
        2,
        ("`--out` is empty. Give a path, or leave the option out.",),
    ),
    (
        "a study's marker is damaged",
        ("status", "damaged"),
        4,
        ("damaged/study.json cannot be read", "Restore it"),
    ),
    ("a study's journal is gone", ("resume", "emptied"), 4, ("emptied holds no study named `bystander`",)),
    (
        "a study in a database that does not answer",
        ("status", "x", "--storage", f"postgresql://me:hunter2@{CLOSED}/studies"),
        2,
        ("postgresql://me:***@127.0.0.1:1/studies cannot be opened",),
    ),
]


@pytest.fixture(scope="module")
def bystander(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study, which no bad input may change."""
    folder = tmp_path_factory.mktemp("bystander")
    sweep = write_sweep(folder, ("study: made-up", "study: bystander"))
    done = cli("launch", sweep, "--executor", "in-process", "--dir", folder / "study")
    assert done.code == 0, done.err
    return folder / "study"


@pytest.fixture
def place(tmp_path: Path, bystander: Path) -> Path:
    """A working directory with a study, data, and modules that are wrong in some way."""
    shutil.copytree(bystander, tmp_path / "studies" / "bystander")
    write_sweep(tmp_path)
    row = {"prompt": "a b", "completion": "c"}
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text(f"{json.dumps(row)}\n" * 20)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "binary.yaml").write_bytes(b"study: \xff\xfe")
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    (tmp_path / "my_pruner.py").write_text(MY_PRUNER)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.json").write_text('{"study": "bys')
    (tmp_path / "emptied").mkdir()
    (tmp_path / "emptied" / "study.json").write_text('{"study": "bystander", "storage": null}')
    return tmp_path


MY_PRUNER = """\
import optuna


class Pruner(optuna.pruners.BasePruner):
    def __init__(self, every=2):
        self.every = every

    def prune(self, study, trial):
        return False


class NoPruner:
    pass


class AsPython314(type(Pruner)):
    @property
    def __signature__(cls):
        raise NameError("name 'Study' is not defined")  # it is imported for type checkers alone


class Untold(Pruner, metaclass=AsPython314):
    pass


NUMBER = 3
"""


def ray_runs() -> bool:
    """Whether this process has a Ray, without importing it."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def run_words(*words: str) -> Run:
    """Run in this process, but not with a password, which makes the command start itself again without it."""
    return command(*words) if any("hunter2" in word for word in words) else cli(*words)


def check(run: Run, code: int, told: tuple[str, ...], hidden: tuple[str, ...] = ()) -> None:
    assert run.code == code, run.err
    assert run.out == ""
    assert run.err.startswith("error: ")
    for words in told:
        assert words in run.err
    for words in ("Traceback", *hidden):
        assert words not in run.err


@pytest.mark.parametrize("case", IN_THE_FILE + ON_THE_COMMAND_LINE, ids=lambda case: case.name)
def test_a_bad_sweep_is_refused_and_nothing_is_changed(case: Case, place: Path) -> None:
    sweep = write_sweep(place, *case.edits, text=case.base)
    before, ray_before = fingerprint(place), ray_runs()

    run = run_words("launch", sweep.name, *case.extra, "--executor", "in-process")

    check(run, case.code, case.told, case.hidden)
    assert fingerprint(place) == before
    assert ray_runs() == ray_before


@pytest.mark.parametrize(
    ("words", "code", "told"), [case[1:] for case in OTHER_COMMANDS], ids=[case[0] for case in OTHER_COMMANDS]
)
def test_a_bad_place_is_refused_and_nothing_is_changed(
    words: tuple[str, ...], code: int, told: tuple[str, ...], place: Path
) -> None:
    before = fingerprint(place)

    run = run_words(*words)

    check(run, code, told, ("hunter2",))
    assert fingerprint(place) == before


def test_all_problems_of_a_sweep_are_told_at_once(place: Path) -> None:
    write_sweep(
        place, ("pruner: nop", "pruner: medain"), ("{samples: 100}", "{samples: 0}"), ("rungs:", "rugns:")
    )

    run = cli("launch", "sweep.yaml", "study=a b")

    assert run.code == 2
    assert "4 problems were found:" in run.err
    for words in ("1. sweep.yaml:6:", "2. sweep.yaml:10:", "3. sweep.yaml:11:", "4. override `study=a b`:"):
        assert words in run.err


def test_plan_refuses_what_launch_refuses(place: Path) -> None:
    write_sweep(place, ("pruner: nop", "pruner: 'my_pruner:NoPruner'"))

    assert cli("plan", "sweep.yaml").code == 2


@pytest.mark.parametrize("name", ["a rate of 0", "a storage of an unknown kind"])
def test_a_bad_sweep_is_refused_before_ray_or_torch_are_loaded(name: str, place: Path) -> None:
    case = next(case for case in IN_THE_FILE if case.name == name)
    write_sweep(place, *case.edits, text=case.base)
    code = (
        "import sys\nfrom sweeper.cli import main\nsys.argv = ['sweeper', 'launch', 'sweep.yaml']\n"
        "try:\n    main()\nfinally:\n    print(sorted({'ray', 'torch', 'transformers', 'trl'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (case.code, "[]\n")
    assert all(words in done.stderr for words in case.told)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("address", "told"),
    [
        (CLOSED, "Connection refused"),
        ("ray://host:1", "written as host:port"),
        ("host", "written as host:port"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told_soon(address: str, told: str, place: Path) -> None:
    before = fingerprint(place)

    run = command("launch", "sweep.yaml", "--address", address)

    check(
        run,
        2,
        (f"No Ray cluster can be joined at {address}: ", told, "`--address local` runs on this machine"),
    )
    assert fingerprint(place) == before


@pytest.mark.train
def test_a_model_of_the_hub_that_cannot_be_reached_is_told(place: Path) -> None:
    write_sweep(place, (f"{TINY}/model", "nobody/no-such-model"), text=BUILT_IN)
    before = fingerprint(place)

    run = command("launch", "sweep.yaml", HF_HUB_OFFLINE="1")

    check(run, 2, ("`nobody/no-such-model` could not be loaded", "Correct `trial.model`."))
    assert fingerprint(place) == before


@pytest.mark.train
def test_rows_that_cannot_be_trained_on_are_told_with_their_lines(place: Path) -> None:
    good = '{"prompt": "a", "completion": "b"}\n'
    (place / "train.jsonl").write_text(good + '{"prompt": "a", \n')
    (place / "dev.jsonl").write_text(good + good + '{"prompt": "a", "completion": ""}\n')
    (place / "other.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    write_sweep(place, ("{dev: dev.jsonl}", "{dev: dev.jsonl, other: other.jsonl}"), text=BUILT_IN)
    before = fingerprint(place)

    run = command("launch", "sweep.yaml", HF_HUB_OFFLINE="1")

    check(run, 2, ("3 problems were found", "train.jsonl:2", "dev.jsonl:3", "other.jsonl", "`question`"))
    assert fingerprint(place) == before


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["not to be written", "not to be entered"])
def test_a_directory_without_permission_is_refused(place: Path, mode: int) -> None:
    (place / "locked").mkdir()
    (place / "locked").chmod(mode)

    # Root may write everywhere.
    with another_user(place) if os.geteuid() == 0 else contextlib.nullcontext():
        run = cli("launch", "sweep.yaml", "--dir", "locked/study")

    check(run, 2, ("locked/study cannot be written: no permission",))
