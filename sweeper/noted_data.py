"""Data as it was noted when a study began, which whoever goes on with it or trains its points again is held to."""

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import DataSource
from sweeper.errors import StudyMismatchError
from sweeper.plan import DataFacts
from sweeper.readiness import study_directory
from sweeper.study.study import Study
from sweeper.training.data_identity import changed_sources, named_sources, pinned
from sweeper.training.hub import is_commit
from sweeper.training.sources import is_local


def with_noted_data(config: SweepConfig, *studies: Study | None) -> SweepConfig:
    """Return a config with data of the hub at the commits that studies noted, the last one's word above the others'.

    For what is checked before anything is trained; every trial is held to what its own study notes.
    """
    if config.trial.function is not None:
        return config
    trial = config.trial
    for study in studies:
        facts = None if study is None else study.facts()
        if facts is not None:
            trial = pinned(trial, facts.sources)
    return config.model_copy(update={"trial": trial})


def as_its_study_noted(config: SweepConfig) -> SweepConfig:
    """Return a sweep's config with data of the hub as the study of its name noted it, if that began with the same data.

    Launched again, the sweep goes on with that study, so this is what a plan counts and measures. A database is not
    looked into: to open one makes tables in it, which a plan must not.
    """
    sources = named_sources(config.trial)
    if config.storage is not None or not any(map(_may_move, sources.values())):
        return config
    study = Study.find(name=config.study, url=None, directory=study_directory(config))
    if study is None or named_sources(study.config.trial) != sources:
        return config
    return with_noted_data(config, study)


def check_data_of(first: Study, config: SweepConfig, facts: DataFacts | None) -> None:
    """Refuse to train points of a study again on other data than its own.

    Args:
        first: The study whose points they are.
        config: Of the one that trains them again.
        facts: What the data holds now.

    Raises:
        StudyMismatchError: With every source that has other content.
    """
    told = _changed(first, config, facts)
    if told:
        raise StudyMismatchError(
            f"Cannot train trials of study `{first.name}` again, since nothing could be compared: {told} other content "
            "than when it began. Restore the data, or launch a new study with what is there now."
        )


def check_noted_data_of(first: Study, again: Study) -> None:
    """Refuse to go on with a study of another one's points that began with other data than that one.

    Raises:
        StudyMismatchError: With every source of which they note other content.
    """
    told = _changed(first, again.config, again.facts())
    if told:
        raise StudyMismatchError(
            f"Cannot go on with study `{again.name}`, which trains trials of study `{first.name}` again: {told} other "
            f"content in it than in `{first.name}`. Restore the data that `{first.name}` began with, and choose "
            "another name with `--name`."
        )


def _may_move(source: DataSource) -> bool:
    return not is_local(source) and not is_commit(source.revision)


def _changed(first: Study, config: SweepConfig, facts: DataFacts | None) -> str:
    """Return the sources that are not what a study noted of them, with their verb; empty where there are none."""
    began = first.facts()
    if began is None or facts is None:
        return ""
    named = changed_sources(config.trial, began.sources, facts.sources)
    return f"{', '.join(named)} {'has' if len(named) == 1 else 'have'}" if named else ""
