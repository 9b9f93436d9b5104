"""The recipes and cluster files of `examples/`: planned, linted, and the Slurm script run under a stand-in."""

import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
from cli_fixtures import SWEEP, TRIAL, cli
from ruamel.yaml import YAML
from slurm_stand_in import install
from waiting import wait_for

from sweeper.cli import app
from sweeper.config import load_config
from sweeper.plan import plan_sweep
from sweeper.preflight.disk import disk_need, size_text

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
CLUSTER = EXAMPLES / "cluster"
SCRIPTS = [CLUSTER / name for name in ("one-machine.sh", "ray-start.sh", "slurm.sbatch")]
RECIPES = {"llama-3.2-3b": 24, "granite-3b": 24, "mistral-7b": 21}
GPUS = 8


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_plans_as_its_header_says(name: str) -> None:
    path = EXAMPLES / f"{name}.yaml"
    plan = plan_sweep(load_config(path))
    header = " ".join(line.lstrip("# ") for line in path.read_text().split("\n\n")[0].splitlines())

    assert plan.n_trials == RECIPES[name] == int(re.search(r"(\d+) points", header)[1])  # type: ignore[index]
    assert plan.budget_samples == 230_400
    assert not plan.warnings
    for point in plan.points:
        assert point.batch is not None
        assert point.batch.data_parallel_size == GPUS
    assert plan.config.resources.sharding == "fsdp2"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_memory_follows_from_its_parameters(name: str) -> None:
    path = EXAMPLES / f"{name}.yaml"
    header = " ".join(line.lstrip("# ") for line in path.read_text().split("\n\n")[0].splitlines())

    def found(pattern: str) -> float:
        match = re.search(pattern, header)
        assert match is not None, pattern
        return float(match[1].replace(",", ""))

    parameters = found(r"Parameters\s+([\d,]+)")
    assert found(r"two moments\): ([\d.]+) GB") == pytest.approx(16 * parameters / 1e9, abs=0.05)
    assert found(r"8 GPUs ([\d.]+) GB each") == pytest.approx(16 * parameters / GPUS / 1e9, abs=0.05)
    assert found(r"starts: (\d+) GB of host memory") == pytest.approx(4 * parameters * GPUS / 1e9, abs=0.5)
    assert found(r"([\d.]+) GB for a checkpoint") == pytest.approx(12 * parameters / 1e9, abs=0.05)
    size = load_config(path).trial.checkpoint.size_gb
    assert size is not None
    assert size >= found(r"([\d.]+) GB for a checkpoint")


# Overrides that change what the checkpoints take, and how the header begins to say so.
DISK = {
    "": r"counts {n} of \d+ GB, {size} for one trial at a time",
    "trial.checkpoint.max_gb=": r"`{override}` bounds them all: {size},",
    "pruner.set_aside=false": r"`{override}` needs {size}",
}


@pytest.mark.parametrize("changed", DISK)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_disk_is_what_plan_counts(name: str, changed: str, tmp_path: Path) -> None:
    path = EXAMPLES / f"{name}.yaml"
    header = " ".join(line.lstrip("# ") for line in path.read_text().split("\n\n")[0].splitlines())
    override = re.search(rf"`({re.escape(changed)}\d*)`", header)[1] if changed else ""  # type: ignore[index]
    need = disk_need(load_config(path, [override] if override else []), slots=1, directory=tmp_path)
    assert need is not None
    assert need.checkpoint_bytes is not None
    assert need.local_bytes is not None

    told = DISK[changed].format(n=need.n_checkpoints, size=size_text(need.local_bytes), override=override)
    assert re.search(told, header), (told, header)


