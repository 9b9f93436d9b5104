"""Numbers, params and sentences as people read them. Pure."""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

# C0 and C1 control characters: an error message may hold a terminal's escape codes or line breaks.
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")


def short(value: Any) -> str:
    """Return a value in few characters.

    >>> [short(value) for value in (3e-4, 0.8125, 1e-6, 615, 2.30999, float("nan"), None, True, "cosine")]
    ['3e-4', '0.8125', '1e-6', '615', '2.31', 'nan', 'none', 'true', 'cosine']
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return short_float(value)
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, default=str)
    return one_line(str(value))


def short_float(value: float) -> str:
    """Return a float with 4 significant digits, in exponents below 0.01 and from a million on."""
    if not math.isfinite(value):
        return str(value)
    if value and not 0.01 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}"


def exact(value: Any) -> str:
    """Return a value so that it reads back as the same: what a sweep file would say.

    >>> exact(0.00031234567), exact(3e-4), exact("cosine")
    ('0.00031234567', '0.0003', 'cosine')
    """
    return repr(value) if isinstance(value, float) else short(value)


def spelled(value: Any) -> str:
    """Return a value as `short` does where that says it whole, else as `exact` does.

    >>> spelled(1e-3), spelled(0.00031234567), spelled([0.5, True])
    ('1e-3', '0.00031234567', '[0.5, true]')
    """
    if isinstance(value, float) and math.isfinite(value) and float(short_float(value)) != value:
        return exact(value)
    return short(value)


def count(number: float) -> str:
    """Return a count with thousands separated: `12,345`."""
    return f"{number:,.0f}"


def percent(fraction: float) -> str:
    """Return a fraction as a percentage; never `0 %` or `100 %` for what is not.

    >>> percent(0.624), percent(0.9996), percent(0.0001), percent(1.0)
    ('62 %', '>99 %', '<1 %', '100 %')
    """
    if 0 < fraction < 0.005:
        return "<1 %"
    if 0.995 <= fraction < 1:
        return ">99 %"
    return f"{100 * fraction:.0f} %"


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    >>> duration(7.31), duration(75), duration(3725), duration(190000)
    ('7 s', '1 min 15 s', '1 h 2 min', '2 d 4 h')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def params_text(params: Mapping[str, Any]) -> str:
    """Return params in one line: `effective_batch_size=32 learning_rate=3e-4`."""
    return " ".join(f"{one_line(name)}={short(value)}" for name, value in params.items())


def one_line(text: str) -> str:
    """Return a text without line breaks, terminal escape codes and runs of blanks."""
    return " ".join(text.translate(_CONTROLS).split())


def plain(text: str) -> str:
    """Return a text of several lines without terminal escape codes."""
    return "\n".join(line.translate(_CONTROLS) for line in text.split("\n"))


def clipped(text: str, width: int) -> str:
    """Return at most `width` characters of a text, with an ellipsis where it was cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def labels_apart(texts: Iterable[str], width: int) -> dict[str, str]:
    """Return a label of at most `width` characters for each text, so cut that as many as can be stay different.

    >>> labels_apart(["models/llama-000123", "models/llama-000456", "tiny"], 8)
    {'models/llama-000123': '…-000123', 'models/llama-000456': '…-000456', 'tiny': 'tiny'}
    """
    distinct = list(dict.fromkeys(texts))
    long = [text for text in distinct if len(text) > width]
    together = zip(*long, strict=False)
    differ = next((place for place, letters in enumerate(together) if len(set(letters)) > 1), 0)
    half = width // 2
    ways = (
        long,
        ["…" + text[len(text) - width + 1 :] for text in long],
        ["…" + text[differ - 2 :] if differ > 2 else text for text in long],
        [f"{text[: width - half - 1]}…{text[len(text) - half :]}" for text in long],
    )
    cuts = [[clipped(text, width) for text in way] for way in ways]
    labels = dict(zip(long, max(cuts, key=lambda cut: len(set(cut))), strict=True))
    return {text: labels.get(text, text) for text in distinct}


def verb(decision: Mapping[str, Any]) -> str:
    """Return what a decision does to its trial. It is given as records hold it; see `Decision.entry`.

    >>> [verb({"stop": True}), verb({"stop": False, "aside": True}), verb({"stop": False})]
    ['pruned', 'set aside', 'goes on']
    """
    if decision.get("stop"):
        return "pruned"
    return "set aside" if decision.get("aside") else "goes on"


def plural(number: int, noun: str) -> str:
    """Return a count with its noun: `1 trial`, `2 trials`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def parse_time(text: str | None) -> datetime | None:
    """Return the time that a record's ISO 8601 string says, or None where there is none."""
    return None if text is None else datetime.fromisoformat(text)


def moment(text: str) -> str:
    """Return the time of an ISO 8601 string as people write it, to the second.

    >>> moment("2026-11-23T21:28:05.661+00:00")
    '2026-11-23 21:28:05 UTC'
    """
    time = datetime.fromisoformat(text)
    return f"{time:%Y-%m-%d %H:%M:%S %Z}".rstrip()


def jsonable(value: Any) -> Any:
    """Return a value that strict JSON can hold: NaN and Inf become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)
