"""What a study found and what it cost, in numbers and sentences. Pure."""

import dataclasses
from collections import Counter
from typing import Any

from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.formats import count, exact, one_line, percent, plural, short
from sweeper.reporting.kept import kept_confirmation
from sweeper.reporting.optimum_text import optimum_sentences
from sweeper.reporting.origins import warm_text
from sweeper.reporting.uncertainty import uncertainty_sentence
from sweeper.study.view import StudyView

TO_GO_ON = "to go on"  # of a trial that an interrupted study will train further


@dataclasses.dataclass(frozen=True, kw_only=True)
class Savings:
    """Training data, in samples. `full` = spent + saved + not trained."""

    spent: int
    full: int  # what training every trial to its end takes
    saved: int  # what stopping trials early left untrained
    not_trained: int  # of trials that wait, run, failed or are not drawn yet

    @property
    def saved_frac(self) -> float:
        return self.saved / self.full if self.full else 0.0

    @property
    def not_trained_frac(self) -> float:
        return self.not_trained / self.full if self.full else 0.0

    @property
    def spent_frac(self) -> float:
        return self.spent / self.full if self.full else 0.0


def savings_of(view: StudyView) -> Savings:
    """Return what was trained and what was not. Only PRUNED trials save; WAITING ones are still to come."""
    spent, (full, saved) = view.spent_samples, view.taken
    return Savings(spent=spent, full=full, saved=saved, not_trained=max(0, full - spent - saved))


def result_of(record: TrialRecord) -> float | None:
    """Return a trial's result: its value if it is COMPLETE, else None, whatever it showed early."""
    return record.value if record.state is TrialState.COMPLETE else None


def trial_state_text(view: StudyView, record: TrialRecord) -> str:
    """Return a trial's state for people: while nobody drives its study, it does not run but is to go on."""
    if record.is_set_aside:
        return "set aside"
    return TO_GO_ON if is_to_go_on(view, record.state) else record.state.value


def is_to_go_on(view: StudyView, state: TrialState) -> bool:
    """Whether trials in a state had begun when their study was interrupted, so that they go on where it does."""
    return state is TrialState.RUNNING and view.state == "interrupted"


def trained_header(amount: str, names: list[str]) -> str:
    """Return the heading of what a trial was trained, `samples` or `steps`, where a param may be called so too.

    >>> trained_header("samples", ["learning_rate"]), trained_header("samples", ["learning_rate", "samples"])
    ('samples', 'samples trained')
    """
    return f"{amount} trained" if amount in names else amount


def counts_text(view: StudyView) -> str:
    """Return the trials by state, as far as there are any: `7 complete, 9 pruned`."""
    words = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: f"{TO_GO_ON} at resume" if is_to_go_on(view, TrialState.RUNNING) else "running",
        TrialState.WAITING: "waiting",
    }
    n_aside = sum(record.is_set_aside for record in view.records)
    numbers = {word: view.count(state) for state, word in words.items()}
    numbers[words[TrialState.RUNNING]] -= n_aside
    numbers["set aside"] = n_aside
    n_repeats = sum(record.is_repeat for record in view.records)
    numbers["pruned"] -= n_repeats
    numbers["drawn again"] = n_repeats
    numbers["not drawn yet"] = view.n_undrawn
    counts = [f"{count(n)} {word}" for word, n in numbers.items() if n]
    return ", ".join(counts) or "no trials"


def answer_sentences(view: StudyView) -> list[str]:
    """Return what the study found, what it saved and what to mind, a sentence each."""
    best = view.best
    if best is None:
        return [_no_answer(view), *_reason_sentences(view), training_sentence(view)]
    return [
        _best_sentence(view, best),
        *_warm_sentences(view, best),
        *([sure] if (sure := uncertainty_sentence(view)) else []),
        *_confirmed_sentences(view),
        *_unequal_sentences(view),
        *off_budget_sentences(view),
        training_sentence(view),
        *optimum_sentences(view),
    ]


def _confirmed_sentences(view: StudyView) -> list[str]:
    """Return what `sweeper confirm` found out about the best trials of this study, or by means of it."""
    found = kept_confirmation(view.directory)
    if found is None:
        return []
    over = f"over {plural(found['n_seeds'], 'new seed')} each"
    if found["of"] == view.name:
        told = f"Its best points were trained again in study `{found['study']}`, {over}."
        numbers = [finalist["trial"] for finalist in found["finalists"]]
        if view.best is not None and view.best.number not in numbers:  # it has become so since
            told += f" Trial {view.best.number}, the best one now, was not among them."
    else:
        told = f"It confirms study `{found['of']}`, {over}, whose trials are meant here."
    return [f"{told} {' '.join(found['sentences'])}"]


def _best_sentence(view: StudyView, best: TrialRecord) -> str:
    state = "" if view.state == "finished" else " so far"
    result = f"{view.config.metric} = {short(best.value)} ({view.config.direction})"
    whole = f"from {plural(view.n_trials, 'trial')}: {counts_text(view)}."
    n = len(view.compared)
    if n > 1 and len({record.value for record in view.compared}) == 1:
        word = "complete" if n == view.count(TrialState.COMPLETE) else "compared"
        told = f"All {count(n)} {word} trials ended with {result}{state}, {whole} None is better than another"
        return f"{told}; where a best one is named, it is trial {best.number}, the first."
    return f"Trial {best.number} is best{state}: {result}, {whole}"


