"""Which of a user's files travel to the nodes of a cluster, and which stay."""

import functools
import stat
import sys
from pathlib import Path

import cloudpickle
import pytest
import trial_functions
from sweep_files import FUNCTION, config_of, replaced

from sweeper import storage_url
from sweeper.errors import ConfigError
from sweeper.executors.attempt import run_attempt
from sweeper.executors.user_code import (
    PACKAGE,
    UserCode,
    arrived,
    code_of,
    import_error,
    prepare_imports,
)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1\n")


def travelling(code: UserCode, scratch: Path) -> set[str]:
    scratch.mkdir()
    place = code.pack(scratch)
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def test_code_travels_and_studies_data_models_and_environments_stay(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write(
        home,
        "my_code.py",
        "helpers/__init__.py",
        "helpers/loss.py",
        "template.jinja",
        "labels.json",
        ".gitignore",
    )
    write(home, "train.jsonl", "rows.parquet", "named.json", ".env", ".git/config", "__pycache__/my_code.pyc")
    write(
        home,
        "studies/old/sweep.yaml",
        "out/study.json",
        "out/trials/0/notes.txt",
        ".venv/lib/a.py",
        "env/pyvenv.cfg",
    )
    write(home, "env/lib/a.py", "llama/model.safetensors", "llama/config.json", "node_modules/a/index.js")
    (home / "large.txt").write_bytes(b"0" * ((1 << 20) + 1))

    code = UserCode(directory=home, leave_out=(home / "named.json",))
    assert travelling(code, tmp_path / "scratch") == {
        "my_code.py", "helpers/__init__.py", "helpers/loss.py", "template.jinja", "labels.json", ".gitignore",
    }  # fmt: skip


def test_keys_and_what_holds_the_storages_password_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage_url, "_kept", {})
    home = tmp_path / "home"
    write(home, "my_code.py", "credentials.py", "credentials.json", "server.pem", "id.KEY")
    (home / "sweep.yaml").write_text("storage: postgresql://u:DB/SECRET@h/db\n")
    (home / "quoted.yaml").write_text("storage: postgresql://u:DB%2FSECRET@h/db\n")
    (home / "other.yaml").write_text("storage: postgresql://u@h/db\n")
    storage_url.keep_password("postgresql://u:DB/SECRET@h/db")

    assert travelling(UserCode(directory=home), tmp_path / "scratch") == {
        "my_code.py", "credentials.py", "other.yaml",
    }  # fmt: skip
    assert f"{home}/sweep.yaml holds the storage's password" in caplog.text


def test_a_short_password_keeps_no_code_from_travelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_url, "_kept", {})
    home = tmp_path / "home"
    write(home, "my_code.py")
    (home / "sweep.yaml").write_text("storage: postgresql://u:x@h/db\n")
    storage_url.keep_password("postgresql://u:x@h/db")

    assert travelling(UserCode(directory=home), tmp_path / "scratch") == {"my_code.py"}


def test_what_travels_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    write(home, "my_code.py", "run.sh")
    (home / "run.sh").chmod(0o755)
    scratch.mkdir()
    place = UserCode(directory=home).pack(scratch)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert modes == {"my_code.py": 0o600, "run.sh": 0o700}


def test_too_much_for_code_is_refused_with_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write(home, *(f"part{number}.py" for number in range(2001)))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(ConfigError, match=r"holds more than 2,000 files or 20 MiB .* `trial.function_dir`"):
        UserCode(directory=home).pack(tmp_path / "scratch")


def test_the_directory_that_has_the_module_is_the_one_that_travels(tmp_path: Path) -> None:
    beside, here = tmp_path / "beside", tmp_path / "here"
    write(beside, "my_code.py")
    here.mkdir()
    config = config_of(FUNCTION, "trial.function_dir=beside", folder=tmp_path)
    code = code_of(config)
    assert code is not None
    assert code.directory == beside

    (beside / "my_code.py").unlink()
    assert code_of(config) is None  # installed, or nowhere: each node has to say
    write(Path.cwd(), "my_code/__init__.py")
    code = code_of(config)
    assert code is not None
    assert code.directory == Path.cwd()


def test_built_in_fine_tuning_sends_nothing_and_neither_do_installed_functions() -> None:
    config = config_of(FUNCTION)
    assert code_of(config, cloudpickle.dumps) is None
    assert code_of(config, run_attempt) is None
    code = code_of(config, functools.partial(trial_functions.steady))
    assert code is not None
    assert code.directory == Path(trial_functions.__file__).parent


def test_what_arrived_is_taken_before_what_lies_in_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "home", "sent_code.py")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    place = UserCode(directory=tmp_path / "home").pack(scratch)
    assert place.name == PACKAGE
    assert arrived() is None
    monkeypatch.setattr(sys, "path", [*sys.path, str(scratch)])
    assert arrived() == place
    said = import_error("sent_code:train", str(tmp_path / "elsewhere"), None, [])
    assert said is not None
    assert f"({place}/sent_code.py) has no `train`" in said


def test_an_older_module_where_the_worker_stands_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Path.cwd(), "aged_code.py")
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    (home / "aged_code.py").write_text("def train(context): ...\n")
    UserCode(directory=home).pack(scratch)
    monkeypatch.setattr(sys, "path", [*sys.path, str(scratch)])
    prepare_imports([])
    assert import_error("aged_code:train", "/not/here", None, []) is None


def test_where_the_same_files_lie_here_too_they_are_taken_with_what_lies_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    write(home, "my_code.py", "vocabulary.csv")
    scratch.mkdir()
    place = UserCode(directory=home).pack(scratch)
    monkeypatch.setattr(sys, "path", [*sys.path, str(scratch)])
    assert arrived([str(tmp_path), str(home)]) == home

    other = tmp_path / "other"
    write(other, "my_code.py")
    (other / "my_code.py").write_text("x = 2\n")
    assert arrived([str(other)]) == place


def test_a_function_that_needs_what_is_not_installed_says_so(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    said = import_error("needy:train", str(tmp_path), None, [])
    assert said is not None
    assert "`needy` imports `no_such_package`, which is not installed" in said
    config = config_of(replaced(FUNCTION, ("my_code:train", "needy:train")), folder=tmp_path)
    code = code_of(config)
    assert code is not None
    assert code.directory == tmp_path
