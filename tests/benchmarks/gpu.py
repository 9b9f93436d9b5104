"""What a sweep of a large model makes of one GPU: how soon trials start, how long it stands idle, and its memory.

A randomly initialised Llama of about a billion parameters, stored in bfloat16, is swept over the quickstart's data with
the quickstart's pruner, one trial at a time. Times are `idle.py`'s; `busy` is the share of the time from the first
trial's start to the last one's end in which the GPU had work, as nvidia-smi samples it. Tokens/s beside TRL's own
trainer are `step.py`'s: `--width 2048 --layers 16 --length 512`.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from idle import ROOT, run, sentence

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
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        f"-lms={_SAMPLE_MS}",
    ]
    with file.open("w") as out:
        watcher = subprocess.Popen(words, stdout=out)
        try:
            yield
        finally:
            watcher.terminate()
            watcher.wait()


def busy_share(file: Path, sweep_s: float) -> float:
    """Return the mean of the samples of the sweep itself: those before its first trial are left out."""
    samples = [float(line) for line in file.read_text().split()]
    return statistics.fmean(samples[-round(sweep_s * 1000 / _SAMPLE_MS) :]) / 100


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
        if has_gpu:
            with watched(root / "busy"):
                found = run(root / "study", overrides, executor=options.executor)
            found["busy"] = busy_share(root / "busy", found["sweep_s"])
        else:
            found = run(root / "study", overrides, executor=options.executor)
    where = torch.cuda.get_device_name() if has_gpu else "the CPU"
    print(f"{n_parameters / 1e6:,.0f} million parameters on {where}")
    print(sentence("9 points, one slot", found, 1))
    if has_gpu:
        print(f"the GPU was busy {found['busy']:.0%} of the sweep")
    if options.json:
        options.json.write_text(json.dumps(found | {"parameters": n_parameters}, indent=1))


if __name__ == "__main__":
    main()
