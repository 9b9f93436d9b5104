"""What a study's files and a user's words cannot do: run code, leave their directory, show a password."""

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trial_functions
from sweeps import BASE, make_config, make_orchestrator, make_study, merged

from sweeper import api
from sweeper.checkpoint import MANIFEST, DirectoryCheckpoints
from sweeper.checkpoint.manifest import FileFacts, Manifest, describe
from sweeper.config import config_from_dict, parse_config
from sweeper.errors import ConfigError, SweeperError
from sweeper.executors import ray_token
from sweeper.executors.in_process import InProcessExecutor
from sweeper.study.journal import JournalBackend
from sweeper.study.study import Study

SECRET = "s3cret-word"


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/etc/x", "..", ".hidden", "a\x00b", "a\nb", "a\n", "", "a b", "x" * 101, "C:\\x"]
)
def test_a_study_name_cannot_leave_the_directory(name):
    with pytest.raises(ConfigError, match="study"):
        config_from_dict({**BASE, "study": name})


def test_a_trials_directory_is_its_number_inside_the_studys():
    study_dir = Path("studies/made-up").absolute()
    study = make_study(study_dir, make_config())
    spec = make_orchestrator(study).next_trial()

    assert Path(spec.trial_dir) == study_dir / "trials/0"
    assert Path(spec.checkpoint_place) == study_dir / "trials/0/checkpoints"


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname", "a/../../../b"])
def test_a_manifest_that_names_a_file_outside_is_no_checkpoint(tmp_path, name):
    root = tmp_path / "checkpoints"
    place = root / "step-00000001"
    place.mkdir(parents=True)
    evil = Manifest(step=1, samples=1, files={name: FileFacts(n_bytes=0, sha256="0")})
    (place / MANIFEST).write_text(evil.dump())

    assert DirectoryCheckpoints(root).load() is None
    assert DirectoryCheckpoints(root).saved() == []


@pytest.mark.parametrize(
    ("tagged", "tag"),
    [
        ("!!python/object/apply:os.system ['true']", "!!python/object/apply:os.system"),
        ("!!python/name:os.system ''", "!!python/name:os.system"),
        ("!mine x", "!mine"),
    ],
)
def test_a_sweep_file_holds_data_only(tagged, tag, tmp_path):
    text = f"study: demo\nmetric: score\ndirection: maximize\ntrial: {{function: 'a:b', settings: {{x: {tagged}}}}}\n"
    with pytest.raises(ConfigError, match=f"The tag `{tag}` is not allowed"):
        parse_config(text, file="sweep.yaml", base_dir=tmp_path, check_files=False)


def test_nothing_in_a_studys_directory_is_unpickled(tmp_path):
    """Every file of a study is replaced by a pickle that leaves a mark; then all of the study is read."""
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Bomb(mark))
    study = make_study(tmp_path / "study", make_config(trial={"checkpoint": {"at": [30]}}))
    InProcessExecutor(slots=2, function=trial_functions.steady).run(make_orchestrator(study))
    files = [path for path in (tmp_path / "study").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".journal", ".json", ".parquet", ".txt"}
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(bomb)
        read_all(tmp_path / "study")
        path.write_bytes(whole)

    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists()  # the bomb works


def read_all(directory):
    for number in range(4):
        DirectoryCheckpoints(directory / f"trials/{number}/checkpoints").load()
        try:
            study = Study.open(str(directory))
            study.view()
            study.curves.frame(number)
        except SweeperError:
            continue


@pytest.mark.train
def test_a_checkpoint_that_holds_code_is_refused_though_its_checksums_are_right(tmp_path):
    import torch

    from sweeper.training.checkpoints import STATE, read_state

    mark = tmp_path / "mark"
    place = tmp_path / "checkpoints/step-00000001"
    place.mkdir(parents=True)
    torch.save({"optimizer": Bomb(mark)}, place / STATE)
    manifest = describe(place, step=1, samples=1)
    (place / MANIFEST).write_text(manifest.dump())
    loaded = DirectoryCheckpoints(tmp_path / "checkpoints").load()

    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        read_state(loaded.path)
    assert not mark.exists()


def test_a_storage_attribute_is_never_code(tmp_path):
    """Optuna's journal unpickles snapshots where its backend keeps them (optuna 5.0.0); ours keeps none."""
    backend = JournalBackend(tmp_path / "a.journal")

    assert not hasattr(backend, "load_snapshot")
    assert not hasattr(backend, "save_snapshot")


def test_the_password_of_a_storage_is_written_nowhere_and_shown_nowhere(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(trial_functions.__file__).parent))
    changes = {"storage": f"sqlite:///{tmp_path}/db?password={SECRET}", "dir": str(tmp_path / "study")}
    config = config_from_dict(merged(BASE, changes))
    with pytest.raises(ConfigError) as refused:  # SQLite's driver takes no password, so it cannot be opened
        api.launch(config, options=api.LaunchOptions(executor="in-process"))

    assert SECRET not in str(refused.value)
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.encode() not in written


def test_the_password_of_a_command_line_leaves_it_at_once(tmp_path):
    code = (
        "import sys, os; from pathlib import Path; from sweeper import storage_url\n"
        "def shown(program, words): print('again:', words, os.environ['SWEEPER_STORAGE_URLS'])\n"
        "storage_url.os.execv = shown\n"
        "storage_url.hide_password_of_command_line(sys.argv[1:])\n"
        "print('left:', 'SWEEPER_STORAGE_URLS' in os.environ)"
    )
    url = f"postgresql://me:{SECRET}@db/x"
    done = subprocess.run(
        [sys.executable, "-c", code, "resume", "x", f"--storage={url}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "'resume', 'x', '--storage=postgresql://me@db/x'" in done.stdout
    assert done.stdout.splitlines()[0].endswith(f'["{url}"]')
    assert "left: False" in done.stdout  # workers and other children inherit no password


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o022)
    yield tmp_path / "home"
    os.umask(before)


def test_rays_token_is_made_for_this_user_alone_and_once(home):
    ray_token.make_token()
    token = home / ".ray/auth_token"
    text = token.read_text()
    ray_token.make_token()

    assert ray_token.has_token()
    assert (stat.S_IMODE(token.stat().st_mode), stat.S_IMODE(token.parent.stat().st_mode)) == (0o600, 0o700)
    assert len(text) == 64
    assert token.read_text() == text


def test_a_token_of_rays_that_others_can_read_is_closed_to_them(home):
    token = home / ".ray/auth_token"
    ray_token.close_token()
    token.parent.mkdir(parents=True)
    token.write_text("0123456789abcdef" * 4)
    ray_token.make_token()
    ray_token.close_token()

    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() == "0123456789abcdef" * 4


def test_no_token_is_written_where_one_is_given(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    ray_token.make_token()

    assert not home.exists()


def test_a_token_that_cannot_be_written_is_told_with_what_to_do(home):
    home.touch()
    with pytest.raises(ConfigError, match=r"cannot be written to .*auth_token: .* or set RAY_AUTH_TOKEN"):
        ray_token.make_token()
