"""Where a study lives: Optuna's storages, opened with checks and made to last."""

import functools
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalStorage

from sweeper.errors import ConfigError, SweeperError, first_line
from sweeper.extras import install_command
from sweeper.storage_url import database_problem, hide, mask_url, with_password, without_password
from sweeper.study import layout
from sweeper.study.bulk import without_collecting_garbage
from sweeper.study.journal import JournalBackend, damaged
from sweeper.study.patient import PatientStorage
from sweeper.study.transaction import enter_together, replace_study_user_attr

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine, ExceptionContext

__all__ = ["JournalBackend", "mask_url", "open_storage"]

_READ_ONLY = "25006"  # PostgreSQL's code for a change on a standby, or in a transaction that may only read


class Journal(JournalStorage):
    """Optuna's journal storage, which writes a report's values as one where it is asked to."""

    def __init__(self, backend: JournalBackend) -> None:
        super().__init__(backend)
        self.backend = backend


def open_storage(url: str | None, directory: Path) -> BaseStorage:
    """Open the storage of a study: the journal in its directory, or what a URL names.

    Raises:
        ConfigError: If it cannot be reached, with the URL's password masked.
        SweeperError: If the journal is damaged.
    """
    if url is None:
        return _open_journal(directory / layout.JOURNAL)
    if (problem := database_problem(url)) is not None:
        raise ConfigError(problem)
    return _open_database(with_password(url))


def _open_journal(path: Path) -> BaseStorage:
    backend = JournalBackend(path)
    try:
        with without_collecting_garbage():
            return Journal(backend)
    except SweeperError:
        raise
    except Exception as error:
        # The line is JSON, but not what Optuna wrote: its reader fails in any of a dozen ways.
        raise damaged(path, backend.n_read) from error


def _open_database(url: str) -> BaseStorage:
    shown = mask_url(url)
    try:
        database = optuna.storages.RDBStorage(_with_driver(url), engine_kwargs=_engine_arguments(url))
    except ImportError as error:
        raise ConfigError(
            f"The storage {shown} needs a database driver that is not installed ({error.name}). "
            f"Install it, for PostgreSQL with `{install_command('postgresql')}`."
        ) from error
    except Exception as error:  # noqa: BLE001 - SQLAlchemy and each driver have their own trees
        raise ConfigError(
            f"The storage {shown} cannot be opened: {hide(first_line(error).rstrip('.'), url)}. "
            "Check that the server runs, and that host, port, user and database are right. A study keeps no password: "
            "give the whole URL by `--storage`, or set PGPASSWORD."
        ) from None  # the driver's own text may hold the password
    _leave_demoted_servers(database.engine)
    # Optuna's cache, or every look at the study would read all of its trials again.
    storage = PatientStorage(
        optuna.storages.get_storage(database), place=without_password(url),
        enter_together=functools.partial(enter_together, database),
        replace=functools.partial(replace_study_user_attr, database),
    )  # fmt: skip
    weakref.finalize(storage, database.engine.dispose)  # or its connections would stay open until Python ends
    return storage


def _leave_demoted_servers(engine: "Engine") -> None:
    """Let a connection whose server takes no changes any more be dropped, and its error pass like that of a lost one.

    After a failover the old primary still answers, so that the pool would keep the connection for good.
    """
    import sqlalchemy

    def on_error(context: "ExceptionContext") -> None:
        # psycopg2 calls it otherwise.
        error = context.original_exception
        if _READ_ONLY in (getattr(error, "sqlstate", None), getattr(error, "pgcode", None)):
            context.is_disconnect = True

    sqlalchemy.event.listen(engine, "handle_error", on_error)


def _engine_arguments(url: str) -> dict[str, object]:
    """Return how connections are kept: checked before use, and given up on when the server is silent."""
    arguments: dict[str, object] = {"pool_pre_ping": True}
    if url.startswith("postgresql"):
        # Without these a server whose machine is gone is waited for until the kernel gives up, after 2 hours.
        arguments["connect_args"] = {
            "connect_timeout": 10,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
    return arguments


def _with_driver(url: str) -> str:
    """Let a plain postgresql:// mean psycopg 3, which the extra installs; SQLAlchemy would look for psycopg2."""
    return (
        url.replace("postgresql://", "postgresql+psycopg://", 1) if url.startswith("postgresql://") else url
    )
