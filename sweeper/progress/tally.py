"""How far a sweep has come, counted in trials, and how long the rest may take."""

from collections import Counter
from collections.abc import Iterable

from sweeper.config.models import SweepConfig
from sweeper.plan import n_undrawn
from sweeper.records import TrialRecord

MIN_ETA_S = 5.0  # an estimate from less says nothing


class Tally:
    """The trials of a study by state. One that has ended counts as 1, one that is begun as its trained part.

    Args:
        config: The study's.
        records: The trials as the driver found them: what they had trained then is not this driver's speed.
    """

    def __init__(self, config: SweepConfig, records: Iterable[TrialRecord]) -> None:
        found = list(records)
        self.n_trials = len(found) + n_undrawn(config, found)
        self._states = {record.number: record.state for record in found}
        self._fracs = {record.number: _frac(record) for record in found}
        self.counts = Counter(self._states.values())
        self._begun = {number for number, frac in self._fracs.items() if 0 < frac < 1}  # not heard of yet
        self._before = sum(self._fracs.values())  # what earlier drivers did
        self.done = self._before

    @property
    def n_ended(self) -> int:
        """How many trials have ended, whoever drove them."""
        return sum(number for state, number in self.counts.items() if state.is_finished)

    def note(self, record: TrialRecord) -> None:
        """Take a trial as it stands now. Cheap."""
        number = record.number
        if number not in self._states:
            # What the sampler draws is in the total already; what somebody adds is not.
            self.n_trials += record.origin is not None
        else:
            self.counts[self._states[number]] -= 1
        self.counts[record.state] += 1
        self._states[number] = record.state
        self.n_trials = max(self.n_trials, len(self._states))
        more = _frac(record) - self._fracs.get(number, 0.0)
        if number in self._begun:
            self._begun.remove(number)
            if (
                not record.state.is_finished
            ):  # it goes on from its checkpoint, not from where it was seen last
                self._before += more
        self.done += more
        self._fracs[number] = _frac(record)

    def left_s(self, elapsed_s: float) -> float | None:
        """Return the seconds that the rest takes at this driver's pace; None where too little is known of that."""
        done, left = self.done - self._before, self.n_trials - self.done
        if done <= 1e-6 or left <= 0 or elapsed_s < MIN_ETA_S:
            return None
        return elapsed_s / done * left


def _frac(record: TrialRecord) -> float:
    return 1.0 if record.state.is_finished else record.own_frac
