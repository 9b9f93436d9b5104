"""A study as its driver writes it. Only one driver writes, the one that took the study."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState as OptunaState

from sweeper import encoding
from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.params import params_key
from sweeper.plan import DataFacts, Point
from sweeper.records import Origin, RungRecord, TrialRecord, TrialState
from sweeper.storage_url import keep_password
from sweeper.study import keys, space
from sweeper.study.clock import utc_now
from sweeper.study.drawing import draw_trial
from sweeper.study.failed import from_scratch
from sweeper.study.held import HeldStudy
from sweeper.study.interface import Drawn
from sweeper.study.storage import Journal
from sweeper.study.stored_points import point_attributes, stored_point, waiting_trial

# In search of a new point. All of them take 0.15 s (2 cores, November 2026).
_RANDOM_DRAWS = 1000


class DrivenStudy(HeldStudy):
    """One study in its storage. Writes go through at once."""

    # -- points ----------------------------------------------------------------------------------------------

    def add_points(self, points: Sequence[Point]) -> None:
        """Enter points as WAITING trials, each with its id; those that are there already are left alone.

        Once all were entered, a later version of the code that would hash them differently enters none again. Nor are
        points entered again whose id would be another one now, since a worker has other threads.
        """
        if self.is_complete:
            return
        entered = from_scratch(self.records())
        known = {record.point_id for record in entered}
        known |= {params_key(record.params) for record in entered if not record.is_continued}
        dimensions = self._dimensions()
        self._enter(
            [
                waiting_trial(point, dimensions)
                for point in points
                if known.isdisjoint((point.point_id, params_key(point.params)))
            ]
        )
        self._writable.set_study_user_attr(self._id, keys.N_POINTS, len(points))

    def expect_points(self) -> None:
        """Let the next `add_points` enter those that are missing, as the study is extended."""
        self._writable.set_study_user_attr(self._id, keys.N_POINTS, None)

    def add_trial(self, point: Point, origin: Origin) -> int:
        """Enter one more point as a WAITING trial and return its number."""
        trial_id = self._writable.create_new_trial(
            self._id, waiting_trial(point, self._dimensions(), _origin_attributes(origin))
        )
        number = self._storage.get_trial_number_from_id(trial_id)
        self._trial_ids[number] = trial_id
        return number

    def add_trials(self, added: Sequence[tuple[Point, Origin]]) -> None:
        """Enter more points as WAITING trials, in their order."""
        dimensions = self._dimensions()
        self._enter([waiting_trial(point, dimensions, _origin_attributes(origin)) for point, origin in added])

    def _dimensions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution of every dimension as the study's trials have it.

        A database refuses a dimension whose choices differ from trial to trial (optuna 5.0).
        """
        found = space.distributions(self.config)
        left = set(found)
        for trial in self.frozen_trials():
            for name in left & set(trial.distributions):
                found[name] = trial.distributions[name]
                left.discard(name)
            if not left:
                break
        return found

    def record_origin(self, number: int, origin: Origin) -> None:
        """Replace what is known of where a trial comes from."""
        self._set(number, encoding.ORIGIN, dataclasses.asdict(origin))

    def draw(
        self,
        point_of: Callable[[dict[str, Any]], Point],
        *,
        is_new: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Drawn:
        """Let the sampler draw one more point; it is RUNNING at once, whole. One that cannot be trained is FAIL.

        Args:
            point_of: Resolves params to a point; raises `ConfigError` where they cannot be trained.
            is_new: Whether params are new. Given, they are drawn at random instead, until some are.
        """
        points: list[Point] = []
        refused: list[str] = []

        def attributes_of(params: dict[str, Any]) -> tuple[OptunaState, dict[str, Any]]:
            try:
                points.append(point_of(space.from_choices(params)))
            except ConfigError as error:
                refused.append(f"this point cannot be trained: {error}")
                return OptunaState.FAIL, {encoding.REASON: refused[0]}
            return OptunaState.RUNNING, {encoding.POINT: stored_point(points[0], dimensions)[1]}

        def samplers_of(n_drawn: int) -> Iterator[BaseSampler]:
            if is_new is None:
                return iter([space.make_sampler(self.config, n_drawn=n_drawn)])
            return space.random_samplers(self.config, n_drawn=n_drawn, n=_RANDOM_DRAWS)

        dimensions = space.distributions(self.config)
        trial = draw_trial(
            self._writable, self.name, samplers_of, dimensions, attributes_of,
            is_wanted=lambda params: is_new is None or is_new(space.from_choices(params)),
        )  # fmt: skip
        self._trial_ids[trial.number] = trial._trial_id
        return Drawn(
            number=trial.number, params=space.from_choices(trial.params), point=next(iter(points), None),
            refused=next(iter(refused), None),
        )  # fmt: skip

    def record_exhausted(self) -> None:
        """Keep that the sampler knows no new point; true until more are to be drawn."""
        self._writable.set_study_user_attr(self._id, keys.EXHAUSTED, self.config.sampler.n_trials)

    def set_point(self, number: int, point: Point) -> None:
        """Record the point of a trial that was entered by other means than this package's."""
        self._set(number, encoding.POINT, point_attributes(point))

    def claim(self, number: int) -> None:
        """Turn a WAITING trial to RUNNING.

        Raises:
            StudyMismatchError: If somebody else did.
        """
        with (
            self._storage.backend.apart() if isinstance(self._storage, Journal) else contextlib.nullcontext()
        ):
            is_mine = self._writable.set_trial_state_values(self._trial_id(number), OptunaState.RUNNING)
        if not is_mine:
            raise StudyMismatchError(
                f"Trial {number} of study `{self.name}` was taken by another driver. Only one driver may run a study."
            )

    def skip(self, number: int) -> None:
        """Turn a WAITING trial to RUNNING that is ended before it begins.

        In a block `together` it is written with the rest, without a look at whether somebody else took it meanwhile:
        the lease keeps other drivers away, and a claim of its own for each of thousands would take minutes.

        Raises:
            StudyMismatchError: If somebody else took it, where that is known.
        """
        if isinstance(self._storage, Journal) and self._storage.backend.is_gathering:
            self._writable.set_trial_state_values(self._trial_id(number), OptunaState.RUNNING)
        else:
            self.claim(number)

    # -- what happens to a trial -----------------------------------------------------------------------------

    def record_attempt(self, number: int, attempt: int, facts: Mapping[str, Any]) -> None:
        """Keep what is known of one attempt (from 1): worker, started, ended, outcome, error, seconds."""
        self._set(number, f"{encoding.ATTEMPT_PREFIX}{attempt}", encoding.encode(facts))

    def record_progress(self, record: TrialRecord) -> None:
        progress = {
            "step": record.step,
            "samples": record.samples,
            "tokens": record.tokens,
            "loss": record.last_loss,
            "grad_norm": record.last_grad_norm,
            "train_s": record.train_s,
            "evaluation_s": record.evaluation_s,
        }
        self._set(record.number, encoding.PROGRESS, encoding.encode(progress))

    def record_rung(self, number: int, rung: RungRecord) -> None:
        """Keep a rung's signals, and the study's metric there as Optuna's intermediate value.

        The intermediate value's step is the mark, the same for every batch size, so that Optuna's plots and
        pruners compare like with like.
        """
        self._set(number, f"{encoding.RUNG_PREFIX}{rung.rung}", encoding.encode_rung(rung))
        value = rung.signals.get(self.config.metric)
        if value is not None:
            self._writable.set_trial_intermediate_value(self._trial_id(number), rung.mark, value)

    def record_decision(self, number: int, index: int, entry: Mapping[str, Any]) -> None:
        self._set(number, f"{encoding.DECISION_PREFIX}{index}", encoding.encode({**entry, "at": utc_now()}))

    def record_read_off(self, number: int, source: int, *, at: str) -> None:
        """Keep that a trial is the beginning of a longer one, and is not trained itself."""
        self._set(number, encoding.READ_OFF, {"trial": source, "at": at})

    def record_checkpoint(self, number: int, name: str) -> None:
        self._set(number, encoding.CHECKPOINT, name)

    def finish(
        self,
        number: int,
        state: TrialState,
        *,
        value: float | None = None,
        metrics: Mapping[str, float] | None = None,
        reason: str | None = None,
    ) -> None:
        """End a trial for good. Everything else about it must be recorded before; nothing can be after."""
        if metrics:
            self._set(number, encoding.METRICS, encoding.encode(metrics))
        if reason:
            self._set(number, encoding.REASON, reason)
        values = [value] if value is not None else None
        self._writable.set_trial_state_values(self._trial_id(number), OptunaState[state.name], values)

    # -- the study as a whole --------------------------------------------------------------------------------

    def set_facts(self, facts: DataFacts) -> None:
        """Record what preflight found of the data; budgets in epochs or tokens and every trial stand on it."""
        stored: dict[str, Any] = {
            "rows": facts.rows,
            "target_tokens": facts.target_tokens,
            "sources": dict(facts.sources),
        }
        if facts.sets:
            stored["sets"] = {name: list(counts) for name, counts in facts.sets.items()}
        self._writable.set_study_user_attr(self._id, keys.FACTS, stored)

    def record_environment(self, environment: Mapping[str, Any]) -> None:
        """Add what this driver runs on and with."""
        text = json.dumps([*self.environments(), environment])
        self._writable.set_study_user_attr(self._id, keys.ENVIRONMENTS, text)

    def record_evidence(self, evidence: Sequence[Mapping[str, Any]]) -> None:
        """Keep what the early signals were worth, as measured when the sweep ended."""
        text = json.dumps(
            encoding.encode(list(evidence))
        )  # one text: some storages are slow with deep values
        self._writable.set_study_user_attr(self._id, keys.EVIDENCE, text)

    def record_prior(self, trials: Sequence[TrialRecord]) -> None:
        """Keep what the study that `pruner.prior` names has shown, in place of an earlier one."""
        stored = {"place": self.config.pruner.prior, "trials": [encoding.encode_prior(one) for one in trials]}
        self._writable.set_study_user_attr(self._id, keys.PRIOR, json.dumps(stored))

    def record_micro_batches(self, limits: Mapping[str, Mapping[str, int]]) -> None:
        """Replace what `micro_batches` returns."""
        stored = {kind: dict(by_device) for kind, by_device in limits.items()}
        self._writable.set_study_user_attr(self._id, keys.MICRO_BATCHES, stored)

    def update_config(self, config: SweepConfig) -> None:
        """Replace the recorded config, where only what may change has changed."""
        self.config = config.model_copy(update={"storage": keep_password(config.storage)})
        stored = json.loads(self.config.model_dump_json())
        self._writable.set_study_user_attr(self._id, keys.CONFIG, stored)
        self._stored_config = stored

    def record_directory(self) -> None:
        """Keep where the study's directory lies now, if that is not where it lay."""
        if self.directory != self.recorded_directory:
            self._writable.set_study_user_attr(self._id, keys.DIRECTORY, str(self.directory))
            self.recorded_directory = self.directory

    def record_rungs_of(self, config: SweepConfig) -> None:
        """Keep the config that the rungs were worked out from, before they are written into the study's."""
        self._writable.set_study_user_attr(self._id, keys.RUNGS_OF, json.loads(config.model_dump_json()))

    def _set(self, number: int, key: str, value: Any) -> None:
        self._writable.set_trial_user_attr(self._trial_id(number), key, value)


def _origin_attributes(origin: Origin) -> dict[str, Any]:
    """Return what is kept of where a trial comes from."""
    attributes: dict[str, Any] = {encoding.ORIGIN: dataclasses.asdict(origin)}
    if origin.continues is not None:
        attributes[encoding.CONTINUES] = origin.continues
    return attributes
