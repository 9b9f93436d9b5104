"""Serves a study until it is interrupted."""

import contextlib
import os
import socketserver
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from sweeper.errors import ConfigError
from sweeper.extras import install_command
from sweeper.study.storage import open_storage
from sweeper.study.study import Study
from sweeper.ui.live_page import LivePage
from sweeper.ui.server import WRONG_NAME, ReportServer, is_local_name

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

TOKEN_VARIABLE = "SWEEPER_UI_TOKEN"
_DASHBOARD_HOST = "127.0.0.1"


def serve(
    place: str,
    *,
    storage: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8266,
    refresh_s: float = 5.0,
    with_dashboard: bool = False,
    opens_browser: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a study's report until Ctrl-C. `say` is told the address.

    Raises:
        StudyMismatchError: If there is no such study.
        ConfigError: If the address cannot be served, or optuna-dashboard is not installed.
    """
    study = Study.open(place, url=storage)
    with contextlib.ExitStack() as stack:
        dashboard = stack.enter_context(_dashboard(study)) if with_dashboard else None
        page = LivePage(study.view, refresh_s=refresh_s, dashboard=dashboard)
        server = stack.enter_context(ReportServer(host, port, page, token=os.environ.get(TOKEN_VARIABLE)))
        say(server.url)
        if opens_browser:
            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)


def local_only(application: "WSGIApplication") -> "WSGIApplication":
    """Return an application that answers only who names this machine; see `is_local_name`."""

    def checked(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if is_local_name(environ.get("HTTP_HOST", "")):
            return application(environ, start_response)
        start_response("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
        return [WRONG_NAME]

    return checked


class _DashboardServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep requests out of the terminal."""


@contextlib.contextmanager
def _dashboard(study: Study) -> Iterator[str]:
    """Serve optuna-dashboard on a free port of loopback; yield its address."""
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise ConfigError(
            f"optuna-dashboard is not installed. Install it with `{install_command('dashboard')}`, "
            "or leave `--dashboard` out."
        ) from error
    application = local_only(wsgi(open_storage(study.config.storage, study.directory)))
    with make_server(
        _DASHBOARD_HOST, 0, application, server_class=_DashboardServer, handler_class=_Quiet
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{_DASHBOARD_HOST}:{server.server_address[1]}/dashboard"
        finally:
            server.shutdown()
            thread.join()
