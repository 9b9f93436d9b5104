"""Serves a study until it is interrupted."""

import contextlib
import os
import secrets
import socketserver
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from sweeper.errors import ConfigError
from sweeper.extras import install_command
from sweeper.storage_url import absolute_storage, keep_password
from sweeper.study.storage import open_storage
from sweeper.study.study import Study
from sweeper.ui.live_page import LivePage
from sweeper.ui.server import (
    NO_TOKEN,
    WRONG_NAME,
    ReportServer,
    cookie_name,
    is_known,
    is_local_name,
    token_cookie,
    token_in,
)

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

    With the dashboard, which can write, every address needs the token: all users of a machine reach its loopback.

    Raises:
        StudyMismatchError: If there is no such study.
        ConfigError: If the address cannot be served, or optuna-dashboard is not installed.
    """
    study = Study.open(place, url=storage)
    with contextlib.ExitStack() as stack:
        token = os.environ.get(TOKEN_VARIABLE)
        dashboard = None
        if with_dashboard:
            token = token or secrets.token_urlsafe(24)
            dashboard = stack.enter_context(_dashboard(study, token, storage=storage))
        page = LivePage(study.view, refresh_s=refresh_s, dashboard=dashboard)
        server = stack.enter_context(ReportServer(host, port, page, token=token))
        say(server.url)
        if opens_browser:
            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)


def local_only(application: "WSGIApplication", *, token: str) -> "WSGIApplication":
    """Return an application that answers only who names this machine (see `is_local_name`) and knows the token."""

    def checked(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not is_local_name(environ.get("HTTP_HOST", "")):
            return _refused(start_response, "421 Misdirected Request", WRONG_NAME)
        query, name = environ.get("QUERY_STRING", ""), cookie_name(environ["SERVER_PORT"])
        if not is_known(token, query=query, cookies=environ.get("HTTP_COOKIE", ""), name=name):
            return _refused(start_response, "403 Forbidden", NO_TOKEN)
        if not token_in(query):
            return application(environ, start_response)

        def with_cookie(
            status: str, headers: list[tuple[str, str]], *failed: Any
        ) -> Callable[[bytes], object]:
            own = [("Set-Cookie", token_cookie(name, token)), ("Referrer-Policy", "no-referrer")]
            return start_response(status, [*headers, *own], *failed)

        return application(environ, with_cookie)

    return checked


def _refused(start_response: "StartResponse", status: str, text: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text]


class _DashboardServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep requests out of the terminal."""


@contextlib.contextmanager
def _dashboard(study: Study, token: str, *, storage: str | None) -> Iterator[str]:
    """Serve optuna-dashboard on a free port of loopback; yield its address, with the token."""
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise ConfigError(
            f"optuna-dashboard is not installed. Install it with `{install_command('dashboard')}`, "
            "or leave `--dashboard` out."
        ) from error
    url = study.config.storage if storage is None else keep_password(absolute_storage(storage))
    application = local_only(wsgi(open_storage(url, study.directory)), token=token)
    with make_server(
        _DASHBOARD_HOST, 0, application, server_class=_DashboardServer, handler_class=_Quiet
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{_DASHBOARD_HOST}:{server.server_address[1]}/dashboard?token={quote(token)}"
        finally:
            server.shutdown()
            thread.join()
