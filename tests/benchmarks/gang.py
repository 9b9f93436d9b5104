"""How soon two workers train the next trial together: a warm gang, and Ray's own TorchTrainer inside a Tune trial.

Each trial is one collective and one report, so what is measured is what lies between two trials: from the last thing
that one trial's workers compute together to the first thing of the next one's. Both run on the same Ray, one trial at
a time, on CPUs with gloo.

    python tests/benchmarks/gang.py [--trials 4] [--repeats 3] [--json FILE]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from sweeper.config import config_from_dict
from sweeper.context import TrialContext

WORKERS = 2


def together(rank: int, place: str) -> None:
    """Compute something on all ranks; note when, on rank 0."""
    import torch
    import torch.distributed as dist

    number = torch.tensor(float(rank))
    dist.all_reduce(number)
    if rank == 0:
        with open(place, "a") as file:
            file.write(f"{time.time()}\n")


def trial(context: TrialContext) -> dict[str, float]:
    """A trial of ours."""
    together(context.rank, context.settings["place"])
    context.report(step=1, samples=1, loss=1.0)
    return {"score": 1.0}


def warm_gang(n_trials: int, place: str, directory: str) -> None:
    from sweeper.executors.ray_tune import RayTuneExecutor
    from sweeper.orchestrator import Orchestrator
    from sweeper.plan import plan_sweep
    from sweeper.pruners.judge import divergence_rules, make_judge
    from sweeper.study.study import Study

    config = config_from_dict(
        {
            "study": "gang",
            "metric": "score",
            "direction": "maximize",
            "trial": {"function": "none:none", "budget": {"samples": 1}, "settings": {"place": place}},
            "search_space": {"x": {"grid": list(range(n_trials))}},
            "pruner": "nop",
            "resources": {"workers_per_trial": WORKERS, "gpus_per_trial": 0},
        }
    )
    study = Study.create(config, directory=Path(directory))
    study.add_points(plan_sweep(config).entered_points)
    orchestrator = Orchestrator(
        study=study, plan=plan_sweep(config), judge=make_judge(config), rules=divergence_rules(config)
    )
    RayTuneExecutor(slots=1, workers_per_trial=WORKERS, function=trial, preload=False).run(orchestrator)


def torch_trainer(n_trials: int, place: str, directory: str) -> None:
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def train(config: dict[str, Any]) -> None:
        import ray.train

        together(ray.train.get_context().get_world_rank(), config["place"])
        ray.train.report({"loss": 1.0})

    def drive(config: dict[str, Any]) -> None:
        TorchTrainer(
            train,
            train_loop_config={"place": place},
            scaling_config=ScalingConfig(num_workers=WORKERS, use_gpu=False),
            run_config=RunConfig(storage_path=directory, name=f"trial-{config['x']}"),
        ).fit()

    tune.Tuner(
        tune.with_resources(drive, {"cpu": 1}),
        param_space={"x": tune.grid_search(list(range(n_trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=directory, name="tune", verbose=0),
    ).fit()


def measure(run: Callable[[int, str, str], None], n_trials: int) -> dict[str, Any]:
    """Return the seconds to the first trial's training, and from each one's to the next one's."""
    with tempfile.TemporaryDirectory() as directory:
        place = f"{directory}/times"
        started = time.time()
        study = Path(directory, "study")
        study.mkdir()
        run(n_trials, place, str(study))
        times = [float(line) for line in Path(place).read_text().split()]
    assert len(times) == n_trials, times
    return {"first_s": times[0] - started, "next_s": [after - before for before, after in pairwise(times)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=4, help="of each kind in each repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    from sweeper.executors.ray_session import ray  # type: ignore[attr-defined]  # with its settings

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    kinds = {"warm gang": warm_gang, "TorchTrainer in Tune": torch_trainer}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for _ in range(options.repeats):  # in turns, so that what else the machine does meets both
        for name, run in kinds.items():
            found[name].append(measure(run, options.trials))
    ray.shutdown()

    print(f"{'':24}{'first trial':>12}{'next trial':>12}   (median s; range of the next)")
    medians = {}
    for name, runs in found.items():
        following = [gap for run in runs for gap in run["next_s"]]
        medians[name] = statistics.median(following)
        first = statistics.median(run["first_s"] for run in runs)
        print(f"{name:24}{first:12.2f}{medians[name]:12.2f}   {min(following):.2f} to {max(following):.2f}")
    ratio = medians["warm gang"] / medians["TorchTrainer in Tune"]
    print(f"a warm gang takes {ratio:.3f} of the time")
    if options.json is not None:
        options.json.write_text(json.dumps({"runs": found, "ratio": ratio}, indent=1))


if __name__ == "__main__":
    main()
