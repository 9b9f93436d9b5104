"""`sweeper ui`: the live page, who may see it, and that it follows the study."""

import contextlib
import dataclasses
import gzip
import http.client
import json
import re
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import pandas as pd
import pytest
from cli_fixtures import background, cli, write_sweep
from report_fixtures import view_of_5
from waiting import wait_for

from sweeper.errors import ConfigError, SweeperError
from sweeper.records import TrialState
from sweeper.reporting.findings import Findings, findings_of
from sweeper.study.view import StudyView
from sweeper.ui.live_page import LOOK_S, LivePage, dashboard_command
from sweeper.ui.run import local_only
from sweeper.ui.server import ReportServer, is_loopback


class Study:
    """A study that changes when a test says so, with a clock that stands still in between."""

    def __init__(self) -> None:
        self.current = view_of_5()
        self.error: SweeperError | None = None
        self.now_s = 0.0

    def view(self) -> StudyView:
        if self.error is not None:
            raise self.error
        return self.current

    def page(self) -> LivePage:
        return LivePage(self.view, refresh_s=5.0, clock=lambda: self.now_s)


@contextlib.contextmanager
def served(page: LivePage, *, host: str = "127.0.0.1", token: str | None = None) -> Iterator[ReportServer]:
    with ReportServer(host, 0, page, token=token) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(
    server: ReportServer, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, answer.read().decode(), answer.headers


def test_the_page_is_the_report_and_asks_only_its_own_server() -> None:
    with served(Study().page()) as server:
        status, text, headers = ask(server, "/")

    assert status == 200
    assert "Trial 2 is best so far" in text
    assert "default-src 'none'; connect-src 'self';" in text
    assert 'fetch("version"' in text
    assert (headers["X-Frame-Options"], headers["Cache-Control"]) == ("DENY", "no-store")


def test_a_page_is_compressed_for_who_takes_it_so() -> None:
    with served(Study().page()) as server:
        _, plain, plain_headers = ask(server, "/")
        request = urllib.request.Request(server.url, headers={"Accept-Encoding": "gzip, deflate"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            packed, headers = answer.read(), answer.headers
        _, _, short_headers = ask(server, "/version", **{"Accept-Encoding": "gzip"})

    assert headers["Content-Encoding"] == "gzip"
    assert len(packed) < len(plain) / 2
    assert gzip.decompress(packed).decode() == plain
    assert plain_headers["Content-Encoding"] is None
    assert short_headers["Content-Encoding"] is None


def test_the_page_follows_the_study_and_is_made_once_for_each_change() -> None:
    study = Study()
    page = study.page()
    first, version = page.html(), page.version()
    assert page.html() is first

    study.current = dataclasses.replace(study.current, state="finished")
    assert page.version() == version  # nobody looked again yet
    study.now_s += LOOK_S

    assert page.version() != version
    assert b"finished" in page.html()
    assert json.loads(page.status())["state"] == "finished"


def test_what_takes_long_to_measure_is_measured_less_often_and_the_page_says_so() -> None:
    study, n_measured = Study(), 0

    def measure(view: StudyView) -> Findings:
        nonlocal n_measured
        n_measured += 1
        study.now_s += 10.0
        return findings_of(view)

    def end(number: int) -> None:
        records = list(study.current.records)
        records[number] = dataclasses.replace(records[number], state=TrialState.FAIL, reason="lost")
        study.current = dataclasses.replace(study.current, records=tuple(records))

    page = LivePage(study.view, refresh_s=5.0, measure=measure, clock=lambda: study.now_s)
    page.html()
    end(3)
    study.now_s += LOOK_S
    assert b"as they were when 3 trials had ended" in page.html()
    assert n_measured == 1

    older = page.version()
    study.now_s += 200.0  # the study has not changed, but there is another page to be had
    assert page.version() != older
    assert b"as they were when" not in page.html()
    assert n_measured == 2

    end(4)
    study.current = dataclasses.replace(study.current, state="finished")
    study.now_s += LOOK_S
    assert b"as they were when" not in page.html()  # the last page is whole at once
    assert n_measured == 3


def test_a_page_that_takes_long_is_made_less_often_and_browsers_keep_theirs_meanwhile() -> None:
    study, draw = Study(), view_of_5().curve

    def curve(number: int) -> pd.DataFrame:
        study.now_s += 1.0
        return draw(number)

    study.current = dataclasses.replace(study.current, curve=curve)
    page = study.page()
    first, version, since = page.html(), page.version(), study.now_s
    study.current = dataclasses.replace(study.current, state="interrupted")

    study.now_s = 5.0 * since - 0.5
    assert (page.version(), page.html()) == (version, first)
    study.now_s = 6.0 * since
    assert page.version() != version
    assert b"interrupted" in page.html()


def test_whoever_asks_for_the_version_waits_for_no_page() -> None:
    is_measuring, may_end = threading.Event(), threading.Event()

    def measure(view: StudyView) -> Findings:
        is_measuring.set()
        assert may_end.wait(10)
        return findings_of(view)

    page = LivePage(Study().view, refresh_s=5.0, measure=measure)
    maker = threading.Thread(target=page.html)
    maker.start()
    assert is_measuring.wait(10)

    assert page.version()
    assert json.loads(page.status())["state"] == "running"
    assert maker.is_alive()
    may_end.set()
    maker.join(10)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(method: str) -> None:
    with served(Study().page()) as server:
        assert ask(server, "/", method=method)[0] == 501
        assert ask(server, "/../study.journal")[0] == 404


def test_a_storage_that_is_gone_for_a_moment_is_told_and_asked_again() -> None:
    study = Study()
    study.error = SweeperError("the database does not answer")
    with served(study.page()) as server:
        assert ask(server, "/")[:2] == (503, "the database does not answer")
        study.error = None
        assert ask(server, "/version")[0] == 200


def test_a_browser_that_left_before_its_answer_began_leaves_no_trace(
    capfd: pytest.CaptureFixture[str],
) -> None:
    study, is_asked, has_left, is_over = Study(), threading.Event(), threading.Event(), threading.Event()

    class Page(LivePage):
        def version(self) -> str:
            is_asked.set()
            has_left.wait(10)
            return super().version()

    with served(Page(study.view, refresh_s=5.0)) as server:
        close = server.shutdown_request
        server.shutdown_request = lambda request: (close(request), is_over.set())  # type: ignore[method-assign]
        with socket.create_connection(("127.0.0.1", server.server_address[1])) as browser:
            browser.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert is_asked.wait(10)
            # Left at once, not after what is on its way: the server's first write fails.
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        has_left.set()
        assert is_over.wait(10)

    assert capfd.readouterr().err == ""


def test_beyond_loopback_only_who_has_the_token_is_let_in() -> None:
    with served(Study().page(), host="0.0.0.0") as server:
        assert server.token is not None
        assert server.url.endswith(f"/?token={server.token}")
        assert ask(server, "/version")[0] == 403
        assert ask(server, "/version?token=wrong")[0] == 403
        status, _, headers = ask(server, f"/?token={server.token}")
        assert status == 200
        assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
        assert ask(server, "/version", Cookie=headers["Set-Cookie"].split(";")[0])[0] == 200


def test_another_sites_name_for_this_machine_is_refused() -> None:
    with served(Study().page()) as server:
        assert ask(server, "/version", Host="evil.example")[0] == 421
        assert ask(server, "/version", Host=f"localhost:{server.server_address[1]}")[0] == 200


def dashboard_answer(**environ: str) -> tuple[str, bytes, dict[str, str]]:
    """Return what a guarded application answers that would say to anybody that it may write."""

    def dashboard(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [b"may write"]

    told: list[tuple[str, dict[str, str]]] = []
    body = local_only(dashboard, token="abc")(
        {"SERVER_PORT": "8080", "HTTP_HOST": "127.0.0.1:8080"} | environ,
        lambda status, headers, *_: told.append((status, dict(headers))),
    )
    return told[0][0], b"".join(body), told[0][1]


def test_the_dashboard_refuses_another_sites_name_too() -> None:
    name = {"HTTP_HOST": "evil.example:8080", "QUERY_STRING": "token=abc"}
    assert dashboard_answer(**name)[:2] == ("421 Misdirected Request", b"Open it as http://127.0.0.1.")


def test_the_dashboard_lets_in_who_has_the_token() -> None:
    refused = ("403 Forbidden", b"Open the address with its token.")
    assert dashboard_answer(REQUEST_METHOD="DELETE")[:2] == refused
    assert dashboard_answer(QUERY_STRING="token=wrong")[:2] == refused
    assert dashboard_answer(HTTP_COOKIE="sweeper_token_9999=abc")[:2] == refused
    status, text, headers = dashboard_answer(QUERY_STRING="token=abc")
    assert (status, text) == ("200 OK", b"may write")
    assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
    cookie = headers["Set-Cookie"].split(";")[0]
    assert dashboard_answer(HTTP_COOKIE=cookie)[:2] == ("200 OK", b"may write")


def test_two_pages_of_one_host_do_not_log_each_other_out() -> None:
    with (
        served(Study().page(), host="0.0.0.0") as first,
        served(Study().page(), host="0.0.0.0") as second,
    ):
        cookies = [ask(one, f"/?token={one.token}")[2]["Set-Cookie"].split(";")[0] for one in (first, second)]
        answers = [ask(one, "/version", Cookie="; ".join(cookies))[0] for one in (first, second)]

    assert len({cookie.partition("=")[0] for cookie in cookies}) == 2
    assert answers == [200, 200]


def test_loopback_is_known_by_name_and_number() -> None:
    hosts = ["localhost", "127.0.0.1", "::1", "0.0.0.0", "10.0.0.3", "head-node"]
    assert [is_loopback(host) for host in hosts] == [True, True, True, False, False, False]


def test_a_port_that_is_taken_is_told_with_a_remedy() -> None:
    with served(Study().page()) as server, pytest.raises(ConfigError, match="Choose another `--port`"):
        ReportServer("127.0.0.1", server.server_address[1], Study().page())


def test_the_dashboards_command_shows_no_password() -> None:
    assert dashboard_command(Path("/a b"), None) == "optuna-dashboard '/a b/study.journal'"
    assert "secret" not in dashboard_command(Path("/a"), "postgresql://me:secret@host/db")


def opened(url: str, *, method: str = "GET") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


@pytest.mark.slow
def test_the_command_serves_a_study_with_optuna_dashboard(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    sweep = write_sweep(tmp_path)
    assert cli("launch", sweep, "--executor", "in-process", "--dir", tmp_path / "study").code == 0

    with background("ui", tmp_path / "study", "--port", "0", "--dashboard", log=tmp_path / "log") as running:
        url = wait_for("the address", lambda: running.log.read_text().strip())
        assert opened(url.partition("?")[0])[0] == 403
        text = opened(url)[1]
        assert "Trial 2 is best" in text
        found = re.search(r'<a href="(http://127.0.0.1:\d+)/dashboard\?token=([^"]+)"', text)
        assert found is not None
        place, token = found.groups()
        assert opened(f"{place}/api/studies/0", method="DELETE")[0] == 403
        assert "made-up" in opened(f"{place}/api/studies?token={token}")[1]
        running.interrupt()
        assert running.end().code == 0
