"""The report's page as a browser shows it: no errors, no sideways scrolling, sorting, switching, colours."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import EXECUTABLE, Page, open_chromium
from report_fixtures import view_of_5, view_of_16, view_of_many

from sweeper.reporting import write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed: apt-get install chromium"),
]

VIEWS = {"5": view_of_5, "16": view_of_16, "300": view_of_many}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_report(make(), tmp_path_factory.mktemp(name)) for name, make in VIEWS.items()}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", VIEWS)
def test_the_page_opens_from_disk_without_complaint_or_sideways_scrolling(
    page: Page, reports: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page.open(reports[name], width=width, scheme=scheme)

    assert page.complaints() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelectorAll('.plot .main-svg').length") >= 5
    assert [address for address in page.addresses() if not address.startswith(("file:", "data:"))] == []


def test_plots_follow_the_colour_scheme(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["16"], width=1280, scheme="light")
    colour = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = page.evaluate(colour)

    page.use_scheme("dark")
    page.evaluate("new Promise(done => setTimeout(() => done(true), 200))")

    assert page.evaluate(colour) != light


def test_a_click_on_a_heading_sorts_the_table(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["16"], width=1280)
    heading = "[...document.querySelectorAll('th button')].find(b => b.textContent === 'accuracy')"
    first = "document.querySelectorAll('section[aria-labelledby=trials] tbody tr')[0].cells[0].textContent"

    page.evaluate(f"{heading}.click()")
    assert page.evaluate(first) == "7"
    page.evaluate(f"{heading}.click()")
    assert page.evaluate(first) == "10"


def test_the_switch_shows_curves_by_steps(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["16"], width=1280)
    ends = "Math.max(...document.querySelectorAll('.plot')[1].data.map(t => t.x[t.x.length - 1] ?? 0))"
    assert page.evaluate(ends) == 2048

    page.evaluate("document.querySelector('.switch button[value=steps]').click()")

    assert page.evaluate(ends) == 128
    assert page.complaints() == []
