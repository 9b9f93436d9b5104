"""The names in the config are those of the libraries, so that a new version of one tells us."""

import importlib

import optuna
import pytest

from sweeper.config.names import (
    METRIC_SCHEDULES,
    OPTIMIZERS,
    OPTUNA_PRUNERS,
    OPTUNA_SAMPLERS,
    SCHEDULER_TYPES,
)


@pytest.mark.train
def test_the_schedules_are_those_of_transformers() -> None:
    utilities = importlib.import_module("transformers.trainer_utils")
    assert [member.value for member in utilities.SchedulerType] == list(SCHEDULER_TYPES)


@pytest.mark.train
def test_the_optimizers_are_those_of_transformers() -> None:
    arguments = importlib.import_module("transformers.training_args")
    assert [member.value for member in arguments.OptimizerNames] == list(OPTIMIZERS)


def test_schedules_that_follow_a_metric_are_among_the_schedules() -> None:
    assert set(METRIC_SCHEDULES) < set(SCHEDULER_TYPES)


def test_pruners_and_samplers_are_classes_of_optuna() -> None:
    for name in OPTUNA_PRUNERS.values():
        assert issubclass(getattr(optuna.pruners, name), optuna.pruners.BasePruner)
    for name in OPTUNA_SAMPLERS.values():
        assert issubclass(getattr(optuna.samplers, name), optuna.samplers.BaseSampler)
