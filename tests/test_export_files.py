"""The lock file and the model directory of an exported trial."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from export_fixtures import LORA, finished_study
from sweeps import make_config, make_study

from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.plan import DataFacts
from sweeper.records import StepRow, TrialState
from sweeper.reporting.export.chosen import choose_trial
from sweeper.reporting.export.run import ExportRequest, run_export


def test_lock_holds_what_the_result_stands_on(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    place = tmp_path / "lock.json"

    done = run_export(str(study.directory), ExportRequest(lock=place))

    lock = json.loads(place.read_text())
    record = study.view().best
    assert record is not None
    assert (lock["study"], lock["trial"], lock["value"]) == ("made", 1, 0.75)
    assert lock["point_id"] == record.point_id
    assert (lock["seed"], lock["total_steps"], lock["budget_samples"]) == (0, 6, 48)
    assert lock["settings"]["lr_scheduler_kwargs"] == {"num_cycles": 2}
    assert lock["versions"]["of the study"]["optuna"] == lock["versions"]["of this file"]["optuna"]
    hashed = hashlib.sha256((tmp_path / "train.jsonl").read_bytes()).hexdigest()
    assert lock["train_data"][0]["files"]["train.jsonl"]["sha256"] == hashed
    assert lock["eval_data"]["dev"]["files"]["train.jsonl"]["sha256"] == hashed
    assert lock["model"]["files"]["config.json"]["bytes"] == 2
    assert done.said == (f"wrote {place}",)


def test_data_of_the_hub_is_named_with_the_commit_that_was_trained_on(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trial={"train_data": [{"path": "org/rows"}]})
    study.set_facts(DataFacts(rows=10, target_tokens=30, sources={"train_data[0]": "commit " + "a" * 40}))

    run_export(str(study.directory), ExportRequest(lock=tmp_path / "lock.json"))

    lock = json.loads((tmp_path / "lock.json").read_text())
    (trained_on,) = choose_trial(study.view(), study.facts(), 1).trial.sources
    assert (lock["train_data"][0]["revision"], trained_on.revision) == ("a" * 40, "a" * 40)


def test_lock_of_a_trial_function_has_no_model(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", make_config())

    run_export(str(study.directory), ExportRequest(number=0, lock=tmp_path / "lock.json"))

    lock = json.loads((tmp_path / "lock.json").read_text())
    assert (lock["model"], lock["train_data"]) == (None, [])
    assert lock["settings"]["learning_rate"] == 1e-5


def test_lock_of_lost_data_is_refused(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    (tmp_path / "train.jsonl").unlink()

    with pytest.raises(ConfigError, match=r"The data file `.*train\.jsonl` does not exist"):
        run_export(str(study.directory), ExportRequest(lock=tmp_path / "lock.json"))

    assert not (tmp_path / "lock.json").exists()


def test_model_directory_has_the_trials_model_and_a_card(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    kept = study.directory / "trials" / "1" / "model"
    kept.mkdir(parents=True)
    (kept / "model.safetensors").write_bytes(b"weights")
    study.curves.write(1, [StepRow(step, step * 8, 0, 3.0 - step / 10, 1.0, 1e-5) for step in range(1, 7)])

    done = run_export(str(study.directory), ExportRequest(model=tmp_path / "out"))

    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"weights"
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    assert "base_model" not in card  # a local path means nothing on a hub
    assert "the best trial of the 3 of study `made` with score = 0.75 (maximize)" in card
    assert "| score | 0.75 |" in card
    assert "| learning_rate | 1e-05 |" in card
    assert "| training | train.jsonl |" in card
    assert "| 6 | 48 | 2.4 | 1 |" in card
    assert str(tmp_path) not in card
    assert done.said[-1] == f"publish it: hf upload YOUR_NAME/made-trial-1 {tmp_path / 'out'}"


def test_commands_to_copy_hold_together_where_a_path_has_blanks(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a $(b)")
    place = str(study.directory)
    with pytest.raises(StudyMismatchError, match=re.escape(f"`sweeper report '{place}'` writes best.yaml")):
        run_export(place, ExportRequest(model=tmp_path / "out"))
    (study.directory / "trials" / "1" / "model").mkdir(parents=True)

    out = tmp_path / "x y.yaml"
    done = run_export(place, ExportRequest(format_name="trl", out=out, model=tmp_path / "an out"))
    assert done.said[-1].endswith(f" '{tmp_path / 'an out'}'")
    assert f"run it: trl sft --config '{out}'" in done.said
    assert f"# Run it:  trl sft --config '{out}'\n" in out.read_text()
    done = run_export(place, ExportRequest(format_name="training-args", out=out))
    assert done.said[-1].endswith(f".parse_yaml_file('{out}')")


def test_card_of_a_functions_model_tells_what_varied_and_not_its_settings(tmp_path: Path) -> None:
    settings = {"effective_batch_size": 10, "endpoint": "https://me:s3cret@host"}
    config = make_config(trial={"settings": settings}, metric="a|b<script>")
    study = make_study(tmp_path / "study", config)
    study.claim(0)
    study.finish(0, TrialState.COMPLETE, value=0.5, metrics={"a|b<script>": 0.5})
    (study.directory / "trials" / "0" / "model").mkdir(parents=True)

    run_export(str(study.directory), ExportRequest(model=tmp_path / "out"))

    card = (tmp_path / "out" / "README.md").read_text()
    assert "s3cret" not in card
    assert "| learning_rate |" in card
    assert "| a\\|b&lt;script&gt; | 0.5 |" in card
    assert "with a\\|b&lt;script&gt; = 0.5" in card


def test_card_of_adapters_names_peft(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trial={"settings": LORA})
    kept = study.directory / "trials" / "1" / "model"
    kept.mkdir(parents=True)
    for name in ("adapter_config.json", "generation_config.json"):
        (kept / name).write_text("{}")

    run_export(str(study.directory), ExportRequest(model=tmp_path / "out"))

    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: peft" in card
    assert "AutoPeftModelForCausalLM" in card
    assert 'model.generation_config = GenerationConfig.from_pretrained(".")' in card


def test_trial_without_a_model_says_how_to_get_one(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    place = str(study.directory)

    with pytest.raises(
        StudyMismatchError,
        match=r"kept no model.*`sweeper launch .*/report/best\.yaml`",
    ):
        run_export(place, ExportRequest(model=tmp_path / "out"))
    with pytest.raises(
        StudyMismatchError, match=r"Trial 0 .*sweep\.yaml trial\.checkpoint\.save_model=true`"
    ):
        run_export(place, ExportRequest(number=0, model=tmp_path / "out"))

    assert not (tmp_path / "out").exists()


def test_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    (study.directory / "trials" / "1" / "model").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(ConfigError, match=r"`--model`: .*out exists and is not empty"):
        run_export(str(study.directory), ExportRequest(model=tmp_path / "out"))

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_pruned_trials_lock_has_no_value(tmp_path: Path) -> None:
    study = finished_study(tmp_path)

    run_export(str(study.directory), ExportRequest(number=2, lock=tmp_path / "lock.json"))

    assert json.loads((tmp_path / "lock.json").read_text())["value"] is None
    assert study.records()[2].state is TrialState.PRUNED
