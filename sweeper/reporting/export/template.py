"""What a chat template does that other tools do otherwise."""

import dataclasses
from pathlib import Path

from sweeper.config.trial_models import TrialSection
from sweeper.errors import ConfigError
from sweeper.looking import is_directory, names_in
from sweeper.training.rows import RowError

WRITE_TOKENS = "`--data FILE` writes the trial's tokens."
FIX_DATE = "Write that date into the template of a copy of the model."  # for tools that take chats alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateFacts:
    """What a tokenizer's chat template writes."""

    end_of_turn: str | None  # the special token after an answer; None: it writes plain text there
    eos_token: str | None  # the tokenizer's own
    writes_today: bool  # the day's date, which the trial pins


def template_facts(trial: TrialSection) -> TemplateFacts | None:
    """Read a trial's chat template; None where it has none, or it cannot be read from here."""
    model = Path(trial.model or "")
    if is_directory(model) and not any("token" in name for name in names_in(model)):
        return None
    # Imported here: it loads transformers, which takes seconds.
    from sweeper.training.templates import ChatRenderer
    from sweeper.training.tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer(trial)
        renderer = ChatRenderer(tokenizer, loss_on="answers")
        end_of_turn = renderer.end_of_turn
    except (ConfigError, RowError):
        return None
    own = tokenizer.chat_template
    text = own["default"] if isinstance(own, dict) else own
    return TemplateFacts(
        end_of_turn=end_of_turn, eos_token=tokenizer.eos_token, writes_today="strftime_now(" in text
    )


def lost_date(trial: TrialSection, *, remedy: str = WRITE_TOKENS) -> list[str]:
    """Say that a chat template writes the day's date, which the trial pins."""
    facts = template_facts(trial)
    if facts is None or not facts.writes_today:
        return []
    from sweeper.training.templates import PINNED_DATE

    return [
        f"The date: the chat template writes that of the day, and in the trial always {PINNED_DATE:%d %b %Y}. {remedy}"
    ]
