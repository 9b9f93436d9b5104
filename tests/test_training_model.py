"""How the base model is read: nothing of its weights is lost, and processes share what is stored as it is used."""

import json
import subprocess
import sys

import huggingface_hub
import pytest
import safetensors.torch
import torch
import transformers
from training_fixtures import make_model_dir

from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.errors import ConfigError
from sweeper.training import model as reading
from sweeper.training.model import Stored, load_model, stored_in_16_bits

pytestmark = pytest.mark.train

# Loads a frozen base model and prints by how many bytes what the process has for itself grew.
_ANONYMOUS = """
import sys, json, re
from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.training.model import load_model

def own():
    text = open("/proc/self/smaps_rollup").read()
    return 1024 * int(re.search(r"Anonymous: *([0-9]+)", text)[1])

def load(path):
    trial = TrialSection(model=path, train_data="unused", budget={"samples": 8})
    return load_model(trial, TrainSettings(method="lora", precision="bf16"))

load(sys.argv[1])  # all that is imported on the way
before = own()
model = load(sys.argv[2])
print(json.dumps([own() - before, sum(p.numel() * p.element_size() for p in model.parameters())]))
"""


@pytest.fixture(autouse=True)
def _none_kept(monkeypatch):
    monkeypatch.setattr(reading, "_models", {})
    monkeypatch.setattr(reading, "_not_shortened", set())


def stored(path, dtype, *, seed=0):
    """Write the tiny model with its weights stored in another precision."""
    make_model_dir(path, seed=seed)
    transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype).save_pretrained(path)
    return path


def trial_of(path):
    return TrialSection(model=str(path), train_data="unused", budget={"samples": 8})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_model_is_trained_in_float32_from_exactly_the_stored_weights(tmp_path, dtype):
    path = stored(tmp_path, dtype)
    expected = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    model = load_model(trial_of(path), TrainSettings())

    assert stored_in_16_bits(trial_of(path)) == (None if dtype == torch.float32 else Stored(dtype, None))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.dtype == expected.config.dtype == torch.float32
    found, wanted = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (model, expected))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.gpu
def test_on_a_gpu_the_weights_are_read_straight_to_it(tmp_path):
    path = stored(tmp_path, torch.bfloat16)
    expected = load_model(trial_of(path), TrainSettings())
    reading._models.clear()

    model = load_model(trial_of(path), TrainSettings(), device=0)

    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("cuda", torch.float32)}
    assert all(
        torch.equal(a.cpu(), b) for a, b in zip(model.parameters(), expected.parameters(), strict=True)
    )


