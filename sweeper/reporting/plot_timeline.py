"""Who ran when: the slots of the sweep over time."""

from typing import Any

from sweeper.encoding import SET_ASIDE
from sweeper.records import TrialState
from sweeper.reporting.figures import (
    NEUTRAL,
    NEUTRAL_LINE,
    STATE_COLOURS,
    STATE_PATTERNS,
    Figure,
    hover_text,
    plot_text,
)
from sweeper.reporting.formats import count, duration, percent, plural
from sweeper.reporting.slots import SlotGap, SlotUse, idle_gaps, slot_uses
from sweeper.study.view import StudyView

MAX_NUMBERED = 300  # bars of one state beyond which they bear no numbers; hovering tells them
MAX_SLOTS = 60  # beyond which a slot's bar is thinner than a line
_UNFINISHED = {SET_ASIDE: "-", "tried again": "x"}  # attempts that were not their trial's last
_UNITS = (
    (172_800, 86_400, "days"),
    (7_200, 3_600, "hours"),
    (180, 60, "minutes"),
)  # from, seconds in one, name


def timeline_figure(view: StudyView) -> Figure | None:
    """Return a bar per attempt on the slot it ran on, with idle gaps; None where no trial has started."""
    all_uses = slot_uses(view)
    if not all_uses:
        return None
    all_slots = sorted({use.slot for use in all_uses}, key=lambda s: (s.rpartition(" ")[0], _number(s)))
    slots = all_slots[:MAX_SLOTS]
    uses = [use for use in all_uses if use.slot in slots]
    gaps = idle_gaps(all_uses)
    whole = max(use.end_s for use in all_uses)
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
    places = {slot: place for place, slot in enumerate(slots)}
    data = [_gap_bars([g for g in gaps if g.slot in places and g.seconds > whole / 200], places, scale)]
    for name, pattern in _UNFINISHED.items():
        found = [use for use in uses if not use.is_last and use.is_set_aside == (name == SET_ASIDE)]
        data += [_bars(found, name, NEUTRAL_LINE, pattern, places, scale, view)] if found else []
    for state in TrialState:
        ended = [use for use in uses if use.is_last and use.record.state is state]
        if ended:
            pattern = STATE_PATTERNS.get(state, "")
            data.append(_bars(ended, state.value, STATE_COLOURS[state], pattern, places, scale, view))
    return Figure(
        data=data,
        layout=layout,
        extra={
            "page_text": [
                i for i, trace in enumerate(data) if trace["name"] in (*STATE_PATTERNS, *_UNFINISHED)
            ]
        },
        label=f"Timeline of {len(slots)} slots and {len(uses)} attempts. {busy_sentence(all_uses, gaps)}",
        caption=_caption(all_slots, all_uses, gaps),
        height=min(1200, 150 + 34 * len(slots)),
    )


def busy_sentence(uses: list[SlotUse], gaps: list[SlotGap]) -> str:
    """Return how busy the slots were, and what was tried again."""
    busy, idle = sum(use.seconds for use in uses), sum(gap.seconds for gap in gaps)
    n_aside = sum(use.is_set_aside and not use.is_last for use in uses)
    n_retried = sum(not use.is_last for use in uses) - n_aside
    text = f"The slots were busy {percent(busy / (busy + idle) if busy + idle else 1.0)} of the time"
    text += f"; all gaps together are {duration(idle)}." if idle else "."
    if n_aside:
        text += f" {plural(n_aside, 'time')} a trial was set aside for a likelier one."
    if n_retried:
        text += f" {plural(n_retried, 'attempt')} ended without an end of the trial, which was tried again."
    return text


def _caption(slots: list[str], uses: list[SlotUse], gaps: list[SlotGap]) -> str:
    text = "Each bar is an attempt of a trial, with its number; ✕ marks those that were stopped early. "
    text += busy_sentence(uses, gaps)
    if len(slots) > MAX_SLOTS:
        text += f" {MAX_SLOTS} of {count(len(slots))} slots are drawn."
    return text


def _gap_bars(gaps: list[SlotGap], places: dict[str, int], scale: float) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": "idle",
        "y": [places[gap.slot] for gap in gaps],
        "base": [round(gap.start_s / scale, 4) for gap in gaps],
        "x": [round(gap.seconds / scale, 4) for gap in gaps],
        "hovertext": [f"idle for {duration(gap.seconds)} on {plot_text(gap.slot)}" for gap in gaps],
        "hoverinfo": "text",
        "showlegend": bool(gaps),
        "marker": {"color": NEUTRAL, "line": {"width": 0}},
    }


def _bars(
    uses: list[SlotUse],
    name: str,
    colour: str,
    pattern: str,
    places: dict[str, int],
    scale: float,
    view: StudyView,
) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [places[use.slot] for use in uses],
        "base": [round(use.start_s / scale, 4) for use in uses],
        "x": [round(use.seconds / scale, 4) for use in uses],
        "text": [_text(use) for use in uses],
        # Fitting thousands of numbers into their bars takes a browser seconds, and none could be read.
        "textposition": "inside" if len(uses) <= MAX_NUMBERED else "none",
        "insidetextanchor": "middle",
        "textangle": 0,
        "constraintext": "inside",
        "hovertext": [_hover(use, view.config.metric) for use in uses],
        "hoverinfo": "text",
        "marker": {
            "color": colour,
            "line": {"width": 0.5, "color": "rgba(128,128,128,0.8)"},
            "pattern": {"shape": pattern, "size": 7, "solidity": 0.25},
        },
    }


def _text(use: SlotUse) -> str:
    is_pruned = use.is_last and use.record.state is TrialState.PRUNED
    return f"{use.record.number}{' ✕' if is_pruned else ''}"


def _hover(use: SlotUse, metric: str) -> str:
    where = f"{duration(use.seconds)} on {plot_text(use.slot)}"
    if use.is_last:
        tries = f", attempt {use.attempt}" if use.attempt > 1 else ""
        return f"{hover_text(use.record, metric)}<br>{where}{tries}"
    if use.is_set_aside:
        return f"trial {use.record.number}, attempt {use.attempt}: set aside for a likelier trial<br>{where}"
    why = f"<br>{plot_text(use.error, 90)}" if use.error else ""
    return f"trial {use.record.number}, attempt {use.attempt}: ended before the trial did{why}<br>{where}"


def _number(slot: str) -> int:
    return int(slot.rpartition(" ")[2])
