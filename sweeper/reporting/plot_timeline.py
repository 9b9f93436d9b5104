"""Who ran when: the slots of the sweep over time."""

from typing import Any

from sweeper.records import TrialState
from sweeper.reporting.figures import STATE_COLOURS, Figure, hover_text, plot_text
from sweeper.reporting.formats import duration
from sweeper.reporting.tables import SlotUse, slot_uses
from sweeper.study.view import StudyView

_PATTERNS = {TrialState.PRUNED: "/", TrialState.FAIL: "x", TrialState.RUNNING: "."}
_UNITS = (
    (172_800, 86_400, "days"),
    (7_200, 3_600, "hours"),
    (180, 60, "minutes"),
)  # from, seconds in one, name


def timeline_figure(view: StudyView) -> Figure | None:
    """Return a bar per trial on the slot it ran on, by its newest attempt; None where none has started."""
    uses = slot_uses(view)
    if not uses:
        return None
    slots = sorted({use.slot for use in uses}, key=lambda slot: (slot.rpartition(" ")[0], _number(slot)))
    whole = max(use.end_s for use in uses)
    scale, unit = next(((size, name) for least, size, name in _UNITS if whole >= least), (1, "seconds"))
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": f"{unit} since the first start", "standoff": 6}, "zeroline": False},
        "yaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(slots))),
            "ticktext": [plot_text(slot, 28) for slot in slots],
            "autorange": "reversed",
            "showgrid": False,
            "zeroline": False,
        },
        "barmode": "overlay",
        "bargap": 0.25,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    data = [
        _bars([use for use in uses if use.record.state is state], state, slots, scale, view.config.metric)
        for state in TrialState
        if any(use.record.state is state for use in uses)
    ]
    return Figure(
        data=data,
        layout=layout,
        label=f"Timeline of {len(slots)} slots and {len(uses)} trials",
        caption="Each bar is a trial, with its number, from the start of its newest attempt to its end.",
        height=min(1200, 150 + 34 * len(slots)),
    )


def _bars(
    uses: list[SlotUse], state: TrialState, slots: list[str], scale: float, metric: str
) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": state.value,
        "y": [slots.index(use.slot) for use in uses],
        "base": [round(use.start_s / scale, 4) for use in uses],
        "x": [round((use.end_s - use.start_s) / scale, 4) for use in uses],
        "text": [str(use.record.number) for use in uses],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "constraintext": "inside",
        "hovertext": [f"{hover_text(use.record, metric)}<br>{_where(use)}" for use in uses],
        "hoverinfo": "text",
        "marker": {
            "color": STATE_COLOURS[state],
            "line": {"width": 0.5, "color": "rgba(128,128,128,0.8)"},
            "pattern": {"shape": _PATTERNS.get(state, ""), "size": 7, "solidity": 0.25},
        },
    }


def _where(use: SlotUse) -> str:
    return f"{duration(use.end_s - use.start_s)} on {plot_text(use.slot)}"


def _number(slot: str) -> int:
    return int(slot.rpartition(" ")[2])
