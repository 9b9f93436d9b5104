"""What `sweeper doctor` finds on a healthy cluster and on broken ones."""

import dataclasses
import importlib.util
import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import cli
from sweep_files import FUNCTION, config_of

from sweeper.errors import ConfigError
from sweeper.preflight import node as node_module
from sweeper.preflight.cluster import SlotPlan
from sweeper.preflight.diagnosis import Finding, NodeReport, Wanted, diagnose
from sweeper.preflight.kept import kept_in_study
from sweeper.preflight.launch_nodes import check_nodes, sorted_out
from sweeper.preflight.node import look
from sweeper.preflight.packages import needed_packages

VERSIONS = {"python": "3.11.9", "sweeper": "0.1.0", "ray": "2.60.0", "torch": "2.13.0"}
WANTED = Wanted(versions=VERSIONS, share={"CPU": 1, "GPU": 1}, n_workers=2, study_dir="/shared/studies/a")


def node(name: str = "node-a", **changes: Any) -> NodeReport:
    healthy: dict[str, Any] = {
        "name": name, "resources": {"CPU": 8, "GPU": 2}, "versions": VERSIONS, "sees_study": True, "torch_gpus": 2,
        "free_bytes": {"/shared/studies/a": 50_000_000_000},
    }  # fmt: skip
    return NodeReport(**{**healthy, **changes})


def wrong(*nodes: NodeReport) -> list[Finding]:
    return [finding for finding in diagnose(nodes, WANTED) if not finding.is_fine]


def test_healthy_nodes_have_nothing_wrong() -> None:
    findings = diagnose([node("node-a"), node("node-b")], WANTED)
    assert all(finding.is_fine for finding in findings)
    assert {finding.check for finding in findings} == {"versions", "gpus", "shared", "disk", "room"}


def test_another_version_is_named_with_the_command_that_mends_it() -> None:
    (found,) = wrong(node(), node("node-b", versions={**VERSIONS, "torch": "2.11.0", "sweeper": None}))
    assert found.where == "node-b"
    assert "sweeper not installed (driver: 0.1.0), torch 2.11.0 (driver: 2.13.0)" in found.text
    assert found.remedy == (
        "Install the driver's there: sweeper from where the driver's came, then pip install 'torch==2.13.0'"
    )


def test_another_build_of_the_same_release_is_fine() -> None:
    assert not wrong(node(), node("node-b", versions={**VERSIONS, "torch": "2.13.0+cu130"}))


def test_a_path_that_one_node_does_not_have_is_named_with_the_node() -> None:
    (found,) = wrong(node(), node("node-b", missing=["/data/train.jsonl"]))
    assert (found.check, found.where, found.text) == ("paths", "node-b", "not there: /data/train.jsonl")


def test_a_study_directory_that_is_not_shared_is_told() -> None:
    (found,) = wrong(node(), node("node-b", sees_study=False))
    assert found.text == (
        "does not see what the driver writes under /shared/studies/a, where trials keep checkpoints, the scores by "
        "item that `sweeper compare` reads and what each ran on"
    )
    assert found.remedy.endswith(
        "that all nodes share, or keep checkpoints in an object store (`trial.checkpoint.url`)."
    )


@pytest.mark.parametrize(
    ("checkpoint", "is_needed", "kept", "way_out"),
    [
        ("{}", True, "checkpoints, the scores by item", "(`trial.checkpoint.url`)."),
        ("{save_model: true}", True, "checkpoints, final models, the scores by item", "all nodes share."),
        ("{url: 's3://kept'}", False, "keep the scores by item", "`trial.checkpoint.url` takes checkpoints alone."),
        ("{url: 's3://kept', save_model: true}", True, "keep final models, the scores by item", "checkpoints alone."),
    ],
)  # fmt: skip
def test_what_trials_keep_in_a_directory_that_is_not_shared_says_whether_they_can_be_run(
    checkpoint: str, is_needed: bool, kept: str, way_out: str
) -> None:
    found = kept_in_study(config_of(NEEDS, f"trial.checkpoint={checkpoint}"))
    assert found.is_needed is is_needed
    (finding,) = (
        finding
        for finding in diagnose([node(sees_study=False)], dataclasses.replace(WANTED, kept=found))
        if not finding.is_fine
    )
    assert kept in finding.text
    assert finding.remedy.endswith(way_out)
    refused, told = sorted_out([node(sees_study=False)], dataclasses.replace(WANTED, kept=found))
    assert [text.partition(":")[0] for text in (refused if is_needed else told)] == ["Node node-a"]
    assert not (told if is_needed else refused)


