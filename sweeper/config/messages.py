"""Pydantic's errors as sentences that say what is wrong, what is allowed and what to do."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.names import MAX_STUDY_NAME, OTHER_TOOLS_NAMES
from sweeper.config.pruner_models import RungSection
from sweeper.config.space_models import SamplerSection
from sweeper.config.trial_models import Budget, TrainSettings, TrialSection

# Where a key belongs that was written in another section.
_HOMES: dict[str, Iterable[str]] = {
    "trial.settings": [name for name in TrainSettings.model_fields if name != "model"],  # that is the trial's
    "trial": TrialSection.model_fields,
    "trial.budget": Budget.model_fields,
    "rungs": RungSection.model_fields,
    "sampler": SamplerSection.model_fields,
    "": SweepConfig.model_fields,
}

_COMPUTED = {
    "gradient_accumulation_steps": "follows from `effective_batch_size` and `micro_batch_size`",
    "data_parallel_size": "follows from `resources.gpus_per_trial`",
}

_WHEN_MISSING = {
    "study": "Give the study a name, for example `study: my-sweep`.",
    "metric": "Name what is compared in the end, for example `metric: dev/loss`.",
    "direction": "Write `direction: minimize` or `direction: maximize`.",
    "trial": "Say what one trial does: its model, its data and its budget.",
    "search_space": "Say what varies, for example `search_space: {learning_rate: {grid: [1e-5, 1e-4]}}`.",
    "path": "Name a file, a directory or a data set of the hub.",
}

_URLS = ("url", "base_url")
_HINTS = {
    "url": "Write for example `s3://bucket/path`.",
    "base_url": "Write for example `http://localhost:8000/v1`.",
    "learning_rate": "Rates between 1e-6 and 1e-3 are usual.",
    "max_grad_norm": "Write a positive number, or `null` for no clipping.",
    "study": f"Use letters, digits, `.`, `_` and `-`, with a letter or digit first, at most {MAX_STUDY_NAME} of them.",
    "eval_data": "Give each eval set a name, for example `eval_data: {dev: dev.jsonl}`.",
    "at": "Write `rungs`, `end`, or a list of sample counts such as `[512, 1024]`.",
    "micro_batch_size": "Write a whole number of at least 1, or `auto`.",
    "lora_target_modules": "Write `all-linear`, or a list of modules' names.",
}

_LIMITS = {
    "greater_than": ("greater than", "gt", "Choose a larger value."),
    "greater_than_equal": ("at least", "ge", "Choose a larger value."),
    "less_than": ("less than", "lt", "Choose a smaller value."),
    "less_than_equal": ("at most", "le", "Choose a smaller value."),
}

_KINDS = {
    "string_type": ("text", "Put it in quotes if it is a name."),
    "int_type": ("a whole number", "Write a whole number."),
    "int_from_float": ("a whole number", "Write a whole number."),
    "float_type": ("a number", "Write a number."),
    "finite_number": ("a finite number", "Write a finite number."),
    "bool_type": ("true or false", "YAML 1.2 knows only these two words."),
    "list_type": ("a list", "Write it as `[a, b]`."),
    "dict_type": ("a mapping", "Write `key: value` lines below it."),
    "model_type": ("a mapping", "Write `key: value` lines below it."),
}


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return the nearest allowed name, or "" where none is near."""
    names = list(allowed)
    other = OTHER_TOOLS_NAMES.get(name)
    if other in names:
        return str(other)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.65)
    return near[0] if near else ""


def unknown_name(name: str, allowed: Iterable[str], *, what: str) -> str:
    """Say that a name is unknown, with the nearest one or all that are allowed."""
    names = list(allowed)
    near = did_you_mean(name, names)
    if near:
        return f"unknown {what} `{name}`. Did you mean `{near}`?"
    if not names:
        return f"unknown {what} `{name}`. Remove it."
    return f"unknown {what} `{name}`. Allowed: {join(names)}."


def unknown_key(name: str, allowed: Iterable[str], *, section: str) -> tuple[str, str | None]:
    """Say that a key is unknown, and return with it the dotted place that was probably meant.

    Args:
        name: The key.
        allowed: The section's keys.
        section: The section's dotted name; "" for the top level.
    """
    allowed = list(allowed)
    meant = OTHER_TOOLS_NAMES.get(name, name)
    if name in _COMPUTED:
        return f"unknown key `{name}`: it {_COMPUTED[name]}. Remove it.", None
    if meant not in allowed:
        for home, names in _HOMES.items():
            if meant in names:
                spelled = "" if meant == name else f" Did you mean `{meant}`?"
                where = f"in `{home}`" if home else "at the top level"
                return f"unknown key `{name}`.{spelled} It belongs {where}; move it there.", _dotted(
                    home, meant
                )
    near = did_you_mean(name, allowed)
    return unknown_name(name, allowed, what="key"), _dotted(section, near) if near else None


