"""A small HTTP server for the live page.

The standard library's is enough: three addresses, GET alone, nothing read from a request but its path, its token and
two headers, and a handful of browsers. A server library would be one more dependency on a cluster's head node.
"""

import gzip
import hmac
import http
import ipaddress
import logging
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

from sweeper.errors import ConfigError, SweeperError
from sweeper.ui.live_page import LivePage

logger = logging.getLogger(__name__)

WRONG_NAME = b"Open it as http://127.0.0.1."
NO_TOKEN = b"Open the address with its token."
# Bytes beyond which an answer is compressed: a page of 5.7 MB becomes one of 1.8 MB in 0.06 s, which a tunnel over
# ssh is glad of. Higher levels take two to three times as long for a tenth less.
SMALL = 16_384
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class ReportServer(ThreadingHTTPServer):
    """Serves one study's live page. Where it is not bound to loopback, only to who knows the token."""

    daemon_threads = True

    def __init__(self, host: str, port: int, page: LivePage, *, token: str | None = None) -> None:
        self.page = page
        self.is_loopback = is_loopback(host)
        self.token = token or (None if self.is_loopback else secrets.token_urlsafe(24))
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"The page cannot be served at {host}:{port}: {error.strerror}. Choose another `--port` "
                "(0 takes a free one) or another `--host`."
            ) from error

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds the token."""
        return cookie_name(self.server_address[1])

    @property
    def url(self) -> str:
        """The address to open, with the token where one is needed."""
        host, port = str(self.server_address[0]), self.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        token = "" if self.token is None else f"?token={quote(self.token)}"
        return f"http://{shown}:{port}/{token}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local_name(host: str) -> bool:
    """Whether a request's Host header names this machine itself, with or without a port.

    A page of another site could reach a server on loopback under a name of its own that points here.
    """
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() else host) in _LOOPBACK_NAMES


def cookie_name(port: int | str) -> str:
    """Return the name of the cookie that holds a port's token: browsers send a host's cookies to all of its ports."""
    return f"sweeper_token_{port}"


def token_cookie(name: str, token: str) -> str:
    """Return the Set-Cookie header for a token."""
    return f"{name}={token}; HttpOnly; SameSite=Strict; Path=/"


def token_in(query: str) -> str:
    """Return the token of an address's query; "" where it has none."""
    return parse_qs(query).get("token", [""])[0]


def is_known(token: str, *, query: str, cookies: str, name: str) -> bool:
    """Whether a request holds the token, in its address or in the cookie of that name."""
    try:
        kept = SimpleCookie(cookies).get(name)
    except CookieError:
        kept = None
    words = [token_in(query), *([kept.value] if kept is not None else [])]
    return any(hmac.compare_digest(word.encode(), token.encode()) for word in words)


class _Handler(BaseHTTPRequestHandler):
    server_version = "sweeper"
    sys_version = ""

    def do_GET(self) -> None:
        server = cast(ReportServer, self.server)
        asked = urlsplit(self.path)
        if server.is_loopback and not is_local_name(self.headers.get("Host", "")):
            self._answer(http.HTTPStatus.MISDIRECTED_REQUEST, WRONG_NAME, "text/plain")
            return
        if server.token is not None and not is_known(
            server.token, query=asked.query, cookies=self.headers.get("Cookie", ""), name=server.cookie
        ):
            self._answer(http.HTTPStatus.FORBIDDEN, NO_TOKEN, "text/plain")
            return
        self._serve(server, asked.path, cookie=server.token if token_in(asked.query) else None)

    def _serve(self, server: ReportServer, path: str, *, cookie: str | None) -> None:
        try:
            match path:
                case "/":
                    self._answer(http.HTTPStatus.OK, server.page.html(), "text/html", cookie=cookie)
                case "/version":
                    self._answer(http.HTTPStatus.OK, server.page.version().encode(), "text/plain")
                case "/status.json":
                    self._answer(http.HTTPStatus.OK, server.page.status(), "application/json")
                case _:
                    self._answer(http.HTTPStatus.NOT_FOUND, b"There is only /.", "text/plain")
        except SweeperError as error:
            # The storage may come back; the next look shows it.
            logger.warning("The study cannot be read now: %s", error)
            self._answer(http.HTTPStatus.SERVICE_UNAVAILABLE, str(error).encode(), "text/plain")

    def _answer(self, status: http.HTTPStatus, body: bytes, kind: str, *, cookie: str | None = None) -> None:
        is_packed = len(body) > SMALL and "gzip" in self.headers.get("Accept-Encoding", "")
        if is_packed:
            body = gzip.compress(body, compresslevel=1)
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        if is_packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        if cookie is not None:
            name = cast(ReportServer, self.server).cookie
            self.send_header("Set-Cookie", token_cookie(name, cookie))
        try:
            self.end_headers()  # writes what was noted above
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            logger.debug("The browser left before its answer was whole.")

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests out of the terminal: their addresses hold the token."""
        logger.debug("%s asked", self.client_address[0])
