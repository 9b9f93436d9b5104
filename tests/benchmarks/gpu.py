"""What a sweep of a large model makes of one GPU: how soon trials start, how long it stands idle, and its memory.

A randomly initialised Llama of about a billion parameters, stored in bfloat16, is swept over the quickstart's data with
the quickstart's pruner, one trial at a time. Times are `idle.py`'s; `busy` is the share of the time from the first
trial's start to the last one's end in which the GPU had work, as nvidia-smi samples it. Tokens/s beside TRL's own
trainer are `step.py`'s: `--width 2048 --layers 16 --length 512 --vocabulary 32000`.

    python tests/benchmarks/gpu.py [--width 2048] [--layers 16] [--samples 3072] [--executor ray] [--json FILE]
                                   [key=value ...]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import torch
import transformers
from idle import ROOT, launched, measured, sentence

from sweeper.study.view import StudyView

_VOCABULARY = 32_000  # as large as a real one's; the tokenizer of examples/tiny uses the first few of them
_SAMPLE_MS = 100


def make_model(target: Path, *, width: int, layers: int) -> int:
    """Write a model of random weights with the tokenizer of examples/tiny; return its number of parameters."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "examples/tiny/model")
    heads = max(1, width // 64)
    config = transformers.LlamaConfig(
        vocab_size=_VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=max(1, heads // 4), max_position_embeddings=2048,
        tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, dtype="bfloat16",
    )  # fmt: skip
    transformers.set_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return int(sum(parameter.numel() for parameter in model.parameters()))


@contextmanager
def watched(file: Path) -> Iterator[None]:
    """Let nvidia-smi write how busy the GPU is, in percent, while the block runs."""
    words = [
        "nvidia-smi",
        "--id=0",
        "--query-gpu=timestamp,utilization.gpu",
        "--format=csv,noheader,nounits",
        f"--loop-ms={_SAMPLE_MS}",
    ]
    with file.open("w") as out:
        watcher = subprocess.Popen(words, stdout=out)
        try:
            yield
        finally:
            watcher.terminate()
            watcher.wait()


def busy_share(lines: Iterable[str], begin: datetime, end: datetime) -> float | None:
    """Return the mean of the samples between two moments; None where nvidia-smi measured none, as on a part of a GPU.

    Args:
        lines: As nvidia-smi writes them: the machine's local time, and percent.
        begin: With its time zone.
        end: With its time zone.
    """
    samples = []
    for line in lines:
        moment, _, share = line.partition(",")
        try:
            at = datetime.strptime(moment.strip(), "%Y/%m/%d %H:%M:%S.%f").astimezone()
            percent = float(share)
        except ValueError:  # "[N/A]", or a line that was cut off as nvidia-smi was ended
            continue
        if begin <= at <= end:
            samples.append(percent)
    return statistics.fmean(samples) / 100 if samples else None


def window_of(view: StudyView) -> tuple[datetime, datetime]:
    """Return when a sweep's first trial started and its last one ended."""
    starts = [datetime.fromisoformat(record.started) for record in view.records if record.started]
    ends = [datetime.fromisoformat(record.ended) for record in view.records if record.ended]
    return min(starts), max(ends)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="of the sweep file")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--samples", type=int, default=3072, help="of a trial")
    parser.add_argument("--executor", choices=("ray", "in-process"), default="ray")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    has_gpu = shutil.which("nvidia-smi") is not None
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        n_parameters = make_model(root / "model", width=options.width, layers=options.layers)
        overrides = [
            f"trial.model={root / 'model'}",
            f"trial.budget.samples={options.samples}",
            f"rungs.samples=[{options.samples // 8}, {options.samples // 4}]",
            "search_space.learning_rate.grid=[1e-6, 1e-5, 1e-4]",
            "resources={slots: 1, cpus_per_trial: 1" + (", gpus_per_trial: 1}" if has_gpu else "}"),
            *options.overrides,
        ]
        busy = None
        if has_gpu:
            with watched(root / "busy"):
                view = launched(root / "study", overrides, executor=options.executor)
            busy = busy_share((root / "busy").read_text().splitlines(), *window_of(view))
        else:
            view = launched(root / "study", overrides, executor=options.executor)
        found = measured(view)
    where = torch.cuda.get_device_name() if has_gpu else "the CPU"
    print(f"{n_parameters / 1e6:,.0f} million parameters on {where}")
    print(sentence("9 points, one slot", found, 1))
    if has_gpu:
        print(
            "nvidia-smi says not how busy it was"
            if busy is None
            else f"the GPU was busy {busy:.0%} of the sweep"
        )
    if options.json:
        options.json.write_text(json.dumps(found | {"busy": busy, "parameters": n_parameters}, indent=1))


if __name__ == "__main__":
    main()