def test_a_function_needs_a_shared_directory_where_its_models_are_measured() -> None:
    config = config_of(FUNCTION)
    assert not kept_in_study(config).is_needed
    assert not kept_in_study(config_of(NEEDS), function=print).is_needed
    measured = config_of(FUNCTION, "benchmarks={tasks: {arc_easy: {}}, when: finalists}")
    assert kept_in_study(measured).is_needed
    assert kept_in_study(measured).in_words == "checkpoints, final models and what each ran on"


def test_a_full_disk_is_told() -> None:
    (found,) = wrong(node("node-b", free_bytes={"/tmp": 200_000_000}))
    assert (found.check, found.text) == ("disk", "0.2 GB are free at /tmp")


def test_gpus_that_ray_counts_and_torch_cannot_use_are_told() -> None:
    (found,) = wrong(node("node-b", torch_gpus=0))
    assert found.text == "Ray counts 2 GPUs, torch can use 0"


@pytest.mark.parametrize(
    ("program", "patience_s", "count"),
    [
        ("print(3)", 60.0, 3),
        ("raise SystemExit(1)", 60.0, None),
        ("print('no number')", 60.0, None),
        ("import time; time.sleep(60)", 0.1, None),
    ],
)
def test_a_torch_that_fails_hangs_or_says_no_number_could_not_be_asked(
    program: str, patience_s: float, count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "_GPU_PROGRAM", program)
    monkeypatch.setattr(node_module, "_GPU_S", patience_s)
    assert node_module._torch_gpus() == count


def test_no_gpu_where_one_was_asked_for_is_told() -> None:
    (found,) = wrong(node("node-b", resources={"CPU": 8}, torch_gpus=None))
    assert found.check == "room"
    assert found.text == (
        "no trial fits. It needs 2 workers with 1 CPU and 1 GPU each, and there is room for 0. The nodes have: node-b "
        "8 CPU, 0 GPU (too little GPU)."
    )


NEEDS = """\
study: demo
metric: dev/loss
direction: minimize
trial:
  model: org/model
  train_data: org/train
  eval_data: {dev: org/dev}
  budget: {samples: 1024}
  settings: {optimizer: paged_adamw_8bit}
search_space:
  method: {grid: [lora, qlora]}
resources: {gpus_per_trial: 0}
"""


def test_the_packages_that_settings_need_are_looked_for_once_each() -> None:
    found = needed_packages(config_of(NEEDS, "search_space.optimizer.grid=[sgd, stable_adamw, lion_8bit]"))
    assert [(one.module, one.by) for one in found] == [
        ("bitsandbytes", "`method: qlora`"), ("optimi", "`optimizer: stable_adamw`")
    ]  # fmt: skip
    assert [one.remedy for one in found] == [
        "Install it there: `pip install 'bitsandbytes>=0.50'`.", "Install it there: `pip install torch-optimi`."
    ]  # fmt: skip
    (liger,) = needed_packages(
        config_of(NEEDS, "method=lora", "optimizer=sgd", "trial.settings.use_liger_kernel=true")
    )
    assert (liger.module, liger.by) == ("liger_kernel", "`use_liger_kernel: true`")
    assert [one.by for one in needed_packages(config_of(NEEDS, "method=lora"))] == [
        "`optimizer: paged_adamw_8bit`"
    ]
    assert needed_packages(config_of(FUNCTION)) == ()


def test_a_package_that_one_node_lacks_is_named_with_the_node_and_what_needs_it() -> None:
    wanted = dataclasses.replace(WANTED, packages=needed_packages(config_of(NEEDS)))
    findings = diagnose([node(), node("node-b", lacking=["bitsandbytes"])], wanted)
    (found,) = (finding for finding in findings if not finding.is_fine)
    assert (found.check, found.where) == ("packages", "node-b")
    assert found.text == "`method: qlora` needs bitsandbytes, which is not installed"


def test_a_node_tells_which_modules_it_lacks_without_loading_any() -> None:
    loaded = set(sys.modules)
    found = look(
        packages=(), paths=(), disks=(), token=None, counts_gpus=False, modules=("this", "no_such_module")
    )
    assert found["lacking"] == ["no_such_module"]
    assert "this" not in set(sys.modules) - loaded


@pytest.mark.ray
def test_a_launch_is_refused_where_a_node_lacks_a_package(ray_session: None, tmp_path: Path) -> None:
    assert importlib.util.find_spec("optimi") is None
    config = config_of(NEEDS, "method=lora", "optimizer=stable_adamw")
    slots = SlotPlan(slots=1, cpus_per_trial=1, gpus_per_trial=0)
    check_nodes(config_of(NEEDS, "method=lora", "optimizer=sgd"), slots, tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"Node .*: `optimizer: stable_adamw` needs optimi, which is not installed\. Install it there",
    ):
        check_nodes(config, slots, tmp_path)
    check_nodes(config, slots, tmp_path, function=print)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "model").mkdir()
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "study: checked\nmetric: loss\ndirection: minimize\ntrial:\n  model: ./model\n  train_data: train.jsonl\n"
        "  budget: {samples: 640}\nsearch_space:\n  learning_rate: {grid: [1e-5, 1e-4]}\n"
    )
    return path


