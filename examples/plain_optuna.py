"""Early stopping by early dynamics in plain Optuna, with the transformers Trainer: no Ray, no sweep file.

    python examples/plain_optuna.py
    python examples/plain_optuna.py --budget 512 --rank      by the rank of loss and norm instead of by prediction

What it is    24 points of batch size x learning rate of the tiny model, one after the other; poor ones are stopped.
What it needs one CPU core and about a minute.
What to copy  `EarlySignals`: it collects loss and gradient norm of every step, reports them at the rungs, and asks
              Optuna whether the trial is to go on.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import optuna
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from sweeper.pruners import EarlyDynamicsPruner, RankedSignal, report_rung

TINY = Path(__file__).parent / "tiny"
BATCHES = (8, 16, 32, 64)
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RUNGS = (0.1, 0.2, 0.3, 0.5, 0.7)  # of the budget, in samples: the same for every batch size
WINDOW_STEPS = 8


class EarlySignals(TrainerCallback):
    """Reports a trial's windowed signals at each rung, and stops it when the pruner says so."""

    def __init__(self, trial: optuna.Trial, *, batch_size: int, budget: int) -> None:
        self.is_pruned = False
        self._trial = trial
        self._batch_size = batch_size
        self._marks = [round(fraction * budget) for fraction in RUNGS]
        self._window: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Take in one step's loss and gradient norm; the Trainer logs them after every step."""
        if "loss" not in (logs or {}) or self.is_pruned:
            return
        # The norm is that of the whole step's gradient, before clipping.
        step = {"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"])}
        self._window = [*self._window, step][-WINDOW_STEPS:]
        before = (state.global_step - 1) * self._batch_size
        samples = state.global_step * self._batch_size
        passed = [index for index, mark in enumerate(self._marks) if before < mark <= samples]
        if not passed:
            return
        rung = passed[-1]  # of two rungs on one step the later one counts
        means = {name: sum(row[name] for row in self._window) / len(self._window) for name in step}
        report_rung(
            self._trial,
            rung=rung,
            mark=self._marks[rung],
            step=state.global_step,
            samples=samples,
            signals=means,
        )
        self.is_pruned = self._trial.should_prune()
        control.should_training_stop = self.is_pruned


class Chats(torch.utils.data.Dataset):
    """Tokenised chats; only the answer's tokens count."""

    def __init__(self, path: Path, tokenizer: Any, *, limit: int) -> None:
        rows = [json.loads(line)["messages"] for line in path.read_text().splitlines()[:limit]]
        self._rows = [_encoded(messages, tokenizer) for messages in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._rows[index]


def _encoded(messages: list[dict[str, str]], tokenizer: Any) -> dict[str, list[int]]:
    asked = tokenizer.apply_chat_template(
        messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    return {"input_ids": whole, "labels": [-100] * len(asked) + whole[len(asked) :]}


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right."""
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in rows])

    return {
        "input_ids": padded("input_ids", 0),
        "labels": padded("labels", -100),
        "attention_mask": torch.tensor(
            [[i < len(row["input_ids"]) for i in range(width)] for row in rows]
        ).long(),
    }


def train(trial: optuna.Trial, data: dict[str, Chats], *, budget: int) -> float:
    """Train one point; return its mean held-out loss on new and kept skills."""
    batch_size = trial.suggest_categorical("effective_batch_size", BATCHES)
    rate = trial.suggest_float("learning_rate", min(RATES), max(RATES), log=True)
    torch.manual_seed(0)
    signals = EarlySignals(trial, batch_size=batch_size, budget=budget)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(TINY / "model"),
            args=TrainingArguments(
                output_dir=folder,
                max_steps=budget // batch_size,
                per_device_train_batch_size=batch_size,
                per_device_eval_batch_size=64,
                learning_rate=rate,
                lr_scheduler_type="constant",
                logging_steps=1,
                logging_nan_inf_filter=False,  # or a NaN loss is logged as 0.0, the best there is
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                seed=0,
                remove_unused_columns=False,
            ),
            train_dataset=data["train"],
            data_collator=collate,
            callbacks=[signals],
        )
        trainer.remove_callback(
            next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback")
        )
        trainer.train()
        if signals.is_pruned:
            raise optuna.TrialPruned
        losses = [trainer.evaluate(data[name])["eval_loss"] for name in ("new", "kept")]
    return sum(losses) / len(losses)


def make_pruner(*, by_rank: bool) -> EarlyDynamicsPruner:
    """Return the pruner: by prediction, or by a rank whose directions were measured on this data."""
    if not by_rank:
        return EarlyDynamicsPruner(n_points=len(BATCHES) * len(RATES))
    low = RankedSignal(direction="minimize")
    return EarlyDynamicsPruner(signals={"loss": low, "grad_norm": low}, keep_frac=0.5)


def main() -> None:
    """Run the grid and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=int, default=1024, help="samples per point")
    parser.add_argument("--rank", action="store_true", help="judge by rank, not by prediction")
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
    files = {"train": "train", "new": "eval_new", "kept": "eval_kept"}
    data = {
        name: Chats(TINY / "data" / f"{file}.jsonl", tokenizer, limit=args.budget)
        for name, file in files.items()
    }
    study = optuna.create_study(direction="minimize", pruner=make_pruner(by_rank=args.rank))
    grid = [{"effective_batch_size": batch, "learning_rate": rate} for batch in BATCHES for rate in RATES]
    # Any order will do; one that is spread out lets the pruner learn from all of the grid.
    for index in range(len(grid)):
        study.enqueue_trial(grid[index * 7 % len(grid)])
    study.optimize(lambda trial: train(trial, data, budget=args.budget), n_trials=len(grid))
    for state in ("COMPLETE", "PRUNED"):
        print(f"{sum(trial.state.name == state for trial in study.trials)} {state}")
    print(f"best: {study.best_params} with a held-out loss of {study.best_value:.4f}")


if __name__ == "__main__":
    main()
