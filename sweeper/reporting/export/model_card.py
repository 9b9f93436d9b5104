"""The README.md of an exported model: what it is, how it was trained, how good it is."""

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from sweeper.config.trial_models import DataSource, TrialSection
from sweeper.looking import is_there
from sweeper.model_files import ADAPTERS
from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.export.yaml_text import yaml_text
from sweeper.reporting.formats import count, exact, one_line, short
from sweeper.reporting.markdown import escaped, table
from sweeper.reporting.origins import warm_text
from sweeper.study.view import StudyView

_CURVE_ROWS = 10


def model_card(view: StudyView, record: TrialRecord, directory: Path) -> str:
    """Return the card of the model in a directory."""
    sections = [
        _front_matter(view, record, directory),
        f"# {view.name}, trial {record.number}",
        _origin(view, record),
        _usage(directory),
        _table("Scores", ("metric", "value"), _scores(view, record)),
        _table("Settings", ("setting", "value"), [(name, _value(v)) for name, v in _settings(view, record)]),
        _table("Data", ("used for", "rows from"), _data(view)),
        _curve(view, record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(view: StudyView, record: TrialRecord, directory: Path) -> str:
    content: dict[str, object] = {
        "library_name": "peft" if _is_adapter(directory) else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sweeper"],
    }
    model = _base(view, record).model
    if model is not None and not Path(model).is_absolute():  # the hub takes its own names only
        content["base_model"] = model
    return f"---\n{yaml_text(content)}---"


def _base(view: StudyView, record: TrialRecord) -> TrialSection:
    """Return the trial section with the record's own model, where the study compares several."""
    is_function = view.config.trial.function is not None
    return view.config.trial.with_model(None if is_function else record.params.get("model"))


def _origin(view: StudyView, record: TrialRecord) -> str:
    config = view.config
    kind = (
        "LoRA adapters for"
        if _settings_dict(view, record).get("method") in ("lora", "qlora")
        else "A fine-tuned"
    )
    model = _base(view, record).model
    name = one_line(Path(model).name if model else "model").replace("`", "'")
    base = f"{kind} `{name}`"
    is_best = view.best is not None and view.best.number == record.number
    place = "the best trial" if is_best else f"trial {record.number}"
    value = (
        f" with {escaped(config.metric)} = {exact(record.value)}"
        if record.state is TrialState.COMPLETE
        else ""
    )
    warm = f" It {warm_text(record)}." if record.is_warm_started else ""
    return (
        f"{base}: {place} of the {len(view.records)} of study `{view.name}`{value} ({config.direction}). "
        f"It was trained on {count(record.samples)} samples in {count(record.step)} optimiser steps by sweeper "
        f"{view.versions.get('sweeper', metadata.version('sweeper'))}; its point is `{record.point_id}`.{warm}"
    )


def _usage(directory: Path) -> str:
    loader = "AutoPeftModelForCausalLM" if _is_adapter(directory) else "AutoModelForCausalLM"
    library = "peft" if _is_adapter(directory) else "transformers"
    imports, generation = f"from transformers import {loader}, AutoTokenizer", ""
    if library == "peft":
        imports = f"from peft import {loader}\nfrom transformers import AutoTokenizer"
        if is_there(directory / "generation_config.json"):
            imports += ", GenerationConfig"
            generation = 'model.generation_config = GenerationConfig.from_pretrained(".")\n'
    return (
        f'```python\n{imports}\n\nmodel = {loader}.from_pretrained(".")\n{generation}'
        'tokenizer = AutoTokenizer.from_pretrained(".")\n```'
    )


def _is_adapter(directory: Path) -> bool:
    return is_there(directory / ADAPTERS)


def _scores(view: StudyView, record: TrialRecord) -> list[tuple[str, str]]:
    metrics = dict(record.metrics)
    if record.value is not None:
        metrics[view.config.metric] = record.value
    return [(name, short(value)) for name, value in sorted(metrics.items())]


def _settings_dict(view: StudyView, record: TrialRecord) -> dict[str, object]:
    if view.config.trial.function is not None:  # its settings are anything: addresses, paths, keys
        return {"seed": view.config.seed, **record.params}
    return {"seed": view.config.seed, **view.config.trial.settings, **record.settings, **record.params}


def _settings(view: StudyView, record: TrialRecord) -> list[tuple[str, object]]:
    return sorted(_settings_dict(view, record).items())


def _value(value: object) -> str:
    return exact(value) if isinstance(value, float) else one_line(json.dumps(value, default=str))


def _data(view: StudyView) -> list[tuple[str, str]]:
    trial = view.config.trial
    trained = [("training", _source(source)) for source in trial.sources]
    return trained + [(f"evaluation, {name}", _source(source)) for name, source in trial.eval_data.items()]


def _source(source: DataSource) -> str:
    path = Path(source.path)
    words = [path.name if path.is_absolute() else source.path]
    words += [
        f"{key} {getattr(source, key)}" for key in ("name", "split", "revision") if getattr(source, key)
    ]
    return ", ".join(words + ([f"the first {count(source.limit)} rows"] if source.limit is not None else []))


def _curve(view: StudyView, record: TrialRecord) -> str:
    """Return the curve at evenly spaced steps, the last among them."""
    curve = view.curve(record.number)
    if curve.empty:
        return ""
    n_rows = min(_CURVE_ROWS, len(curve))
    places = [round((index + 1) * len(curve) / n_rows) - 1 for index in range(n_rows)]
    columns = [curve[name].tolist() for name in ("step", "samples", "loss", "grad_norm")]
    rows = [
        (count(step), count(samples), short(loss), short(norm))
        for step, samples, loss, norm in ([column[place] for column in columns] for place in places)
    ]
    return _table("Curve", ("step", "samples", "loss", "gradient norm"), rows)


def _table(title: str, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    return f"## {title}\n\n{table(names, rows)}"
