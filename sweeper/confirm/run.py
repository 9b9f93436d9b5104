"""`sweeper confirm`: choose, train, compare."""

import dataclasses
import logging

from sweeper import api
from sweeper.confirm.again import train_or_read
from sweeper.confirm.finalists import choose_finalists, confirm_config, passed_over
from sweeper.confirm.outcome import Outcome, outcome_json, outcome_of, passed_over_sentence
from sweeper.confirm.statistics import ALPHA, TestName, refuse_too_few
from sweeper.errors import SweeperError
from sweeper.executors.attempt import TrialFunction
from sweeper.moved import follow
from sweeper.reporting.kept import keep_confirmation
from sweeper.study.study import Study

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfirmRequest:
    """What is asked for."""

    top: int = 3
    n_seeds: int = 8
    baseline: int | None = None  # a trial's number; None: the best point is the reference
    test: TestName = "t"
    alpha: float = ALPHA
    name: str | None = None  # of the confirming study; None: the study's with `-confirm`


def confirm(
    place: str,
    request: ConfirmRequest,
    *,
    options: api.LaunchOptions | None = None,
    function: TrialFunction | None = None,
) -> Outcome:
    """Train a study's finalists again with new seeds, as a study of its own, and compare them.

    One that was interrupted is gone on with; one that is finished is read. The outcome is kept in the directories of
    both studies, for their reports; where one cannot be written, that is warned of.

    Raises:
        ConfigError: If nothing could come of it; nothing was started.
        StudyMismatchError: If there is no such study, its data is not there as it was, or the confirming one is of
            another request.
        SweeperError: As `api.launch` does.
    """
    options = options or api.LaunchOptions()
    study = Study.open(place, url=options.storage)
    follow(study)
    view = study.view()
    finalists = choose_finalists(view, top=request.top, baseline=request.baseline)
    refuse_too_few(
        request.test, n_seeds=request.n_seeds, n_comparisons=len(finalists) - 1, alpha=request.alpha
    )
    config = confirm_config(view, finalists, n_seeds=request.n_seeds, name=request.name)
    warm = passed_over(view, top=request.top)
    if warm:
        logger.warning(passed_over_sentence(warm))  # before hours are spent on the others
    trained = train_or_read(config, study, options, function)
    outcome = outcome_of(
        trained, finalists, of=view.name, test=request.test, alpha=request.alpha, passed_over=warm
    )
    for directory in (trained.directory, study.directory):
        try:
            keep_confirmation(directory, outcome_json(outcome))
        except SweeperError as error:  # hours were spent on the answer: it is told whatever cannot be kept
            logger.warning("The report of the study in %s will not show this: %s", directory, error)
    return outcome
