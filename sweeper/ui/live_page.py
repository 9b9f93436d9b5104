"""The report's page as it is served: it looks for changes and draws itself anew."""

import hashlib
import json
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sweeper.reporting.driver import without_beat
from sweeper.reporting.findings import findings_of
from sweeper.reporting.page import report_page
from sweeper.reporting.page_tables import esc
from sweeper.reporting.status import status_json
from sweeper.storage_url import mask_url
from sweeper.study import layout
from sweeper.study.view import StudyView

LOOK_S = 2.0  # the storage is read at most so often, however many browsers ask
_SCRIPT = """<script>
"use strict";
(() => {
  const shown = "%s", note = document.getElementById("live");
  async function look() {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      if (answer.ok && (await answer.text()) !== shown && document.visibilityState === "visible") location.reload();
      note.textContent = answer.ok ? "live" : "the server refuses: open the address that it printed";
    } catch {
      note.textContent = "the server does not answer; this page is as it was";
    }
  }
  setInterval(look, %d);
})();
</script>
</body>"""


class LivePage:
    """The newest page of a study, made when somebody asks and something has changed."""

    def __init__(
        self,
        load: Callable[[], StudyView],
        *,
        refresh_s: float,
        dashboard: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._refresh_s = refresh_s
        self._dashboard = dashboard
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._view: StudyView | None = None
        self._version = ""
        self._page: tuple[str, bytes] = ("", b"")  # the version it shows, and the page

    def version(self) -> str:
        """Return a word that changes with the study."""
        with self._lock:
            return self._look()[1]

    def status(self) -> bytes:
        """Return what `status --json` prints."""
        with self._lock:
            return json.dumps(status_json(self._look()[0])).encode()

    def html(self) -> bytes:
        """Return the page."""
        with self._lock:
            view, version = self._look()
            if self._page[0] != version:
                self._page = (version, self._made(view, version))
            return self._page[1]

    def _look(self) -> tuple[StudyView, str]:
        now = self._clock()
        if self._view is None or self._looked_at is None or now - self._looked_at >= LOOK_S:
            self._view = self._load()
            self._looked_at = now
            content = json.dumps(status_json(without_beat(self._view)), sort_keys=True)
            self._version = hashlib.sha256(content.encode()).hexdigest()[:16]
        return self._view, self._version

    def _made(self, view: StudyView, version: str) -> bytes:
        page = report_page(view, view.directory / layout.REPORT, findings_of(view))
        # Only this page may ask its own server; the one on disk may ask nobody.
        page = page.replace("default-src 'none';", "default-src 'none'; connect-src 'self';", 1)
        page = page.replace("<main>", f"<main>{self._bar(view)}", 1)
        head, _, tail = page.rpartition("</body>")
        return (head + _SCRIPT % (version, round(1000 * self._refresh_s)) + tail).encode()

    def _bar(self, view: StudyView) -> str:
        if self._dashboard is not None:
            other = f'<a href="{esc(self._dashboard)}">optuna-dashboard</a>'
        else:
            other = f"also: <code>{esc(dashboard_command(view.directory, view.config.storage))}</code>"
        return f'<p class="quiet" role="status"><span id="live">live</span>; {other}</p>'


def dashboard_storage(directory: Path, storage: str | None) -> str:
    """Return where optuna-dashboard finds the study."""
    return str(directory / layout.JOURNAL) if storage is None else storage


def dashboard_command(directory: Path, storage: str | None) -> str:
    """Return the command that shows the study in optuna-dashboard, without a password."""
    place = dashboard_storage(directory, storage)
    return f"optuna-dashboard {shlex.quote(place if storage is None else mask_url(place))}"
