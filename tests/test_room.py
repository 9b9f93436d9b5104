"""How many trials a cluster's nodes hold, and what is said where they hold none."""

from pathlib import Path

import pytest
import trial_functions
from sweeps import make_config

from sweeper.errors import ConfigError
from sweeper.preflight.cluster import ClusterFacts, plan_slots, probe_machine
from sweeper.preflight.facts import checking, count_slots
from sweeper.room import Node, room_for


def cluster(*nodes: dict[str, float]) -> ClusterFacts:
    return ClusterFacts(
        cpus=int(sum(node.get("CPU", 0) for node in nodes)),
        gpus=int(sum(node.get("GPU", 0) for node in nodes)),
        place="head:6379",
        nodes=tuple(Node(name=f"node-{index}", resources=node) for index, node in enumerate(nodes)),
    )


def slots(facts: ClusterFacts, **resources: object) -> int:
    batch = {"settings": {"effective_batch_size": 8}}  # that any number of workers here can share
    return plan_slots(make_config(resources=resources, trial=batch).resources, facts).slots


@pytest.mark.parametrize(
    ("nodes", "share", "n_workers", "room"),
    [
        ([{"CPU": 8, "GPU": 8}, {"CPU": 8, "GPU": 8}], {"CPU": 1, "GPU": 1}, 8, 2),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 4}], {"CPU": 1, "GPU": 1}, 8, 1),  # across both nodes
        ([{"CPU": 3}, {"CPU": 3}], {"CPU": 2}, 1, 2),  # not three: a worker lies on one node
        ([{"CPU": 8, "GPU": 2}], {"CPU": 1, "GPU": 0.4}, 1, 4),  # two on each GPU
        ([{"CPU": 8, "GPU": 2, "big": 1}], {"CPU": 1, "big": 0.5}, 1, 2),
        ([{"CPU": 4}], {"CPU": 0.5}, 2, 4),
        ([], {"CPU": 1}, 1, 0),
    ],
)
def test_workers_are_counted_node_by_node(
    nodes: list[dict[str, float]], share: dict[str, float], n_workers: int, room: int
) -> None:
    assert room_for([Node(name="n", resources=has) for has in nodes], share, n_workers) == room


def test_a_cluster_takes_as_many_trials_as_fit() -> None:
    facts = cluster({"CPU": 16, "GPU": 4}, {"CPU": 2, "GPU": 4})
    assert slots(facts, gpus_per_trial=2) == 3  # the second node has cores for two workers only
    assert slots(facts, gpus_per_trial=2, slots=2) == 2


@pytest.mark.parametrize(
    ("resources", "gpus", "words"),
    [
        ({}, 0, "1 CPU and no GPU"),
        ({"cpus_per_trial": 2}, 1, "2 CPUs and 1 GPU"),
        ({"gpus_per_trial": 0.5}, 1, "1 CPU and 0.5 GPU"),
        ({"gpus_per_trial": 2}, 2, "2 workers, 2 CPUs and 2 GPUs"),
    ],
)
def test_what_each_trial_gets_is_told_in_words(resources: dict[str, float], gpus: int, words: str) -> None:
    facts = ClusterFacts(cpus=64, gpus=gpus, place="this machine")
    batch = {"settings": {"effective_batch_size": 8}}
    assert plan_slots(make_config(resources=resources, trial=batch).resources, facts).of_each == words


@pytest.mark.parametrize(
    ("gpus", "share", "room"), [(2, 0.4, 4), (2, 0.6, 2), (4, 0.3, 12), (1, 0.5, 2), (4, 2, 2), (2, 2, 1)]
)
def test_one_machine_takes_as_many_trials_as_fit_on_each_gpu(gpus: int, share: float, room: int) -> None:
    facts = ClusterFacts(cpus=64, gpus=gpus, place="this machine")
    assert slots(facts, gpus_per_trial=share) == room  # a fraction is taken of one GPU, never of two
    with pytest.raises(ConfigError, match=f"has room for {room} trial{'' if room == 1 else 's'} of"):
        slots(facts, gpus_per_trial=share, slots=room + 1)


def test_gpus_are_counted_by_the_drivers_page_or_else_by_their_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("sweeper.preflight.cluster._NVIDIA_GPUS", tmp_path / "gpus")
    monkeypatch.setattr("sweeper.preflight.cluster._DEVICES", tmp_path)
    assert probe_machine().gpus == 0
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert probe_machine().gpus == 2
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    assert probe_machine().gpus == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert probe_machine().gpus == 3


def test_a_cluster_that_holds_no_trial_says_what_is_missing_where() -> None:
    facts = cluster({"CPU": 16, "GPU": 2}, {"CPU": 64})
    with pytest.raises(ConfigError) as caught:
        slots(facts, gpus_per_trial=4, cpus_per_trial=8, custom_resources={"accelerator_type:A100": 0.1})
    assert str(caught.value) == (
        "No trial fits on the cluster at head:6379. It needs 4 workers with 2 CPU, 1 GPU and 0.1 "
        "accelerator_type:A100 each, and there is room for 0. The nodes have: node-0 16 CPU, 2 GPU, 0 "
        "accelerator_type:A100 (too little accelerator_type:A100); node-1 64 CPU, 0 GPU, 0 accelerator_type:A100 "
        "(too little GPU and accelerator_type:A100). Ask for less in `resources`, or add nodes."
    )


def test_more_trials_than_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="has room for 2 trials of 2 workers with 1 CPU and 1 GPU each"):
        slots(cluster({"CPU": 16, "GPU": 4}), gpus_per_trial=2, slots=3)


def test_resources_that_only_a_cluster_has_are_refused_on_one_machine() -> None:
    with pytest.raises(
        ConfigError, match=r"`resources\.custom_resources` asks for `big`, which nodes of a Ray"
    ):
        slots(ClusterFacts(cpus=4, gpus=0, place="this machine"), custom_resources={"big": 1})


def test_slots_follow_the_cluster_unless_they_are_given() -> None:
    facts = cluster({"CPU": 4})
    assert plan_slots(make_config().resources, facts).grows
    assert not plan_slots(make_config(resources={"slots": 2}).resources, facts).grows
    assert not plan_slots(make_config().resources, ClusterFacts(cpus=4, gpus=0, place="this machine")).grows


@pytest.mark.parametrize(
    ("asked", "grace_s", "is_warned"), [(500, 25.0, True), (500, 50.0, False), (4, 25.0, False)]
)
def test_more_trials_at_a_time_than_an_interrupt_leaves_time_to_record_are_warned_of(
    asked: int, grace_s: float, is_warned: bool
) -> None:
    config = make_config(resources={"slots": asked, "gpus_per_trial": 0}, failures={"grace_s": grace_s})
    with checking(config, count_slots(config), trial_functions.steady) as checked:
        found = checked()

    assert found.warnings == (
        [
            "500 trials run at a time, and once a signal ends the sweep, recording where one of them stands takes up "
            "to 0.1 s, all of them 50 s, but `failures.grace_s` is 25. The last ones would go on from an earlier "
            "checkpoint. Set it to 50 or more where what ends the sweep waits that long, or save on the way by "
            "`trial.checkpoint.every_samples`."
        ]
        if is_warned
        else []
    )
