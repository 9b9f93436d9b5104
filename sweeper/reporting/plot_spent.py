"""The training that the study spent, against training every trial to its end."""

from typing import Any

from sweeper.records import TrialState
from sweeper.reporting.figures import NEUTRAL, STATE_COLOURS, STATE_PATTERNS, Figure
from sweeper.reporting.formats import count, percent
from sweeper.reporting.summary import savings_of, training_sentence
from sweeper.study.view import StudyView

_GROUPS = {
    "of complete trials": TrialState.COMPLETE,
    "of trials stopped early": TrialState.PRUNED,
    "of failed trials": TrialState.FAIL,
    "of running trials": TrialState.RUNNING,
}


def spent_parts(view: StudyView) -> dict[str, int]:
    """Return samples by what they are; together what training every trial in full takes."""
    savings = savings_of(view)
    trained = {
        f"trained {name}": sum(r.own_samples for r in view.records if r.state is state)
        for name, state in _GROUPS.items()
    }
    rest = {"saved by stopping early": savings.saved, "not trained": savings.not_trained}
    return {name: samples for name, samples in (trained | rest).items() if samples}


def spent_figure(view: StudyView) -> Figure | None:
    """Return one bar that is the whole grid, cut into what was trained and what was not."""
    parts, full = spent_parts(view), savings_of(view).full
    if not full or not view.spent_samples:
        return None
    layout: dict[str, Any] = {
        "barmode": "stack",
        "xaxis": {"zeroline": False},
        "yaxis": {"tickmode": "array", "tickvals": [0], "ticktext": [""], "showgrid": False},
        "legend": {"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0, "traceorder": "normal"},
        "bargap": 0.1,
    }
    return Figure(
        data=[_bar(name, samples, full) for name, samples in parts.items()],
        layout=layout,
        # What is hatched or grey shows the page below.
        extra={
            "page_text": [
                index for index, name in enumerate(parts) if not name.endswith("of complete trials")
            ]
        },
        label=training_sentence(view),
        caption="The whole bar is what training every trial to its end takes, in training samples.",
        height=230,
    )


def _bar(name: str, samples: int, full: int) -> dict[str, Any]:
    state = next((state for words, state in _GROUPS.items() if name.endswith(words)), None)
    share = percent(samples / full)
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": [samples],
        "y": [0],
        "text": [share],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "hovertext": [f"{name}: {count(samples)} samples ({share})"],
        "hoverinfo": "text",
        "marker": {
            "color": NEUTRAL if state is None else STATE_COLOURS[state],
            "line": {"width": 1, "color": "rgba(128,128,128,0.8)"},
            "pattern": {"shape": "" if state is None else STATE_PATTERNS.get(state, ""), "solidity": 0.25},
        },
    }