def test_the_chat_template_shows_a_model_what_it_was_trained_on() -> None:
    render = jinja2.Template(
        (EXAMPLES / "chat.jinja").read_text(), trim_blocks=True, lstrip_blocks=True
    ).render
    chat = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "It is 5."}]
    whole = render(messages=chat, eos_token="</s>")
    asked = render(messages=chat[:1], eos_token="</s>", add_generation_prompt=True)
    assert whole == "<|user|>\nWhat is 2 + 3?\n<|assistant|>\nIt is 5.</s>\n"
    assert whole == asked + "It is 5.</s>\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script: Path) -> None:
    linter = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([linter, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# As `ray get-auth-token` (2.60) writes it: as the umask says.
RAY = """#!/bin/sh
[ "$1" = get-auth-token ] || exit 0
mkdir -p "$HOME/.ray"
[ -e "$HOME/.ray/auth_token" ] || printf 0123 > "$HOME/.ray/auth_token"
cat "$HOME/.ray/auth_token"
"""


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("script", SCRIPTS[1:], ids=lambda path: path.name)
def test_rays_token_is_for_its_user_alone(script: Path, is_there: bool, tmp_path: Path) -> None:
    home, programs = tmp_path / "home", tmp_path / "venv/bin"
    (home / ".ray").mkdir(parents=True)
    token = home / ".ray/auth_token"
    if is_there:
        token.write_text("0123")
    programs.mkdir(parents=True)
    bash = "#!/bin/bash\n"
    stand_ins = {"ray": RAY, "sweeper": f"{bash}umask\n", "hostname": f"{bash}echo 127.0.0.1\n"}
    stand_ins["python"] = f"{bash}echo 1\n"  # the nodes that have joined
    with socket.create_server(("127.0.0.1", 0)) as head:
        words = f'umask 022; exec bash "{script}" sweep.yaml'
        if script.suffix == ".sbatch":
            install(programs)
        for name, text in stand_ins.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        done = subprocess.run(
            ["bash", "-c", words], capture_output=True, text=True, check=False, timeout=60,
            env={
                "HOME": str(home), "VENV": str(tmp_path / "venv"), "PORT": str(head.getsockname()[1]),
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node-0",
            },
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert "0022" in done.stdout.split()  # what the sweep writes is as the user's umask says


def code_of(file: Path) -> str:
    """Return a file's text; of a page only what it shows as code, a line each where it stands within prose."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".md":
        return text
    blocks = re.findall(r"^```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))])


def test_every_command_and_option_of_the_files_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # or the help cuts long names
    files = [*SCRIPTS, CLUSTER / "kuberay.yaml", *(EXAMPLES / f"{name}.yaml" for name in RECIPES)]
    files += [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("search_spaces/*.yaml")]
    commands = [command for command in app.registered_commands if command.callback]
    known = {command.name or command.callback.__name__ for command in commands if command.callback}
    shown = {command: cli(command, "--help").out for command in known}
    used = set()
    for file in files:
        for command, rest in re.findall(r"sweeper\"? (?!in )([a-z]+)\b([^\n]*)", code_of(file)):
            if command in ("with",):
                continue
            assert command in known, (file.name, command)
            for option in re.findall(r" (--[a-z][a-z-]*)", rest):
                assert option in shown[command], (file.name, command, option)
            used.add(command)
    assert used == known


def test_the_kuberay_job_runs_the_driver_where_the_study_is_shared() -> None:
    job: Any = YAML(typ="safe").load(CLUSTER / "kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    # KubeRay refuses `authOptions` for older ones.
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    study = Path(re.search(r"--dir (\S+)", job["spec"]["entrypoint"])[1])  # type: ignore[index]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert any(Path(place) in study.parents for place in mounts)
        assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize(("code", "job_code"), [(0, 0), (3, 0), (6, 1), (130, 1)])
def test_the_kuberay_job_has_succeeded_where_nothing_is_left_to_do(
    code: int, job_code: int, tmp_path: Path
) -> None:
    job: Any = YAML(typ="safe").load(CLUSTER / "kuberay.yaml")
    (tmp_path / "sweeper").write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    (tmp_path / "sweeper").chmod(0o755)
    # The submitter's shell takes the quotes off, `ray job submit` (2.60) puts them on again for the head's shell.
    words = shlex.split(job["spec"]["entrypoint"])
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        shlex.join(words), shell=True, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == job_code
    assert done.stdout == "launch /sweeps/sweep.yaml --address auto --dir /sweeps/studies/sweep\n"


STUBS = {
    "scontrol": "echo node-a",
    "srun": 'case "$*" in *hostname*) echo 127.0.0.1 ;; *) exec sleep 60 ;; esac',
    "ray": "exit 0",
    "python": "echo 1",  # nodes that have joined
    "sweeper": 'for word in "$@"; do echo "$word"; done',
}


@pytest.mark.parametrize(("what", "verb"), [("sweep.yaml", "launch"), ("study", "resume")])
def test_the_slurm_job_launches_a_sweep_file_and_resumes_a_study(
    what: str, verb: str, tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "sweep.yaml").touch()
    (tmp_path / "bin").mkdir()
    for name, text in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    word = "search_space.learning_rate.grid=[1e-5, 1e-4]"
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        env = {**os.environ, "VENV": str(tmp_path), "PORT": address.rpartition(":")[2]}
        env |= {"SLURM_JOB_NODELIST": "node-a", "SLURM_JOB_ID": "1"}
        done = subprocess.run(
            ["bash", str(CLUSTER / "slurm.sbatch"), str(tmp_path / what), word],
            env=env, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    words = [verb, str(tmp_path / what), word, "--address", address]
    assert done.stdout.splitlines() == [*words, "The sweep is finished."]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_slurm_job_saves_is_requeued_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "my_trial.py").write_text(TRIAL)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(SWEEP.replace("resources: {slots: 2, ", f"dir: {tmp_path / 'study'}\nresources: {{"))
    held = tmp_path / "trace"
    held.mkdir()
    (held / "hold").touch()
    stand_in = [sys.executable, str(Path(__file__).with_name("slurm_stand_in.py")), str(tmp_path / "bin")]
    words = [*stand_in, str(CLUSTER / "slurm.sbatch"), str(sweep), f"trial.settings.trace={held}"]
    venv, root = Path(sys.executable).parents[1], Path(__file__).parents[1]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    slow = {"RAY_raylet_start_wait_time_s": "120"}  # on a busy machine Ray gives up after 30 s
    env = {**os.environ, **slow, "VENV": str(venv), "PORT": "6397", "PYTHONPATH": path}
    log = tmp_path / "log"
    with open(log, "wb") as output:
        job = subprocess.Popen(
            words, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(
            "the first curve", (tmp_path / "study" / "curves").exists, timeout_s=300, process=job, log=log
        )
        job.send_signal(signal.SIGUSR1)
        wait_for("the requeue", lambda: "requeued" in log.read_text(), timeout_s=300, process=job, log=log)
        (held / "hold").unlink()
        assert job.wait(300) == 0, log.read_text()
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)

    text = log.read_text()
    assert "The sweep is finished." in text
    status = json.loads(cli("status", str(tmp_path / "study"), "--json").out)
    assert [trial["state"] for trial in status["trials"]] == ["COMPLETE"] * 4
