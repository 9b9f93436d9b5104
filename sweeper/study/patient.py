"""A database storage that is waited for while its server restarts or cannot be reached."""

import logging
import time
import uuid
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import SweeperError

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy  # what BaseStorage's own signature names

logger = logging.getLogger(__name__)

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
PATIENCE_S = (
    1800.0  # half an hour: longer than a server's upgrade, short enough that GPUs do not idle for a night
)
# Once the sweep is being stopped: a deadlock or a reset passes in that time, and it is below any cluster's grace time.
_UNWANTED_S = 10.0
# What SQLite and PostgreSQL say when there is no room: that does not pass by itself.
_FULL = ("disk is full", "no space left on device")
_TOKEN = "sweeper:token"  # the key that tells a trial which was entered from one which was not


class PatientStorage(BaseStorage):
    """Passes every call on, and again until the server answers.

    A connection that breaks while a change is committed leaves open whether it was. So a change that is made
    again must come to the same as one that was made once: attributes do; the others are looked after here. Only
    one driver writes a study, so what is found done was done by the call before.

    Args:
        inner: The storage.
        place: Its URL without password, for messages.
        enter_together: Enters all of some trials into the study of an id, or none; None where the storage cannot.
        replace: Replaces an attribute (study, key, value, and what it was) where that is what it was, and returns
            whether it was; None where the storage cannot.
        patience_s: How long to wait for an answer before giving up.
    """

    def __init__(
        self,
        inner: BaseStorage,
        *,
        place: str,
        enter_together: Callable[[int, Sequence[FrozenTrial]], None] | None = None,
        replace: Callable[[int, str, Any, Any], bool] | None = None,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._place = place
        self._enter_together = enter_together
        self._replace = replace
        self._patience_s = patience_s
        self._clock = clock
        self._sleep = sleep
        self._has_given_up = (
            False  # until it answers again: whoever hands the study back must not wait once more
        )
        # Whether nobody waits for long any more: the sweep is stopped.
        self.is_unwanted: Callable[[], bool] = lambda: False
        # Called with the storage itself before a change is made again; raises where another driver has taken over.
        self.check_again: Callable[[BaseStorage], None] = lambda inner: None

    def _write(self, call: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Make a change; after an outage only where this process may still make any."""

        def once_more() -> T:
            self.check_again(self._inner)
            return (again or call)()

        return self._patiently(call, once_more)

    def _patiently(self, call: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Return what a call returns, trying until it does; `again` is called instead after the first time."""
        since: float | None = None
        wait_s = FIRST_WAIT_S
        while True:
            try:
                result = call() if since is None or again is None else again()
            except Exception as error:
                if _is_full(error):
                    raise SweeperError(
                        f"The disk is full: the storage {self._place} takes nothing more. Everything recorded so far "
                        "is kept. Make room and go on with `sweeper resume`."
                    ) from None
                if not _is_passing(error):
                    raise
                now = self._clock()
                if since is None:
                    since = now
                    logger.warning("The storage %s does not answer; waiting for it.", self._place)
                patience_s = min(_UNWANTED_S, self._patience_s) if self.is_unwanted() else self._patience_s
                self._has_given_up |= now - since > patience_s
                if self._has_given_up:
                    raise SweeperError(
                        f"The storage {self._place} has not answered for {now - since:.0f} s. Everything recorded so "
                        "far is kept. Go on with `sweeper resume` once the server runs."
                    ) from None  # the driver's own text may hold the password
                self._sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            else:
                self._has_given_up = False
                if since is not None:
                    logger.warning("The storage %s answers again.", self._place)
                return result

    # -- studies ---------------------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._patiently(lambda: self._inner.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        self._write(lambda: self._inner.delete_study(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._write(lambda: self._inner.set_study_user_attr(study_id, key, value))

    def replace_study_user_attr(self, study_id: int, key: str, value: Any, *, seen: Any) -> bool:
        """Replace an attribute where it is what was seen last; return False, and leave it, where it is not.

        It is not either where an outage hid that it was replaced. Empty stands for an attribute that is not there.
        """
        replace = self._replace
        if replace is None:
            self.set_study_user_attr(study_id, key, value)
            return True
        return self._write(lambda: replace(study_id, key, value, seen))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._write(lambda: self._inner.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._patiently(lambda: self._inner.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._patiently(lambda: self._inner.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._patiently(lambda: self._inner.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._patiently(lambda: self._inner.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._patiently(lambda: self._inner.get_study_system_attrs(study_id))

    def get_all_studies(self) -> "list[FrozenStudy]":
        return self._patiently(self._inner.get_all_studies)

    # -- trials ----------------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Enter a trial, once: a token in it tells whether an earlier try has entered it."""
        if template_trial is None:
            return self._write(lambda: self._inner.create_new_trial(study_id))
        token = _with_token(template_trial)

        def again() -> int:
            found = self._entered(study_id).get(token)
            return self._inner.create_new_trial(study_id, template_trial) if found is None else found

        return self._write(lambda: self._inner.create_new_trial(study_id, template_trial), again)

    def create_new_trials(self, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        """Enter trials, each once: together where that goes through, else one by one, which waits for the storage."""
        tokens = [_with_token(trial) for trial in trials]
        entered: Mapping[str, int] = {}

        def so_far() -> Mapping[str, int]:
            self.check_again(self._inner)
            return self._entered(study_id)

        if self._enter_together is not None:
            try:
                self._enter_together(study_id, trials)
            except Exception as error:  # noqa: BLE001 - one by one meets the same, if it is still so, and says so
                logger.debug("%d trials could not be entered together: %s", len(trials), type(error).__name__)
                entered = self._patiently(so_far)  # a commit that broke may have gone through
            else:
                return
        for token, trial in zip(tokens, trials, strict=True):
            if token not in entered:
                self.create_new_trial(study_id, trial)

    def _entered(self, study_id: int) -> dict[str, int]:
        """Return the ids of the trials in the storage, by the tokens with which they were entered."""
        found = self._inner.get_all_trials(study_id, deepcopy=False)
        return {one.system_attrs[_TOKEN]: one._trial_id for one in found if _TOKEN in one.system_attrs}

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._write(
            lambda: self._inner.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        )

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._patiently(
            lambda: self._inner.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change a trial's state; found changed at a second try, the first one did it."""

        def again() -> bool:
            try:
                done = self._inner.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if self._inner.get_trial(trial_id).state is state:
                    return True
                raise
            return done or self._inner.get_trial(trial_id).state is state

        return self._write(lambda: self._inner.set_trial_state_values(trial_id, state, values), again)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._write(lambda: self._inner.set_trial_intermediate_value(trial_id, step, intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write(lambda: self._inner.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write(lambda: self._inner.set_trial_system_attr(trial_id, key, value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._patiently(lambda: self._inner.get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._patiently(lambda: self._inner.get_all_trials(study_id, deepcopy, states))

    def remove_session(self) -> None:
        self._inner.remove_session()


def _with_token(trial: FrozenTrial) -> str:
    """Give a trial that is to be entered a token of its own, and return it."""
    token = uuid.uuid4().hex
    trial.system_attrs = {**trial.system_attrs, _TOKEN: token}
    return token


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _is_full(error: BaseException) -> bool:
    """Whether a database has no room left, by its own words; SQLAlchemy's hold the values of a statement too."""
    said = (str(getattr(one, "orig", "")).lower() for one in _chain(error))
    return any(words in text for text in said for words in _FULL)


def _is_passing(error: BaseException) -> bool:
    """Whether an error is that of a server that is away, not that of a wrong question."""
    import sqlalchemy.exc

    passing = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError)
    return any(
        isinstance(one, (*passing, ConnectionError))
        or (isinstance(one, sqlalchemy.exc.DBAPIError) and one.connection_invalidated)
        for one in _chain(error)
    )
