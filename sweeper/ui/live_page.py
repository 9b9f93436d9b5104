"""The report's page as it is served: it looks for changes and draws itself anew."""

import hashlib
import json
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sweeper.reporting.driver import without_beat
from sweeper.reporting.findings import Findings, findings_of
from sweeper.reporting.formats import plural
from sweeper.reporting.page import report_page
from sweeper.reporting.page_tables import esc
from sweeper.reporting.status import status_json
from sweeper.storage_url import mask_url
from sweeper.study import layout
from sweeper.study.view import StudyView

LOOK_S = 2.0  # the storage is read at most so often, however many browsers ask
# Times as long as it took, until the same is done again.
_REST = 5  # a look, a page: 2.8 s for 10,000 trials
_FINDINGS_REST = 20  # 17 s for those
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


class _Measured(NamedTuple):
    findings: Findings
    version: str  # of the study, as they were measured
    n_ended: int  # trials that had ended by then
    due: float  # when they may be measured anew


class _Page(NamedTuple):
    word: str  # which the page knows itself by
    html: bytes
    due: float  # when another one may be made


class LivePage:
    """The newest page of a study, made when somebody asks and something has changed.

    Of a large study what is dear is done less often, so that the rest of the machine, often the driver's, is left
    alone; what the page shows from an earlier moment it says. Whoever asks for the version waits for no page.
    """

    def __init__(
        self,
        load: Callable[[], StudyView],
        *,
        refresh_s: float,
        dashboard: str | None = None,
        measure: Callable[[StudyView], Findings] = findings_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._refresh_s = refresh_s
        self._dashboard = dashboard
        self._measure = measure
        self._clock = clock
        self._looking, self._making = threading.Lock(), threading.Lock()
        self._look_due = 0.0
        self._view: StudyView | None = None
        self._version = ""
        self._measured: _Measured | None = None
        self._page: _Page | None = None

    def version(self) -> str:
        """Return a word that changes once there is another page to be had."""
        view, version = self._look()
        return self._word(version, self._kept(view))

    def status(self) -> bytes:
        """Return what `status --json` prints."""
        return json.dumps(status_json(self._look()[0])).encode()

    def html(self) -> bytes:
        """Return the page."""
        with self._making:
            view, version = self._look()
            kept = self._kept(view)
            word = self._word(version, kept)
            if self._page is None or self._page.word != word:
                self._page = self._made(view, word, kept or self._measured_now(view, version))
            return self._page.html

    def _look(self) -> tuple[StudyView, str]:
        with self._looking:
            since = self._clock()
            if self._view is None or since >= self._look_due:
                self._view = self._load()
                content = json.dumps(status_json(without_beat(self._view)), sort_keys=True)
                self._version = hashlib.sha256(content.encode()).hexdigest()[:16]
                self._look_due = since + max(LOOK_S, (1 + _REST) * (self._clock() - since))
            return self._view, self._version

    def _kept(self, view: StudyView) -> _Measured | None:
        """Return the findings that are good enough for now; None where they are to be measured."""
        kept = self._measured
        return kept if kept is not None and view.state == "running" and self._clock() < kept.due else None

    def _word(self, version: str, kept: _Measured | None) -> str:
        if self._page is not None and self._clock() < self._page.due:
            return self._page.word
        return version if kept is None or kept.version == version else f"{version}-{kept.version}"

    def _measured_now(self, view: StudyView, version: str) -> _Measured:
        since = self._clock()
        findings = self._measure(view)
        n_ended, took_s = _n_ended(view), self._clock() - since
        self._measured = _Measured(findings, version, n_ended, since + (1 + _FINDINGS_REST) * took_s)
        return self._measured

    def _made(self, view: StudyView, word: str, measured: _Measured) -> _Page:
        since = self._clock()
        page = report_page(view, view.directory / layout.REPORT, measured.findings)
        # Only this page may ask its own server; the one on disk may ask nobody.
        page = page.replace("default-src 'none';", "default-src 'none'; connect-src 'self';", 1)
        page = page.replace("<main>", f"<main>{self._bar(view)}{_age(view, measured)}", 1)
        head, _, tail = page.rpartition("</body>")
        html = (head + _SCRIPT % (word, round(1000 * self._refresh_s)) + tail).encode()
        return _Page(word, html, since + (1 + _REST) * (self._clock() - since))

    def _bar(self, view: StudyView) -> str:
        if self._dashboard is not None:
            other = f'<a href="{esc(self._dashboard)}">optuna-dashboard</a>'
        else:
            other = f"also: <code>{esc(dashboard_command(view.directory, view.config.storage))}</code>"
        return f'<p class="quiet" role="status"><span id="live">live</span>; {other}</p>'


def _n_ended(view: StudyView) -> int:
    return sum(record.state.is_finished for record in view.records)


def _age(view: StudyView, measured: _Measured) -> str:
    """Return of which moment the findings are, where trials have ended since."""
    if measured.n_ended == _n_ended(view):
        return ""
    return (
        '<p class="quiet">What early signals said and the importance of the params are as they were when '
        f"{plural(measured.n_ended, 'trial')} had ended: to measure them takes long.</p>"
    )


def dashboard_storage(directory: Path, storage: str | None) -> str:
    """Return where optuna-dashboard finds the study."""
    return str(directory / layout.JOURNAL) if storage is None else storage


def dashboard_command(directory: Path, storage: str | None) -> str:
    """Return the command that shows the study in optuna-dashboard, without a password."""
    place = dashboard_storage(directory, storage)
    return f"optuna-dashboard {shlex.quote(place if storage is None else mask_url(place))}"
