"""Rules of URLs that a study keeps and shows: no password may be in one. That of `storage` is kept apart."""

import re

from sweeper.config.draft import Draft
from sweeper.storage_url import database_problem, password_of

_USER = re.compile(r"[a-z]+://[^/?#]*@", re.IGNORECASE)


def check_urls(draft: Draft) -> None:
    """Check that no URL holds what only its owner may know; the value itself is not shown. A storage is a database."""
    storage = draft.config.storage if draft.knows("storage") else None
    if storage is not None and (problem := database_problem(storage)) is not None:
        draft.tell(problem, "storage")
    if draft.knows("trial.checkpoint.url"):
        url = draft.config.trial.checkpoint.url
        if url is not None and password_of(url) is not None:
            draft.tell(
                "`trial.checkpoint.url` must not hold a password, since the study keeps and shows it. Give the "
                "password by the store's own environment variables, or by fsspec's configuration files.",
                "trial", "checkpoint", "url",
            )  # fmt: skip
    if draft.config.benchmarks is None or not draft.knows("benchmarks"):
        return
    for name, entry in draft.config.benchmarks.judged.items():
        # A user alone is a token, as often as not.
        if _USER.match(entry.base_url) or password_of(entry.base_url) is not None:
            draft.tell(
                f"`benchmarks.judged.{name}.base_url` must not hold a user or a password, since the study keeps and "
                "shows it. Put the key into an environment variable, and name that by `api_key_env`.",
                "benchmarks", "judged", name, "base_url",
            )  # fmt: skip