def _warm_sentences(view: StudyView, best: TrialRecord) -> list[str]:
    """Return, of a best trial that began with another one's weights, that it did, and which is best without."""
    if not best.is_warm_started:
        return []
    text = f"Trial {best.number} {warm_text(best)}, so its params alone need not give this value"
    second = next(iter(view.from_scratch), None)
    if second is None:
        return [f"{text}; no trial from scratch is complete{'' if view.state == 'finished' else ' yet'}."]
    return [
        f"{text}; from scratch, trial {second.number} is best: {view.config.metric} = {short(second.value)}."
    ]


def off_budget_sentences(view: StudyView) -> list[str]:
    """Return what to mind where a function of the user's own did not keep to the budget."""
    off = [record for record in view.compared if record.is_off_budget]
    if not view.config.trusts_function_with_budget or not off:
        return []
    first = off[0]
    return [
        f"{plural(len(off), 'complete trial')} did not keep to the budget, by the samples that were reported: trial "
        f"{first.number} came to {count(first.samples)} of {count(first.budget_samples or 0)}. A longer one may win by "
        "its length alone; the function has to train, and report, up to `context.budget_samples`."
    ]


def _unequal_sentences(view: StudyView) -> list[str]:
    """Return what to mind where the trials whose results are held against one another were given unequal data."""
    budgets = {record.budget_samples for record in view.compared if record.budget_samples is not None}
    if view.best is None or len(budgets) < 2:
        return []
    least, most, own = min(budgets), max(budgets), view.best.budget_samples
    told = "" if own is None else f", the best one {count(own)}"
    return [
        f"The complete trials were not given equal data: {count(least)} to {count(most)} samples each{told}. A longer "
        "one may win by its length alone, and what is said of params is said of lengths too."
    ]


def training_sentence(view: StudyView) -> str:
    """Return what was trained and what stopping early saved."""
    savings = savings_of(view)
    is_grid = view.config.sampler.name == "grid" and all(record.origin is None for record in view.records)
    whole = "the full grid" if is_grid else "training every trial in full"
    text = (
        f"{count(savings.spent)} of the {count(savings.full)} training samples that {whole} takes were "
        f"trained ({percent(savings.spent_frac)}); "
    )
    if view.n_stopped:
        text += f"stopping {plural(view.n_stopped, 'trial')} early saved {count(savings.saved)} "
        text += f"({percent(savings.saved_frac)})"
    else:
        text += "no trial was stopped early"
    if savings.not_trained:
        text += f"; the other {count(savings.not_trained)} are {untrained_text(view)}"
    return text + "."


def untrained_text(view: StudyView) -> str:
    """Say whose training is neither done nor saved."""
    if view.n_undrawn:
        return "of trials that wait, run, failed or are not drawn yet"
    return "of trials that wait, run or failed"


def _no_answer(view: StudyView) -> str:
    ending = "" if view.state == "finished" else " yet"
    return (
        f"No trial of study {view.name} is complete{ending}, so there is no best trial: {counts_text(view)}."
    )


def _reason_sentences(view: StudyView) -> list[str]:
    """Return why trials ended without a result, the commonest reasons first."""
    reasons = Counter(
        (record.state, one_line(record.reason or "no reason was recorded"))
        for record in view.records
        if record.state in (TrialState.PRUNED, TrialState.FAIL)
    )
    shown = reasons.most_common(5)
    lines = [f"{state} ({plural(number, 'trial')}): {reason}" for (state, reason), number in shown]
    if len(reasons) > len(shown):
        lines.append(f"{len(reasons) - len(shown)} more reasons are in the table of trials.")
    return lines


def stop_decision(record: TrialRecord) -> dict[str, Any] | None:
    """Return the newest decision that stopped a trial."""
    return next((decision for decision in reversed(record.decisions) if decision.get("stop")), None)


def pruned_text(record: TrialRecord) -> str:
    """Say where a trial was stopped: `pruned at rung 1`, or after the last rung that it reached."""
    decision = stop_decision(record) or {}
    if decision.get("rung") is not None:
        return f"pruned at rung {decision['rung']}"
    if record.rungs:
        return f"pruned after rung {max(record.rungs)}"
    return "pruned before rung 0"


def early_metric(record: TrialRecord, metric: str) -> float | None:
    """Return the study's metric at a trial's last rung that has it. Not a result."""
    for rung in sorted(record.rungs, reverse=True):
        if metric in record.rungs[rung].signals:
            return record.rungs[rung].signals[metric]
    return None


def varying_params(view: StudyView) -> list[str]:
    """Return the params that differ between trials, in the search space's order."""
    names = dict.fromkeys([*view.config.search_space, *(name for r in view.records for name in r.params)])
    return [name for name in names if len({exact(record.params.get(name)) for record in view.records}) > 1]
