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
        self.counts = Counter(self._states.values())
        # The trained part of each trial that has not ended.
        self._fracs = {record.number: record.own_frac for record in found if not record.state.is_finished}
        self._unheard = {number for number, frac in self._fracs.items() if frac}
        self._before = self.done  # what earlier drivers did

    @property
    def n_ended(self) -> int:
        """How many trials have ended, whoever drove them."""
        return sum(number for state, number in self.counts.items() if state.is_finished)

    @property
    def done(self) -> float:
        """How many trials' training is done."""
        return self.n_ended + sum(self._fracs.values())

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
        frac = self._fracs.pop(number, 0.0)
        if record.state.is_finished:
            return
        if number in self._unheard:  # it goes on from its checkpoint, not from where it was seen last
            self._unheard.remove(number)
            self._before += record.own_frac - frac
        self._fracs[number] = record.own_frac

    def left_s(self, elapsed_s: float) -> float | None:
        """Return the seconds that the rest takes at this driver's pace; None where too little is known of that."""
        done, left = self.done - self._before, self.n_trials - self.done
        if done < 1e-6 or left <= 0 or elapsed_s < MIN_ETA_S:
            return None
        return elapsed_s / done * left