def _dotted(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def join(names: Iterable[str]) -> str:
    """Return names as `a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]


def show(value: Any) -> str:
    """Return a value as a message shows it.

    >>> show(1e-4), show("1e-4"), show(None)
    ('0.0001', 'the text `1e-4`', 'nothing')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text `{show_text(value)}`"
    if isinstance(value, dict):
        return "a mapping"
    return show_text(str(value))


def sentence(error: Mapping[str, Any], *, name: str, value: Any) -> str:
    """Turn one of pydantic's errors into sentences.

    Args:
        error: One entry of `ValidationError.errors()`; not for unknown keys.
        name: The value's dotted name.
        value: What was written there.
    """
    kind, key = error["type"], _key(name)
    if kind == "missing":
        return f"`{name}` is missing. {_WHEN_MISSING.get(key, 'Add it.')}"
    if value is None and kind in (*_KINDS, "bounds"):
        return f"`{name}` has no value. Write one after the colon, or remove the line."
    got = show(value)
    context = error.get("ctx", {})
    if kind in ("string_pattern_mismatch", "string_too_short", "too_short"):
        rule = "must not be empty" if not value else "must be a URL" if key in _URLS else "is no valid name"
        return f"`{name}` {rule}, but got {got}. {_HINTS.get(key, 'Give it a value or remove it.')}"
    if kind in _LIMITS:
        words, limit, remedy = _LIMITS[kind]
        return f"`{name}` must be {words} {_bound(context[limit])}, but got {got}. {_HINTS.get(key, remedy)}"
    if kind in ("literal_error", "unknown_name"):
        return _not_in(name, value, _names_of(context))
    if kind in ("follows_metric", "schedule_free", "lomo"):
        return f"`{name}` cannot be `{value}`: {error['msg']}."
    if kind == "bounds":
        return (
            f"`{name}` must be two numbers, [lower, upper], but got {got}. Write for example `[1e-6, 1e-4]`."
        )
    if kind in _KINDS:
        rule, remedy = _KINDS[kind]
        return f"`{name}` must be {rule}, but got {got}. {_hint(name, value, kind, remedy)}"
    return f"`{name}` is not valid, got {got}: {error['msg']}."


def _hint(name: str, value: Any, kind: str, remedy: str) -> str:
    if kind == "model_type" and re.fullmatch(r"search_space\.[^.]+", name):
        if isinstance(value, list):
            return "Write a list of values as `{grid: [...]}`."
        return "Write `{grid: [...]}`, or fix the value in `trial.settings`."
    key = _key(name)
    if key in _HINTS and kind in ("dict_type", "list_type", "model_type", "string_type"):
        return _HINTS[key]
    if isinstance(value, str) and kind in ("int_type", "float_type") and _is_number(value):
        return "Remove the quotes."
    return _HINTS.get(key, remedy) if kind == "int_type" else remedy


def _key(name: str) -> str:
    """Return the last key of a dotted name, of a list's item that of the list."""
    return re.sub(r"\[\d+\]$", "", name).rsplit(".", 1)[-1]


def _not_in(name: str, value: Any, names: list[str]) -> str:
    near = did_you_mean(value, names) if isinstance(value, str) else ""
    if near:
        return f"`{name}` must be one of the known names, but got `{value}`. Did you mean `{near}`?"
    return f"`{name}` must be one of {join(names)}, but got {show(value)}. Choose one of these."


def _names_of(context: Mapping[str, Any]) -> list[str]:
    if "names" in context:
        return list(context["names"])
    return re.findall(r"'([^']*)'", str(context.get("expected", "")))


def _bound(limit: float) -> str:
    """Return a limit as it was written; a whole one in all its digits."""
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def show_text(text: str, *, limit: int = 60) -> str:
    """Return text as a message shows it: in one line, of at most so many letters, none of them half a character.

    >>> show_text("a\\nb"), show_text("abcde", limit=3)
    ('a\\\\nb', 'ab…')
    """
    shown = text[: limit + 1].replace("\n", "\\n").replace("\r", "\\r")
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
