"""Entering many trials into a database at once."""

import time
from collections.abc import Sequence

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

# Trials in one transaction, which takes about 1 s: other writers wait for its end.
AT_ONCE = 200
# After a full one in SQLite, where who waits looks every 0.1 s: the lease's beat must get in between.
_REST_S = 0.12


def enter_together(database: RDBStorage, study_id: int, trials: Sequence[FrozenTrial]) -> None:
    """Enter all of some trials, or none, in one transaction.

    Optuna commits each trial on its own. Here its session of this thread is bound to a connection whose transaction is
    open already, which SQLAlchemy then commits only with it; other threads keep sessions of their own.
    1,000 points take 4 s in SQLite and 7 s in PostgreSQL, the time of the 15 to 18 statements that Optuna makes for
    each; with a commit each they take 8 to 16 s and 8 to 11 s (2 cores, November 2026).
    """
    with database.engine.begin() as connection:
        database.scoped_session.remove()
        database.scoped_session(bind=connection)
        try:
            for trial in trials:
                database.create_new_trial(study_id, trial)
        finally:
            database.scoped_session.remove()
    if database.engine.name == "sqlite" and len(trials) >= AT_ONCE:
        time.sleep(_REST_S)
