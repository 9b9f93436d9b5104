"""Train points of a study once more, as a study of its own that lies beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper import api
from sweeper.config.models import SweepConfig
from sweeper.config.names import MAX_STUDY_NAME
from sweeper.config.pruner_models import PrunerSection
from sweeper.config.space_models import Dimension, SamplerSection
from sweeper.errors import NothingToDoError
from sweeper.executors.attempt import TrialFunction
from sweeper.readiness import LaunchOptions, study_directory, with_options
from sweeper.study.study import Study
from sweeper.study.view import StudyView


def points_config(
    view: StudyView,
    points: Sequence[Mapping[str, Any]],
    *,
    name: str | None,
    suffix: str,
    dimensions: Mapping[str, Dimension] | None = None,
) -> SweepConfig:
    """Return a sweep over listed points of a study, each trained to its end.

    The search space stays, with `dimensions` put in, since the budget is rounded to what fits all of its batches.
    """
    config = view.config
    study = name or f"{config.study[: MAX_STUDY_NAME - len(suffix)]}{suffix}"
    space = {**config.search_space, **(dimensions or {})}
    settings = {key: value for key, value in config.trial.settings.items() if key not in space}
    return config.model_copy(
        update={
            "study": study,
            "trial": config.trial.model_copy(update={"settings": settings}),
            "search_space": space,
            "points": [dict(point) for point in points],
            "sampler": SamplerSection(name="grid"),
            "pruner": PrunerSection(name="nop"),
            "dir": str(view.directory.with_name(study)),
        }
    )


def train_or_read(
    config: SweepConfig, first: Study, options: LaunchOptions, function: TrialFunction | None = None
) -> StudyView:
    """Run the sweep, or go on with it, on the data that the first study began with; one that is finished is read.

    Args:
        config: Of points of the first study.
        first: Whose points they are.
        options: Where and how to run.
        function: As in `api.launch`.

    Raises:
        StudyMismatchError: If the data is not there as it was, before anything is trained.
        SweeperError: As `api.launch` does.
    """
    config = with_options(config, options)
    try:
        return api.launch(config, options=options, function=function, data_of=first)
    except NothingToDoError:
        found = Study.find(name=config.study, url=config.storage, directory=study_directory(config))
        assert found is not None, "it is finished, so it is there"
        found.move_to(study_directory(config))
        return found.view()
