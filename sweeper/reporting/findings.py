"""What takes a moment to compute and several files of a report show: measured once."""

import dataclasses
from typing import Any

from sweeper.evidence_text import evidence_json, evidence_of_view
from sweeper.pruners.evidence import Evidence
from sweeper.reporting.importance import Importance, importance_of
from sweeper.reporting.optimum_text import optimum_json
from sweeper.reporting.uncertainty import uncertainty_of
from sweeper.study.view import StudyView


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What the study says beyond its records."""

    evidence: tuple[Evidence, ...]  # of the early signals
    importance: Importance  # of the params

    def as_json(self, view: StudyView) -> dict[str, Any]:
        """Return them, and how sure the best value is, for report.json."""
        uncertainty = uncertainty_of(view)
        told = evidence_json(view, self.evidence)
        return {
            "uncertainty": None if uncertainty is None else dataclasses.asdict(uncertainty),
            "evidence": told["evidence"],
            "audit": told["audit"],
            "optimum": optimum_json(view),
            "importance": {"shares": dict(self.importance.shares), "note": self.importance.note},
        }


def findings_of(view: StudyView) -> Findings:
    """Measure them. Takes up to seconds for a large study whose sweep has not ended."""
    return Findings(evidence=tuple(evidence_of_view(view)), importance=importance_of(view))
