"""How much disk a sweep needs is told before it starts, and asked for."""

import dataclasses
import json

import pytest
from cli_fixtures import cli, write_sweep
from sweeps import make_config

from sweeper.config import config_from_dict
from sweeper.errors import ConfigError
from sweeper.preflight.disk import check_disk, disk_need
from sweeper.preflight.weights import WeightFacts, count_weights, read_weights

ADAM = 12  # bytes of a trained weight and its two moments
MODEL = WeightFacts(n_parameters=1_000_000, adapter_width=5_000)


def need(
    tmp_path,
    *,
    slots=2,
    checkpoint=None,
    settings=None,
    search_space=None,
    n_rates=10,
    counts_aside=True,
    **sections,
):
    config = config_from_dict(
        {
            "study": "disk",
            "metric": "dev/loss",
            "direction": "minimize",
            "trial": {
                "model": "nobody/model",
                "train_data": "train.jsonl",
                "eval_data": {"dev": "dev.jsonl"},
                "budget": {"samples": 1024},
                "checkpoint": checkpoint or {},
                "settings": settings or {},
            },
            "search_space": {
                "learning_rate": {"grid": [1e-6 * (n + 1) for n in range(n_rates)]},
                **(search_space or {}),
            },
            **sections,
        },
        check_files=False,
    )
    return disk_need(
        config, slots=slots, directory=tmp_path / "study", weights=MODEL, counts_aside=counts_aside
    )


@pytest.mark.parametrize(
    ("checkpoint", "n_checkpoints"),
    [
        ({}, 2),  # saved only by trials that are interrupted
        ({"at": [512]}, 12),  # one each, and one that is being written in every slot
        ({"every_samples": 128}, 22),
        ({"every_samples": 128, "keep_best": 3}, 12),
    ],
)
def test_checkpoints_are_counted_as_if_no_trial_were_pruned(tmp_path, checkpoint, n_checkpoints):
    found = need(tmp_path, checkpoint=checkpoint)

    assert found.n_checkpoints == n_checkpoints
    assert found.checkpoint_bytes == 1_000_000 * ADAM
    assert found.local_bytes == n_checkpoints * found.checkpoint_bytes


PROBE = {"mode": "probe", "keep_frac": 0.5}


@pytest.mark.parametrize(
    ("sections", "n_aside"),
    [
        ({"pruner": PROBE}, 24),  # all wait at the first rung; twelve at the second, with two each
        ({"pruner": {**PROBE, "keep_frac": 0.75}}, 36),
        ({"pruner": {**PROBE, "keep_frac": 0.75}, "rungs": {"fractions": [0.1]}}, 24),
        ({"pruner": PROBE, "checkpoint": {"at": [512]}}, 48),
        ({"pruner": "early_dynamics"}, 2 * 18),  # six run to their end, the others wait at several rungs
        ({"pruner": "early_dynamics", "rungs": {"fractions": [0.1]}}, 18),
        ({"pruner": "early_dynamics", "checkpoint": {"at": [512]}}, 48),
        ({"pruner": {"set_aside": False}}, 0),
        ({"pruner": {"mode": "certain"}}, 0),
        ({"pruner": "median"}, 0),
    ],
)
def test_trials_that_are_set_aside_keep_their_checkpoints(tmp_path, sections, n_aside):
    found = need(tmp_path, slots=4, n_rates=24, **sections)

    assert (found.n_aside, found.n_checkpoints) == (n_aside, n_aside + 4)
    assert found.local_bytes == found.n_checkpoints * 1_000_000 * ADAM
    assert ("of trials that are set aside" in found.line()) == (n_aside > 0)


def test_of_a_study_that_has_begun_nobody_is_counted_who_could_be_set_aside(tmp_path):
    found = need(tmp_path, slots=4, n_rates=24, pruner=PROBE, counts_aside=False)
    assert (found.n_aside, found.n_checkpoints) == (0, 4)


def test_too_few_points_to_learn_from_are_never_set_aside(tmp_path):
    assert need(tmp_path, n_rates=19, pruner="early_dynamics").n_checkpoints == 2


@pytest.mark.parametrize(("max_gb", "n"), [(0.1, 8), (0.01, 3), (1.0, 38)])
def test_a_bound_in_bytes_bounds_those_that_are_set_aside_too(tmp_path, max_gb, n):
    found = need(tmp_path, n_rates=24, pruner="early_dynamics", checkpoint={"max_gb": max_gb})

    assert (
        found.n_checkpoints == n
    )  # of 12 MB; two trials run, and one may be set aside before the size is known
    assert found.local_bytes == max(min(int(max_gb * 1e9), 38 * 12_000_000), 3 * 12_000_000)
    assert found.n_aside == min(n, 36)


def test_a_bound_in_bytes_leaves_every_waiting_trial_of_a_probe_its_newest_checkpoint(tmp_path):
    found = need(tmp_path, n_rates=24, pruner=PROBE, checkpoint={"every_samples": 128, "max_gb": 0.1})
    assert found.local_bytes == 24 * 1_000_000 * ADAM

    with pytest.raises(ConfigError, match=r"set no trial aside \(`pruner\.set_aside: false`"):
        check_disk(dataclasses.replace(found, free_bytes=0))


