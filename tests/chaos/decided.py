"""Whether the decisions of a disturbed sweep are what its pruner may decide, whoever was killed meanwhile."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.pruners.early_dynamics import EarlyDynamicsPruner
from sweeper.pruners.judge import make_judge
from sweeper.pruners.ledger import spent
from sweeper.records import TrialRecord, TrialState
from sweeper.study.study import Study

EAGER: dict[str, Any] = {
    "name": "early_dynamics", "signals": {"loss": {"direction": "minimize"}}, "keep_frac": 0.3, "min_peers": 2,
}  # fmt: skip
PRUNERS: dict[str, Any] = {
    "nop": "nop",
    "early_dynamics": EAGER,
    "certain": {**{k: v for k, v in EAGER.items() if k != "min_peers"}, "mode": "certain"},
    "learned": {"name": "early_dynamics", "directions": "learned", "audit_frac": 0.2},
}


def faults_of(study: Study, records: Mapping[int, TrialRecord], pruner: str) -> Iterator[str]:
    """Yield what is wrong with the decisions of a sweep that has ended."""
    n_stops = 0
    for record in records.values():
        stops = [decision for decision in record.decisions if decision["stop"]]
        n_stops += len(stops)
        if (record.state is TrialState.PRUNED) != bool(stops):
            yield f"trial {record.number} is {record.state} with {len(stops)} decisions to stop"
    if not n_stops:
        yield "nobody was stopped, so that nothing was seen"
    yield from _FAULTS[pruner](study, records)


def _eager(study: Study, records: Mapping[int, TrialRecord]) -> Iterator[str]:
    """Judge again with the peers that each decision names: the recorded signals must give what was decided."""
    judge = make_judge(study.config)
    for record in records.values():
        for decision in record.decisions:
            peers = {number: records[number] for number in decision["details"]["peers"]}
            again = judge.judge([record.number], decision["rung"], peers)[0]
            if (again.stop, again.details["rank"]) != (decision["stop"], decision["details"]["rank"]):
                place = f"trial {record.number} at rung {decision['rung']}"
                yield f"a decision on {place} is not what its peers give"


def _certain(study: Study, records: Mapping[int, TrialRecord]) -> Iterator[str]:
    """Compare with the survivors, whom no order of reports changes."""
    judge = make_judge(study.config)
    assert isinstance(judge, EarlyDynamicsPruner)
    for number in judge.survivors(records):
        if records[number].state is not TrialState.COMPLETE:
            yield f"trial {number} survives, and is {records[number].state}"


def _learned(study: Study, records: Mapping[int, TrialRecord]) -> Iterator[str]:
    """Add up the risk: no stop paid more than it was allowed, all together no more than the study's."""
    for record in records.values():
        for decision in record.decisions:
            details = decision["details"]
            if decision["stop"] and not details["chance"] <= details["allowed"]:
                yield f"trial {record.number} was stopped at {details['chance']} of {details['allowed']}"
    total, risk = sum(map(spent, records.values())), study.config.pruner.risk
    if total > risk:
        yield f"the stops paid {total} of a risk of {risk}"


_FAULTS = {"early_dynamics": _eager, "certain": _certain, "learned": _learned}
