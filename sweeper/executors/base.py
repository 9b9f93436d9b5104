"""What every executor does: start what the orchestrator gives out, carry reports in and decisions out."""

import contextlib
from typing import Protocol

from sweeper.orchestrator import Orchestrator


class Executor(Protocol):
    """Runs a sweep to its end, to an interrupt, or to a failure; the orchestrator says which it was."""

    def starting(self) -> contextlib.AbstractContextManager[None]:
        """Let what `run` needs start while the block does other things, `run` among them; its end stops that again."""

    def run(self, orchestrator: Orchestrator) -> None:
        """Run until `orchestrator.is_done`. All calls to the orchestrator come from the calling thread.

        May be called again, for what was added since.
        """
