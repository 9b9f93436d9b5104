"""What people use instead of sweeper, each running the same trials as `overhead.py`'s yardstick.

Each returns a `Run`: seconds from the first trial's readiness and from the start of everything to the last trial's end,
and the share of all trials' training that was spent. Those that stop trials early do so by their own rule.
"""

import dataclasses
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.channel import TrialStopped
from sweeper.config.models import SweepConfig
from sweeper.plan import plan_sweep, trial_spec
from sweeper.records import Report
from sweeper.trial_spec import TrialSpec

SLOTS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One measured run."""

    ready_s: float  # from the first worker's readiness to the last trial's end
    start_s: float  # from the start of everything to the end of everything
    spent: float = 1.0  # share of the training
    values: dict[int, float] = dataclasses.field(
        default_factory=dict
    )  # of the points that were trained to the end

    @property
    def chosen(self) -> int:
        """The point that it finds best."""
        return max(self.values, key=lambda index: self.values[index])


class Sink:
    """A channel that hands reports to a function; where that returns True, the trial ends."""

    def __init__(self, take: Callable[[Report], bool] = lambda report: False) -> None:
        self._take = take
        self._stops = False
        self.samples = 0

    def send(self, report: Report, *, wait: bool) -> None:
        if report.rows:
            self.samples = report.rows[-1].samples
        self._stops = self._stops or self._take(report)
        if self._stops:
            raise TrialStopped

    def should_stop(self) -> bool:
        return self._stops

    def should_pause(self) -> bool:
        return False


def specs(config: SweepConfig, directory: str) -> list[TrialSpec]:
    """Return what each trial trains."""
    return [
        trial_spec(config, point, number=n, attempt=1, trial_dir=f"{directory}/{n}", threads=1)
        for n, point in enumerate(plan_sweep(config).points)
    ]


def _ready() -> float:
    """Import what training needs; return when that was done."""
    from sweeper.training import warm

    warm.preload()
    return time.time()


def _write_times(folder: Path, index: int, ready: float, samples: int, value: float | None = None) -> None:
    (folder / str(index)).write_text(json.dumps([ready, time.time(), samples, value]))


def _measured(folder: Path, config: SweepConfig, n_trials: int, started: float) -> Run:
    by_point = {int(path.name): json.loads(path.read_text()) for path in folder.iterdir()}
    times = list(by_point.values())
    ready, ended = min(one[0] for one in times), max(one[1] for one in times)
    budget = config.trial.budget.samples
    assert budget is not None
    return Run(
        ready_s=ended - ready,
        start_s=time.time() - started,
        spent=sum(one[2] for one in times) / (n_trials * budget),
        values={index: one[3] for index, one in by_point.items() if one[3] is not None},
    )


def ray_tune(config: SweepConfig, *, reuse_actors: bool = False, asha: bool = False) -> Run:
    """Plain Ray Tune with a grid; with `asha`, under its ASHAScheduler at the config's rungs."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    started = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        ray.init(
            address="local",
            num_cpus=SLOTS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            folder = Path(scratch, "times")
            folder.mkdir()
            todo = specs(config, scratch)

            def train(params: dict[str, Any]) -> None:
                from sweeper.executors.attempt import run_attempt

                index, ready = params["index"], _ready()

                def take(report: Report) -> bool:
                    if asha and "score" in report.metrics:
                        samples = report.rows[-1].samples
                        _write_times(folder, index, ready, samples)  # ASHA ends the process
                        tune.report({"score": report.metrics["score"], "samples": samples})
                    return False

                outcome = run_attempt(todo[index], Sink(take))
                assert outcome.report is not None, outcome.error
                value = outcome.report.metrics["score"]
                _write_times(folder, index, ready, todo[index].budget_samples, value)
                tune.report({"score": value, "samples": todo[index].budget_samples})

            scheduler = None
            if asha:
                scheduler = ASHAScheduler(
                    time_attr="samples", metric="score", mode="max", grace_period=min(todo[0].marks),
                    max_t=todo[0].budget_samples,
                )  # fmt: skip
            tune.Tuner(
                tune.with_resources(train, {"cpu": 1}),
                param_space={"index": tune.grid_search(list(range(len(todo))))},
                tune_config=tune.TuneConfig(reuse_actors=reuse_actors, scheduler=scheduler),
                run_config=tune.RunConfig(storage_path=scratch, verbose=0),
            ).fit()
        finally:
            ray.shutdown()
        assert len(list(folder.iterdir())) == len(todo)
        return _measured(folder, config, len(todo), started)