def test_a_budget_of_bytes_bounds_them_all(tmp_path):
    assert need(tmp_path, checkpoint={"every_samples": 128, "max_gb": 0.1}).local_bytes == 100_000_000


def test_an_object_store_needs_room_here_only_for_what_is_being_sent(tmp_path):
    found = need(tmp_path, checkpoint={"every_samples": 128, "url": "s3://bucket/x"})

    assert found.checkpoints_bytes == 22 * 12_000_000
    assert found.local_bytes == 2 * 12_000_000
    assert "in s3://bucket/x; " in found.line()


def test_adapters_and_the_optimiser_decide_what_a_checkpoint_holds(tmp_path):
    lora = need(tmp_path, settings={"method": "lora", "lora_rank": 8})
    ranks = need(
        tmp_path, settings={"method": "lora"}, search_space={"lora_rank": {"int": [4, 64], "step": 4}}
    )
    sgd = need(tmp_path, search_space={"optimizer": {"choice": ["sgd", "adamw_torch"]}})
    models = need(tmp_path, checkpoint={"save_model": True})

    assert lora.checkpoint_bytes == 8 * 5_000 * ADAM
    assert ranks.checkpoint_bytes == 64 * 5_000 * ADAM
    assert sgd.checkpoint_bytes == 1_000_000 * ADAM
    assert (models.n_models, models.model_bytes) == (10, 4_000_000)


def test_embeddings_get_no_adapters():
    shapes = {
        "model.embed_tokens.weight": (1000, 64),
        "model.layers.0.self_attn.q_proj.weight": (64, 32),
        "model.norm.weight": (64,),
        "lm_head.weight": (1000, 64),
    }
    assert count_weights(shapes) == WeightFacts(n_parameters=130_112, adapter_width=96)


def safetensors(shape=(2, 3), n_bytes=24):
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, n_bytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(n_bytes)


def test_weights_are_counted_by_the_headers_of_whole_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    assert read_weights(tmp_path) == WeightFacts(n_parameters=6, adapter_width=5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is a Git LFS pointer.* `git lfs pull`",
        ),
        (b"", "has 0 bytes and no whole header.* Download it again"),
        (b"\x04" + bytes(7) + b"????", "is no safetensors file.* Download it again"),
        (b"\xff" * 300, "has 300 bytes and no whole header"),
        (safetensors()[:-1], r"has \d+ bytes, but by its header \d+.* Download it again"),
    ],
)
def test_weights_that_were_not_downloaded_whole_are_refused(tmp_path, content, told):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=f"model.safetensors` {told}"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"weight_map": {}}', '{"weight_map": 3}'])
def test_an_index_that_lists_no_weights_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ConfigError, match=r"index\.json` .*weight file.* Download it again"):
        read_weights(tmp_path)


def test_a_functions_checkpoints_are_unknown_until_their_size_is_given(tmp_path):
    function = make_config(trial={"checkpoint": {"every_samples": 20}})
    unknown = disk_need(function, slots=1, directory=tmp_path)
    sized = make_config(trial={"checkpoint": {"every_samples": 20, "size_gb": 2}})

    assert "give the size of one checkpoint as `trial.checkpoint.size_gb`" in unknown.line()
    check_disk(unknown)
    assert disk_need(sized, slots=1, directory=tmp_path).local_bytes == (4 * 2 + 1) * 2_000_000_000
    assert disk_need(make_config(), slots=1, directory=tmp_path) is None


def test_what_an_earlier_part_of_the_sweep_has_written_is_not_asked_for_again(tmp_path):
    sized = make_config(trial={"checkpoint": {"every_samples": 20, "size_gb": 0.0001}})
    found = disk_need(sized, slots=1, directory=tmp_path)
    full = type(found)(**{**vars(found), "free_bytes": 0})
    with pytest.raises(
        ConfigError, match=r"may need 900 kB at .*, where 0 bytes are free: at most 900 kB for 9 "
    ):
        check_disk(full)

    (tmp_path / "trials/0").mkdir(parents=True)
    (tmp_path / "trials/0/state").write_bytes(b"x" * 900_000)
    check_disk(full)


def test_plan_prints_the_disk_and_launch_refuses_a_sweep_that_does_not_fit(tmp_path):
    words = (
        "budget: {samples: 100}",
        "budget: {samples: 100}\n  checkpoint: {every_samples: 20, size_gb: 1e6}",
    )
    sweep = write_sweep(tmp_path, words)

    plan = cli("plan", sweep)
    told = json.loads(cli("plan", sweep, "--json").out)["disk"]
    elsewhere = cli(
        "plan", sweep, "--dir", tmp_path / "study", "--storage", f"sqlite:///{tmp_path}/s.db", "--json"
    )
    launch = cli("launch", sweep, "--executor", "in-process", "--dir", tmp_path / "study")

    assert json.loads(elsewhere.out)["disk"]["directory"] == str(tmp_path / "study")
    assert not (tmp_path / "s.db").exists()
    assert "disk: at most 10,000 TB for 10 checkpoints of 1,000 TB in " in plan.out
    assert told["n_checkpoints"] == 10
    assert launch.code == 2
    assert "error: The sweep may need 10,000 TB at" in launch.err
    assert "`trial.checkpoint.keep_best`" in launch.err
    assert not (tmp_path / "study").exists()
