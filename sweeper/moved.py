"""Paths that are others than a study has recorded, but name the same: its project was moved or mounted elsewhere."""

import os
import sys
from collections.abc import Iterable, Mapping

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import DataSource, TrialSection
from sweeper.errors import ConfigError
from sweeper.preflight.environment import input_hash
from sweeper.study.study import Study
from sweeper.training.data_identity import named_sources, source_content, with_sources

_MODEL, _TEMPLATE, _FUNCTION_DIR = "model", "chat_template", "function_dir"


def as_recorded(study: Study, config: SweepConfig) -> SweepConfig:
    """Return a config with the study's own paths wherever its others name the same content, to compare the two.

    What a path names is held against what the study noted: of data when it began, of model and chat template when it
    was last started. A path that nothing was noted of stays.
    """
    was, now = _paths(study.config.trial), _paths(config.trial)
    others = [place for place, path in now.items() if place in was and was[place] != path]
    return _with_paths(config, {place: was[place] for place in _unchanged(study, config.trial, others)})


def follow(study: Study) -> None:
    """Let an opened study name what moved along with its directory, where that is not where it was recorded.

    A path that is gone is looked for as far from the directory as it was, and taken where the content is as noted.
    The directory of the user's function may have other content, as it may wherever it lies. Each is told on stderr;
    nothing is written.
    """
    began, trial = study.recorded_directory, study.config.trial
    if began == study.directory:
        return
    paths = _paths(trial) | ({_FUNCTION_DIR: trial.function_dir} if trial.function_dir is not None else {})
    gone = {place: path for place, path in paths.items() if os.path.isabs(path) and not os.path.exists(path)}
    beside = {
        place: os.path.normpath(study.directory / os.path.relpath(path, began))
        for place, path in gone.items()
    }
    beside = {place: path for place, path in beside.items() if os.path.exists(path)}
    candidate = _with_paths(study.config, beside).trial
    same = _unchanged(study, candidate, beside.keys() - {_FUNCTION_DIR})
    found = {place: path for place, path in beside.items() if place in (*same, _FUNCTION_DIR)}
    study.config = _with_paths(study.config, found)
    for place, path in beside.items():
        told = f"is now {path}" if place in found else f"is gone; {path} is not what the study noted of it"
        print(f"moved: `trial.{place}` was {gone[place]} and {told}", file=sys.stderr)


def with_kept_prior(study: Study, config: SweepConfig) -> SweepConfig:
    """Return a sweep file's config with the study's own `pruner.prior`, where that place is gone and was read before.

    What the earlier study showed is kept in this one, so it is not needed any more, wherever it lies now.
    """
    kept = study.config.pruner.prior
    if kept is None or config.pruner.prior is None or os.path.exists(kept) or not study.prior():
        return config
    return config.model_copy(update={"pruner": config.pruner.model_copy(update={"prior": kept})})


def _paths(trial: TrialSection) -> dict[str, str]:
    """Return what a `trial` section names by path, or by a hub's id, by the place there."""
    named = {_MODEL: trial.model, _TEMPLATE: trial.chat_template}
    paths = {place: path for place, path in named.items() if path is not None}
    return paths | {place: source.path for place, source in named_sources(trial).items()}


def _with_paths(config: SweepConfig, paths: Mapping[str, str]) -> SweepConfig:
    def at(place: str, source: DataSource) -> DataSource:
        return source.model_copy(update={"path": paths[place]}) if place in paths else source

    own = {place: paths[place] for place in (_MODEL, _TEMPLATE, _FUNCTION_DIR) if place in paths}
    return config.model_copy(update={"trial": with_sources(config.trial, at).model_copy(update=own)})


def _unchanged(study: Study, trial: TrialSection, places: Iterable[str]) -> list[str]:
    """Return those of some places that name, in `trial`, what the study noted there."""
    facts, sessions = study.facts(), study.environments()
    rows = {} if facts is None else facts.sources
    hashes = sessions[-1].get("inputs", {}) if sessions else {}
    return [
        place
        for place in places
        if _is_there(place, _paths(trial)[place])
        and (
            rows[place] == _content(named_sources(trial)[place])
            if place in rows
            else hashes.get(place) is not None and hashes[place] == input_hash(trial, place)
        )
    ]


def _is_there(place: str, path: str) -> bool:
    return os.path.isdir(path) if place == _MODEL else os.path.exists(path)


def _content(source: DataSource) -> str | None:
    try:
        return source_content(source)
    except (ConfigError, OSError):
        return None  # the check of the data tells what is wrong with it
