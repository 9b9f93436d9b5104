"""Drawing a point: Optuna's sampler asks and suggests on a draft, and the finished trial is entered at once.

Optuna enters a trial first and its params one by one, so a driver that is killed in between leaves a trial that has
half of them, for ever.
"""

import copy
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper import encoding
from sweeper.records import Origin
from sweeper.study.space import quiet_samplers

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy  # what BaseStorage's own signature names

_DRAFT = -1  # the id of the trial that is being drawn; storages count from 0


def draw_trial(
    storage: BaseStorage,
    study_name: str,
    samplers_of: Callable[[int], Iterator[BaseSampler]],
    dimensions: Mapping[str, BaseDistribution],
    attributes_of: Callable[[dict[str, Any]], tuple[TrialState, dict[str, Any]]],
    *,
    is_wanted: Callable[[dict[str, Any]], bool] = lambda params: True,
) -> FrozenTrial:
    """Let a sampler draw one more point and enter it as a trial, whole.

    Args:
        storage: Where it is entered.
        study_name: The study's name there.
        samplers_of: Given how many trials there are, returns who draws: one after another, until a point is wanted.
        dimensions: The search space.
        attributes_of: Given the params, returns the state and the user attributes to enter with them.
        is_wanted: Whether params will do; the last sampler's are entered anyway.
    """
    draft = _DraftStorage(storage, storage.get_study_id_from_name(study_name))
    with quiet_samplers():
        for sampler in samplers_of(draft.n_trials):
            draft.clear()
            study = optuna.load_study(study_name=study_name, storage=draft, sampler=sampler)
            study.ask(dict(dimensions))
            if is_wanted(draft.params):
                break
    return draft.enter(attributes_of)


class _DraftStorage(BaseStorage):
    """Reads from a storage and keeps what a draw writes, until all of it can be entered.

    Its trials are read once: a sampler asks for them up to five times, and a database sends the unfinished ones anew
    each time.
    """

    def __init__(self, real: BaseStorage, study_id: int) -> None:
        self._real = real
        self._study_id = study_id
        self._trials = real.get_all_trials(study_id, deepcopy=False)
        self._draft: FrozenTrial | None = None
        self._study_attributes: dict[str, Any] = {}  # where QMC keeps its position

    @property
    def n_trials(self) -> int:
        return len(self._trials)

    @property
    def params(self) -> dict[str, Any]:
        """What was drawn last, as Optuna keeps it."""
        return dict(self.get_trial(_DRAFT).params)

    def clear(self) -> None:
        """Forget what was drawn."""
        self._draft, self._study_attributes = None, {}

    def enter(
        self, attributes_of: Callable[[dict[str, Any]], tuple[TrialState, dict[str, Any]]]
    ) -> FrozenTrial:
        drawn = self.get_trial(_DRAFT)
        state, attributes = attributes_of(self.params)
        whole = create_trial(
            state=state,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=attributes,
            system_attrs=drawn.system_attrs,
        )
        # The position first: killed in between, a sequence leaves out a point; the other way it would repeat one.
        for key, value in self._study_attributes.items():
            self._real.set_study_system_attr(self._study_id, key, value)
        return self._real.get_trial(self._real.create_new_trial(self._study_id, whole))

    # -- the draft -------------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        assert template_trial is None, "only the sampler's own trial is drawn here"
        self._draft = create_trial(state=TrialState.RUNNING)
        self._draft.number = self.n_trials
        self._draft._trial_id = _DRAFT
        return _DRAFT

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id != _DRAFT:
            return self._real.get_trial(trial_id)
        assert self._draft is not None
        return self._draft

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        drawn = self.get_trial(trial_id)
        drawn.distributions = {**drawn.distributions, param_name: distribution}
        drawn.params = {**drawn.params, param_name: distribution.to_external_repr(param_value_internal)}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id != _DRAFT:
            self._real.set_trial_system_attr(trial_id, key, value)
            return
        drawn = self.get_trial(_DRAFT)
        drawn.system_attrs = {**drawn.system_attrs, key: value}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._study_attributes[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return {**self._real.get_study_system_attrs(study_id), **self._study_attributes}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return all that teach a sampler, and the draft.

        Not the WAITING ones: `ask` would take one of them instead of drawing. Nor those that train another one on:
        with more data than the others they are not compared with them. Nor those that began with another one's weights:
        what they come to is not what their params give.
        """
        found = [
            trial
            for trial in self._trials
            if trial.state is not TrialState.WAITING
            and encoding.CONTINUES not in trial.user_attrs
            and not _is_warm(trial)
            and (states is None or trial.state in states)
        ]
        if deepcopy:
            found = copy.deepcopy(found)
        shown = self._draft is not None and (states is None or self._draft.state in states)
        return [*found, self.get_trial(_DRAFT)] if shown else found

    # -- what is only read -----------------------------------------------------------------------------------

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._study_id  # asked for at every draw, of which there may be hundreds for one point

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._real.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._real.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._real.get_study_user_attrs(study_id)

    def get_all_studies(self) -> "list[FrozenStudy]":
        return self._real.get_all_studies()

    # -- what no draw does -----------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise NotImplementedError

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        raise NotImplementedError

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        raise NotImplementedError

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        raise NotImplementedError


def _is_warm(trial: FrozenTrial) -> bool:
    origin = trial.user_attrs.get(encoding.ORIGIN)
    return origin is not None and Origin(**origin).is_warm
