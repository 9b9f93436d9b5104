"""The quickstart's data and tokenizer are what their scripts make, no eval prompt is trained on, and all is small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "examples" / "tiny"


def prompts(name: str) -> set[str]:
    rows = [json.loads(line) for line in (TINY / "data" / name).read_text(encoding="utf-8").splitlines()]
    return {turn["content"] for row in rows for turn in row["messages"] if turn["role"] == "user"}


def test_the_data_is_what_its_script_draws(tmp_path: Path) -> None:
    subprocess.run([sys.executable, TINY / "make_data.py", "--out", tmp_path], check=True, cwd=TINY)

    names = {path.name for path in (TINY / "data").iterdir()}
    assert names == {path.name for path in tmp_path.iterdir()}
    for name in names:
        assert (tmp_path / name).read_bytes() == (TINY / "data" / name).read_bytes()


def test_no_prompt_of_an_eval_set_is_trained_on() -> None:
    trained = prompts("train.jsonl")

    assert len(trained) > 1000
    for name in ("eval_new.jsonl", "eval_kept.jsonl"):
        assert len(prompts(name)) == 96
        assert not prompts(name) & trained


def test_the_model_and_its_data_are_small() -> None:
    sizes = [
        path.stat().st_size for path in TINY.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    ]

    assert sum(sizes) < 5e6


@pytest.mark.train
def test_the_tokenizer_is_what_the_model_s_script_trains(tmp_path: Path) -> None:
    code = "import make_model, sys; make_model.train_tokenizer().save_pretrained(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=TINY)

    made, shipped = (
        json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        for place in (tmp_path, TINY / "model")
    )
    assert made == shipped
