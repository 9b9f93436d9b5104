"""What a step costs: one trial beside TRL's own trainer with the same model, rows and settings, and its signals alone.

`tokens/s` of both, in turn, in one process; on a GPU both wait for it at the same two steps. Then the same trial under
torch's profiler: `signals` is all that is done between two steps to gather loss and norm, to look for NaN, and to send
a window each second, as a share of the step; `host reads` are the values that the host waits for in each step (on CUDA
each of them would hold it).

    python tests/benchmarks/step.py [--width 96] [--layers 2] [--length 64] [--batch 16] [--steps 60] [--repeats 3]
        [--liger]
"""

import argparse
import dataclasses
import functools
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from torch.profiler import ProfilerActivity, profile, record_function
from transformers.trainer_callback import TrainerCallback
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.records import Report
from sweeper.training import finetune
from sweeper.training.arguments import training_arguments
from sweeper.training.boundary import StepBoundary
from sweeper.training.model import load_model
from sweeper.training.tokenizer import load_tokenizer
from sweeper.training.tokens import load_train_rows
from sweeper.training.trainer import SweepTrainer

sys.path.insert(0, str(Path(__file__).parents[1]))
from training_fixtures import make_context, make_tokenizer

WARM = 5  # steps that are not counted
SIGNALS = "signals of a step"
HOST_READS = ("aten::_local_scalar_dense", "aten::nonzero")  # the host waits for the device in both


@dataclasses.dataclass
class Marks:
    """A channel that keeps when training had taken how long, by step."""

    train_s: dict[int, float] = dataclasses.field(default_factory=dict)

    def send(self, report: Report, *, wait: bool) -> None:
        if report.rows:
            self.train_s[report.rows[-1].step] = report.train_s

    def should_stop(self) -> bool:
        return False

    def should_pause(self) -> bool:
        return False


