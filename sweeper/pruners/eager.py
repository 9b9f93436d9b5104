"""The eager mode of the rank rule: whoever is at a rung is judged by those who are there now."""

from collections.abc import Mapping, Sequence

from sweeper.pruners.ranked import LISTED_PEERS, RULE, RankedSignal, shares, shown_signals, values_text
from sweeper.pruners.standings import Standings
from sweeper.records import Decision, RungRecord, TrialRecord
from sweeper.rungs import best_go_on, n_going_on


class EagerRule:
    """Stops whom `ceil(keep_frac * n)` of the n trials at a rung are better than. Keeps caches only.

    Args:
        signals: Signals to rank.
        keep_frac: Fraction that goes on.
        min_peers: Trials that must have come to a rung before anyone is judged there.
    """

    def __init__(self, signals: Mapping[str, RankedSignal], *, keep_frac: float, min_peers: int) -> None:
        self._signals, self._keep_frac, self._min_peers = signals, keep_frac, min_peers
        part = shares(signals)
        self._standings = Standings([(n, part[n], s.direction == "maximize") for n, s in signals.items()])

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge all of the trials."""
        self._standings.read(records)
        scores, n_peers = self._standings.at(rung), self._standings.n_peers(rung)
        n_kept = n_going_on(self._keep_frac, n_peers)
        peers = {"peers": self._standings.peers(rung)} if n_peers <= LISTED_PEERS else {"n_peers": n_peers}
        decisions = []
        for number in numbers:
            n_better = scores.n_better(number)
            record = records[number].rungs[rung]
            decisions.append(
                Decision(
                    trial=number,
                    stop=n_peers >= self._min_peers and n_better >= n_kept,
                    rule=RULE,
                    reason=self._reason(record, n_better=n_better, n_peers=n_peers, n_kept=n_kept),
                    rung=rung,
                    samples=record.samples,
                    details={
                        "signals": shown_signals(self._signals, record),
                        "rank": n_better + 1,
                        **peers,
                        "kept": n_kept,
                        "mode": "eager",
                    },
                )
            )
        return decisions

    def judge_again(self, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return nothing: who stands at the rung of a report is judged with it, and nobody else."""
        return []

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int | None:
        """Return the first."""
        return waiting[0]

    def _reason(self, record: RungRecord, *, n_better: int, n_peers: int, n_kept: int) -> str:
        place = f"rank {n_better + 1} of {n_peers} at rung {record.rung}"
        rule = (
            best_go_on(n_kept)
            if n_peers >= self._min_peers
            else f"among fewer than {self._min_peers} nobody is stopped"
        )
        return f"{values_text(self._signals, record)}: {place}, {rule}"