def test_what_the_config_says_of_the_precision_does_not_round_the_weights(tmp_path):
    path = make_model_dir(tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    expected = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    model = load_model(trial_of(path), TrainSettings())

    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


def test_weights_in_several_files_are_read_alike(tmp_path):
    whole, parts = stored(tmp_path / "whole", torch.bfloat16), tmp_path / "parts"
    transformers.AutoModelForCausalLM.from_pretrained(whole).save_pretrained(parts, max_shard_size="20KB")

    assert len(list(parts.glob("*.safetensors"))) > 1
    assert stored_in_16_bits(trial_of(parts)) == Stored(torch.bfloat16, None)
    next(iter(parts.glob("*.safetensors"))).unlink()
    assert stored_in_16_bits(trial_of(parts)) is None


def test_a_model_that_makes_buffers_in_the_precision_it_is_read_in_is_read_in_float32(tmp_path, monkeypatch):
    path, asked = stored(tmp_path, torch.bfloat16), []

    def read(trial, settings, dtype, **options):
        asked.append(dtype)
        model = transformers.AutoModelForCausalLM.from_pretrained(trial.model, dtype=dtype)
        model.register_buffer("scale", torch.tensor(1 / 3, dtype=dtype))
        return model

    monkeypatch.setattr(reading, "_read_model", read)
    monkeypatch.setattr(reading, "KEEP_BELOW_BYTES", 0)

    models = [load_model(trial_of(path), TrainSettings()) for _ in range(2)]

    assert asked == [torch.bfloat16, torch.float32, torch.float32]
    assert all(model.scale == torch.tensor(1 / 3) for model in models)


def test_a_newer_commit_than_was_looked_at_is_read_in_float32(tmp_path, monkeypatch):
    """The hub's cache holds a commit in 16 bits while a newer one, which is read, is in 32."""
    repository = tmp_path / "models--org--model"
    stored(repository / "snapshots/older", torch.bfloat16)
    newer = make_model_dir(repository / "snapshots/newer", seed=1)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("older")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    asked = []

    def read(trial, settings, dtype, **options):
        asked.append(dtype)
        (repository / "refs/main").write_text("newer")
        return transformers.AutoModelForCausalLM.from_pretrained(newer, dtype=dtype)

    monkeypatch.setattr(reading, "_read_model", read)
    assert stored_in_16_bits(trial_of("org/model")) == Stored(torch.bfloat16, "older")

    model = load_model(trial_of("org/model"), TrainSettings())

    expected = transformers.AutoModelForCausalLM.from_pretrained(newer, dtype=torch.float32)
    assert asked == [torch.bfloat16, torch.float32]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_whose_files_lack_a_weight_is_refused(tmp_path, method):
    """transformers makes it up, at random and in each trial anew."""
    path = make_model_dir(tmp_path)
    weights = safetensors.torch.load_file(path / "model.safetensors")
    del weights["model.layers.0.mlp.down_proj.weight"]
    safetensors.torch.save_file(weights, path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(
        ConfigError,
        match=r"lack 1 of its weights, the first being `model\.layers\.0\.mlp\.down_proj\.weight`",
    ):
        load_model(trial_of(path), TrainSettings(method=method))


def test_a_weight_that_is_tied_to_another_is_not_missed(tmp_path):
    path = make_model_dir(tmp_path / "own")
    config = transformers.AutoConfig.from_pretrained(path)
    config.tie_word_embeddings = True
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tied")

    model = load_model(trial_of(tmp_path / "tied"), TrainSettings())

    assert "lm_head.weight" not in safetensors.torch.load_file(tmp_path / "tied/model.safetensors")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="could not be loaded"):
        load_model(trial_of(tmp_path / "none"), TrainSettings())


def test_a_change_to_one_trials_model_is_not_seen_by_the_next(tmp_path):
    trial = trial_of(make_model_dir(tmp_path))
    first = load_model(trial, TrainSettings())
    expected = [p.clone() for p in first.parameters()]

    for model in (first, load_model(trial, TrainSettings())):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()

    again = load_model(trial, TrainSettings())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), expected, strict=True))


def test_adapters_keep_the_revision_of_their_base():
    settings = TrainSettings(method="lora")

    assert reading.lora_config(settings, revision="abc").revision == "abc"
    assert reading.lora_config(TrainSettings(), revision="abc") is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_frozen_base_model_takes_no_memory_of_a_worker_s_own(tmp_path):
    tiny = stored(tmp_path / "tiny", torch.bfloat16)
    config = transformers.AutoConfig.from_pretrained(tiny)
    config.update({"hidden_size": 512, "intermediate_size": 4096, "vocab_size": 4096})
    large = tmp_path / "large"
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(large)

    done = subprocess.run(
        [sys.executable, "-c", _ANONYMOUS, str(tiny), str(large)], capture_output=True, text=True, check=True
    )

    own, size = json.loads(done.stdout)
    assert size > reading.KEEP_BELOW_BYTES
    assert own < 0.15 * size


@pytest.mark.parametrize(("computes_in_it", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_that_only_emulates_bf16_is_not_trained_in_it(monkeypatch, computes_in_it, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or computes_in_it,
    )
    assert reading.precision(TrainSettings()) == expected
    if not computes_in_it:
        with pytest.raises(ConfigError, match="`precision: bf16` is not supported by this GPU"):
            reading.precision(TrainSettings(precision="bf16"))