class Clock(TrainerCallback):  # type: ignore[misc]
    """Notes when two steps of TRL's trainer ended; a trial of sweeper's waits for the device at the same ones."""

    def __init__(self, steps: tuple[int, ...] = ()) -> None:
        self._steps = steps
        self.at: dict[int, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step in self._steps:
            wait_for_device()
            self.at[state.global_step] = time.monotonic()


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make_files(root: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    """Write a random model, and rows that fill the length."""
    tokenizer = make_tokenizer()
    heads = max(1, options.width // (32 if options.width < 512 else 64))  # as models of such widths have
    config = transformers.LlamaConfig(
        vocab_size=max(options.vocabulary, len(tokenizer)),
        hidden_size=options.width, intermediate_size=4 * options.width,
        num_hidden_layers=options.layers, num_attention_heads=heads,
        num_key_value_heads=heads, max_position_embeddings=max(256, options.length),
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    text = "It is red. What is the moon? " * options.length
    (root / "train.jsonl").write_text("".join(json.dumps({"text": f"{n} {text}"}) + "\n" for n in range(256)))
    return root / "model", root / "train.jsonl"


def context_of(model: Path, train: Path, root: Path, options: argparse.Namespace, channel: Marks) -> Any:
    settings = {"max_length": options.length, "loss_on": "all", "micro_batch_size": options.batch}
    settings["use_liger_kernel"] = options.liger
    return make_context(
        model, train, root, settings=settings, micro_batch_size=options.batch, gradient_accumulation_steps=1,
        total_steps=options.steps, channel=channel, metric="loss", step_marks=(WARM, options.steps),
    )  # fmt: skip


def ours(model: Path, train: Path, root: Path, options: argparse.Namespace) -> float:
    """Return the seconds of a step of a trial."""
    channel = Marks()
    finetune.run(context_of(model, train, root, options, channel))
    return (channel.train_s[options.steps] - channel.train_s[WARM]) / int(options.steps - WARM)


def bare_trainer(model: Path, train: Path, root: Path, options: argparse.Namespace, clock: Clock) -> Any:
    """Return TRL's own trainer with the same arguments."""
    context = context_of(model, train, root, options, Marks())
    trial = TrialSection.model_validate(context.spec.trial)
    settings = TrainSettings.model_validate(context.spec.settings)
    tokenizer = load_tokenizer(trial)
    arguments = training_arguments(
        settings, output_dir=root, micro_batch_size=options.batch, gradient_accumulation_steps=1,
        total_steps=options.steps, seed=0,
    )  # fmt: skip
    rows = load_train_rows(trial, settings, tokenizer)
    return trl.SFTTrainer(
        model=load_model(trial, settings), args=arguments, train_dataset=rows.dataset,
        processing_class=tokenizer, data_collator=DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id),
        callbacks=[clock],
    )  # fmt: skip


def bare(model: Path, train: Path, root: Path, options: argparse.Namespace) -> float:
    """Return the seconds of a step of TRL's trainer."""
    clock = Clock((WARM, options.steps))
    bare_trainer(model, train, root, options, clock).train()
    return (clock.at[options.steps] - clock.at[WARM]) / int(options.steps - WARM)


def marked(owner: type, name: str) -> None:
    """Let a method show in the profile as a part of the signals."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def call(*args: Any, **kwargs: Any) -> Any:
        wait_for_device()  # or the step's own passes, which are still queued there, would count as the signals'
        with record_function(SIGNALS):
            return inner(*args, **kwargs)

    setattr(owner, name, call)


def profiled(train: Any) -> dict[str, tuple[int, float]]:
    """Return how often each operation ran and its seconds on the host, of one training."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        train()
    return {event.key: (event.count, event.cpu_time_total / 1e6) for event in found.key_averages()}


def main() -> None:
    """Measure both in turn, then profile, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("width", 96),
        ("layers", 2),
        ("length", 64),
        ("vocabulary", 0),  # or as many as the tokenizer has, if those are more
        ("batch", 16),
        ("steps", 60),
        ("repeats", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--liger", action="store_true", help="the trial computes with Liger's kernels (GPUs)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        os.environ["SWEEPER_CACHE"] = f"{scratch}/cache"
        model, train = make_files(root, options)
        times: dict[str, list[float]] = {"TRL's own trainer": [], "sweeper": []}
        for number in range(options.repeats):
            for name, way in (("TRL's own trainer", bare), ("sweeper", ours)):
                gc.collect()
                times[name].append(way(model, train, root / f"{number} {name}", options))
        theirs = profiled(lambda: bare_trainer(model, train, root / "p", options, Clock()).train())
        for name in ("on_step_begin", "on_step_end"):
            marked(StepBoundary, name)
        marked(SweepTrainer, "_get_grad_norm")
        channel = Marks()
        seen = profiled(lambda: finetune.run(context_of(model, train, root / "q", options, channel)))
    medians = {name: statistics.median(found) for name, found in times.items()}
    yardstick = medians["TRL's own trainer"]
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "one CPU core"
    n_tokens = options.batch * options.length
    print(f"{options.batch} rows of {options.length} tokens a step on {where}, medians of {options.repeats}")
    for name, step_s in medians.items():
        speed = f"{n_tokens / step_s:>10.0f} tokens/s{yardstick / step_s:>7.2f} x"
        print(f"{name:<20}{step_s * 1e3:>8.1f} ms a step{speed}")
    signals_s = seen[SIGNALS][1] / options.steps
    share = signals_s / medians["sweeper"]
    reads = {
        name: sum(found.get(one, (0, 0.0))[0] for one in HOST_READS) / options.steps
        for name, found in (("TRL's own trainer", theirs), ("sweeper", seen))
    }
    print(f"signals: {signals_s * 1e6:.0f} us a step under the profiler, {share:.2%} of a step without it")
    print("host reads a step: " + ", ".join(f"{name} {count:.1f}" for name, count in reads.items()))
    if options.json is not None:
        found = {"step_s": medians, "signals_share": share, "host_reads": reads}
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
