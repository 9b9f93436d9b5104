"""A study that its driver holds: only one may write, the one that took it."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from sweeper.study import keys
from sweeper.study.clock import utc_now
from sweeper.study.lease import Lease, LeaseTimes
from sweeper.study.patient import PatientStorage
from sweeper.study.reading import StoredStudy
from sweeper.study.storage import Journal
from sweeper.study.transaction import AT_ONCE
from sweeper.study.view import StudyState


class HeldStudy(StoredStudy):
    """One study in its storage, which a driver takes and hands back."""

    def __init__(self, *, storage: BaseStorage, name: str) -> None:
        super().__init__(storage=storage, name=name)
        self._lease: Lease | None = None
        self.reached: StudyState = "interrupted"  # what a driver that ends now leaves behind

    def take(self, *, times: LeaseTimes | None = None) -> None:
        """Become the driver of this study.

        Raises:
            StudyMismatchError: If another one is, with who it is.
        """
        lease = Lease(_StoredLease(self._storage, self._id), study=self.name, times=times, now=utc_now)
        lease.acquire()
        self._lease = lease
        if isinstance(self._storage, PatientStorage):
            # Not through the patience itself: who asks is waiting there already.
            self._storage.check_again = lambda inner: lease.confirm(_StoredLease(inner, self._id).read())
        if isinstance(self._storage, Journal):
            # Nor through Optuna here, which is about to write.
            self._storage.backend.guard(lambda lines: lease.confirm(_lease_in(lines, self._id)))

    def hand_back(self, state: StudyState) -> None:
        """Be its driver no more, and say how the sweep stands."""
        if self._lease is not None:
            self._lease.release(state)
            self._lease = None
            if isinstance(self._storage, PatientStorage):
                self._storage.check_again = lambda inner: None
            if isinstance(self._storage, Journal):
                self._storage.backend.guard(None)

    @property
    def is_lost(self) -> bool:
        """Whether another driver is known to have taken the study over."""
        return self._lease is not None and self._lease.is_lost

    def check_held(self) -> None:
        """Refuse to write once another driver has taken the study over. Cheap.

        Raises:
            StudyMismatchError: If so.
        """
        if self._lease is not None:
            self._lease.check()

    def give_up_when(self, is_unwanted: Callable[[], bool]) -> None:
        """Wait for a storage that does not answer for long only while somebody wants the sweep to go on."""
        if isinstance(self._storage, PatientStorage):
            self._storage.is_unwanted = is_unwanted

    @property
    def _writable(self) -> BaseStorage:
        self.check_held()
        return self._storage

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let what the block writes be committed at once, at `commit` and at its end, where the storage can.

        Databases cannot: Optuna commits each value on its own.
        """
        if isinstance(self._storage, Journal):
            with self._storage.backend.together():
                yield
        else:
            yield

    def _enter(self, trials: Sequence[FrozenTrial]) -> None:
        """Enter trials, many in one commit. A driver that is killed meanwhile has entered the first of them."""
        if isinstance(self._storage, PatientStorage):
            for first in range(0, len(trials), AT_ONCE):
                self.check_held()
                self._storage.create_new_trials(self._id, trials[first : first + AT_ONCE])
            return
        # The first by itself: Optuna's journal (5.0) cannot return a number before it has read one of its own.
        for trial in trials[:1]:
            self._writable.create_new_trial(self._id, trial)
        with self.together():
            for trial in trials[1:]:
                self._writable.create_new_trial(self._id, trial)
            self.commit()

    def commit(self) -> None:
        """Commit what a block `together` has written so far.

        Raises:
            StudyMismatchError: If another driver has taken the study over.
        """
        if isinstance(self._storage, Journal):
            self.check_held()
            self._storage.backend.commit()


class _StoredLease:
    """The lease as an attribute of the study."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id

    def read(self) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            if isinstance(self._storage, Journal):
                # In a block `together` too, what others have written is looked at.
                stack.enter_context(self._storage.backend.past_gathered())
            facts = self._storage.get_study_user_attrs(self._study_id).get(keys.DRIVER)
        return facts if isinstance(facts, dict) else {}

    def write(self, facts: dict[str, Any], *, seen: Mapping[str, Any]) -> bool:
        if isinstance(self._storage, PatientStorage):
            return self._storage.replace_study_user_attr(self._study_id, keys.DRIVER, facts, seen=seen)
        # A journal makes sure by itself, from the first write after the lease was taken on: see `take`.
        self._storage.set_study_user_attr(self._study_id, keys.DRIVER, facts)
        return True


def _lease_in(lines: list[bytes], study_id: int) -> dict[str, Any] | None:
    """Return the lease as the last of some lines of Optuna's journal has it; None where none writes it."""
    found = None
    for line in lines:
        if keys.DRIVER.encode() not in line:
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # damaged; Optuna's reader says where
        if entry.get("study_id") == study_id and isinstance(entry.get("user_attr"), dict):
            found = entry["user_attr"].get(keys.DRIVER, found)
    return found