def optuna_processes(config: SweepConfig) -> Run:
    """Optuna's own way to several processes: a journal file, its MedianPruner, every point enqueued."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    started = time.time()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "times")
        folder.mkdir()
        todo = specs(config, scratch)
        storage = JournalStorage(JournalFileBackend(f"{scratch}/journal"))
        study = optuna.create_study(storage=storage, study_name="peer", direction="maximize")
        for index in range(len(todo)):
            study.enqueue_trial({"index": index})
        workers = [
            context.Process(target=_optuna_worker, args=(f"{scratch}/journal", todo, folder))
            for _ in range(SLOTS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(list(folder.iterdir())) == len(todo)
        return _measured(folder, config, len(todo), started)


def _optuna_worker(journal: str, todo: list[TrialSpec], folder: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState

    from sweeper.executors.attempt import run_attempt

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name="peer",
        storage=JournalStorage(JournalFileBackend(journal)),
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.MedianPruner(),
    )
    ready = _ready()

    def objective(trial: optuna.Trial) -> float:
        index = trial.suggest_int("index", 0, len(todo) - 1)

        def take(report: Report) -> bool:
            if "score" not in report.metrics:
                return False
            trial.report(report.metrics["score"], report.rows[-1].samples)
            return trial.should_prune()

        sink = Sink(take)
        outcome = run_attempt(todo[index], sink)
        assert outcome.error is None, outcome.error
        if outcome.report is None or "score" not in outcome.report.metrics:
            _write_times(folder, index, ready, sink.samples)
            raise optuna.TrialPruned
        value = outcome.report.metrics["score"]
        _write_times(folder, index, ready, todo[index].budget_samples, value)
        return value

    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if waiting:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        study.optimize(objective, callbacks=[MaxTrialsCallback(len(todo), states=states)])


def hyperparameter_search(config: SweepConfig) -> Run:
    """transformers' own search over Optuna's grid: one process, a fresh model for every trial, the same evaluation."""
    started = time.time()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "times")
        folder.mkdir()
        worker = context.Process(target=_search_worker, args=(config, scratch, folder))
        worker.start()
        worker.join()
        n_trials = len(plan_sweep(config).points)
        assert len(list(folder.iterdir())) == n_trials
        return _measured(folder, config, n_trials, started)


def _search_worker(config: SweepConfig, scratch: str, folder: Path) -> None:
    import optuna
    import torch
    from transformers import Trainer, TrainingArguments
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from sweeper.config.trial_models import TrainSettings
    from sweeper.training.evaluation import Evaluator
    from sweeper.training.model import load_model
    from sweeper.training.tokenizer import load_tokenizer
    from sweeper.training.tokens import load_train_rows

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    ready = _ready()
    todo = specs(config, scratch)
    trial, settings = config.trial, TrainSettings.model_validate(todo[0].settings)
    tokenizer = load_tokenizer(trial)
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    rows = load_train_rows(trial, settings, tokenizer)
    evaluator = Evaluator(trial, settings, tokenizer, collate)
    current = 0

    class Searched(Trainer):  # type: ignore[misc]
        """Evaluates as the trials of the others do."""

        def evaluate(self, *args: Any, **others: Any) -> dict[str, float]:
            found = {f"eval_{name}": value for name, value in evaluator.measure(self.model).items()}
            _write_times(folder, current, ready, todo[current].budget_samples, found["eval_score"])
            return found

    arguments = TrainingArguments(
        output_dir=scratch, max_steps=todo[0].total_steps or 0,
        per_device_train_batch_size=todo[0].micro_batch_size or 1,
        gradient_accumulation_steps=todo[0].gradient_accumulation_steps or 1, lr_scheduler_type="constant",
        save_strategy="no", eval_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Searched(
        model_init=lambda: load_model(trial, settings),
        args=arguments,
        train_dataset=rows.dataset,
        data_collator=collate,
    )

    def hp_space(trial: optuna.Trial) -> dict[str, Any]:
        nonlocal current
        current = trial.suggest_categorical("point", range(len(todo)))
        spec = todo[current]
        return {
            "learning_rate": spec.settings["learning_rate"],
            "per_device_train_batch_size": spec.micro_batch_size,
            "gradient_accumulation_steps": spec.gradient_accumulation_steps,
            "max_steps": spec.total_steps,
        }

    trainer.hyperparameter_search(
        hp_space=hp_space,
        n_trials=len(todo),
        direction="maximize",
        backend="optuna",
        compute_objective=lambda metrics: metrics["eval_score"],
        sampler=optuna.samplers.GridSampler({"point": range(len(todo))}),
    )
