"""Reads the tiny model's eval sets for the tasks beside this file."""

import json
from pathlib import Path

import datasets

DATA = Path(__file__).resolve().parent.parent / "data"


def load_new(**_):
    return load("eval_new.jsonl")


def load_kept(**_):
    return load("eval_kept.jsonl")


def load(name):
    rows = [json.loads(line)["messages"] for line in (DATA / name).read_text().splitlines()]
    content = [{"question": user["content"], "answer": assistant["content"]} for user, assistant in rows]
    return {"test": datasets.Dataset.from_list(content)}