@pytest.mark.ray
@pytest.mark.slow
def test_this_machine_is_healthy_and_each_thing_that_is_broken_is_found(
    ray_session: None, sweep: Path, small_disk: Path
) -> None:
    healthy = cli("doctor", str(sweep), "resources.gpus_per_trial=0")
    assert healthy.code == 0, healthy.out + healthy.err
    assert "computed together (gloo)" in healthy.out
    assert healthy.out.strip().endswith("Nothing is wrong.")

    broken = cli(
        "doctor", str(sweep), "resources.gpus_per_trial=1", "--dir", str(small_disk / "studies"),
        "--storage", "postgresql://nobody@127.0.0.1:9/none", "--json",
    )  # fmt: skip
    assert broken.code == 2
    told = json.loads(broken.out)
    assert not told["is_fine"]
    by_check = {found["check"]: found["text"] for found in told["findings"] if not found["is_fine"]}
    assert set(by_check) == {"storage", "disk", "room"}
    assert "postgresql://nobody@127.0.0.1:9/none cannot be opened" in by_check["storage"]
    assert f"0.0 GB are free at {small_disk}" in by_check["disk"]
    assert "It needs 1 CPU and 1 GPU" in by_check["room"]
    assert not list(small_disk.iterdir())


def test_a_node_that_does_not_answer_is_named_and_one_that_left_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    from sweeper.executors import ray_session
    from sweeper.preflight import nodes

    def get(reference: str, *, timeout: float) -> str:
        if reference == "lost":
            raise ray.exceptions.GetTimeoutError("Get timed out: some object(s) not ready.")
        return "here"

    monkeypatch.setattr(ray, "get", get)
    places = {
        index: {
            "NodeManagerHostname": f"node-{index}",
            "NodeManagerAddress": f"10.0.0.{index}",
            "NodeID": f"n{index}",
        }
        for index in (1, 2)
    }
    monkeypatch.setattr(ray_session, "described_nodes", lambda: list(places.values()))
    assert nodes._answers(places, {1: "fine", 2: "fine"}) == {1: "here", 2: "here"}
    with pytest.raises(
        ConfigError, match=r"Node node-2 \(10\.0\.0\.2\) did not answer: Get timed out.* Mend it"
    ):
        nodes._answers(places, {1: "fine", 2: "lost"})
    monkeypatch.setattr(ray_session, "described_nodes", lambda: [places[1]])
    assert nodes._answers(places, {1: "fine", 2: "lost"}) == {1: "here"}


def test_gpus_whose_kernels_cannot_be_compiled_are_told_where_they_will_be() -> None:
    (found,) = wrong(node("node-b", cannot_compile="no C compiler (gcc or clang) was found"))
    assert (found.check, found.where) == ("compiler", "node-b")
    assert found.text == (
        "the built-in fine-tuning compiles kernels for GPUs, but no C compiler (gcc or clang) was found"
    )
    assert found.remedy == "Install both there, for example by `apt install gcc python3-dev`."
    on_cpus = node("node-b", resources={"CPU": 8}, torch_gpus=0, cannot_compile="no C compiler was found")
    assert all(finding.check != "compiler" for finding in diagnose([on_cpus], WANTED))
    own_function = dataclasses.replace(WANTED, compiles=False)
    assert all(f.is_fine for f in diagnose([node("node-b", cannot_compile="no C compiler")], own_function))


@pytest.mark.parametrize(
    ("has_triton", "has_compiler", "has_header", "told"),
    [
        (False, False, False, None),
        (True, True, True, None),
        (True, False, True, "no C compiler (gcc or clang) was found"),
        (True, True, False, "Python.h is missing"),
    ],
)
def test_what_triton_needs_to_compile_is_looked_for(
    has_triton: bool,
    has_compiler: bool,
    has_header: bool,
    told: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modules, programs, include = tmp_path / "modules", tmp_path / "bin", tmp_path / "include"
    for directory in (modules, programs, include):
        directory.mkdir()
    if has_triton:
        (modules / "triton.py").touch()
    if has_compiler:
        (programs / "gcc").touch(mode=0o755)
    if has_header:
        (include / "Python.h").touch()
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(include)})
    found = node_module.cannot_compile()
    assert found is None if told is None else found is not None and found.endswith(told)
