"""The report's page as a browser shows it: no errors, no sideways scrolling, sorting, switching, colours."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import EXECUTABLE, Page, open_chromium
from report_fixtures import make_config, make_record, make_view, view_of_5, view_of_16, view_of_many

from sweeper.records import TrialState
from sweeper.reporting import write_report
from sweeper.study.view import StudyView

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed: apt-get install chromium"),
]

# 16 is what the quickstart leaves: a small grid, partly pruned.
VIEWS: dict[str, Callable[[], StudyView]] = {
    "5": view_of_5,
    "16": view_of_16,
    "2000": lambda: view_of_many(2000),
}
MAX_CPU_S = 3.0  # of the page's own thread, so that a busy machine does not count


# What is below the first screen is drawn a moment later.
DRAWN = """new Promise(done => {
  const look = () => document.documentElement.dataset.ready ? done(true) : setTimeout(look, 20);
  look();
})"""
# Labels of plots without a single mark.
UNDRAWN = """[...document.querySelectorAll('.plot')]
  .filter(plot => !plot.querySelector('.scatterlayer path, .barlayer path, .heatmaplayer image, .hm image'))
  .map(plot => plot.getAttribute('aria-label'))"""
# Places of some marks of a plot that lie on the screen once it is scrolled there.
MARKS = """(() => {
  const plot = document.querySelectorAll('.plot')[%d];
  plot.scrollIntoView({ block: 'center' });
  const marks = [...plot.querySelectorAll('.barlayer path, .heatmaplayer image, .hm image, .scatterlayer .points path'
    + ', .scatterlayer .js-line')];
  const step = Math.max(1, Math.floor(marks.length / 12));
  return marks.filter((_, index) => index %% step === 0).slice(0, 12).map(mark => {
    if (mark.classList.contains('js-line')) {
      const at = mark.getPointAtLength(mark.getTotalLength() / 2).matrixTransform(mark.getScreenCTM());
      return [at.x, at.y];
    }
    const box = mark.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  });
})()"""
SAID = """new Promise(done => {
  const plot = document.querySelectorAll('.plot')[%d];
  const look = left => plot.querySelector('.hoverlayer .hovertext') ? done(true)
    : left ? setTimeout(look, 25, left - 1) : done(false);
  look(12);
})"""


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
    open_whole(page, reports[name], width=width, scheme=scheme)

    assert page.complaints() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(UNDRAWN) == []
    assert page.evaluate("document.querySelectorAll('.plot').length") == (6 if name == "5" else 9)
    assert [address for address in page.addresses() if not address.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["16", "2000"])
def test_every_plot_says_what_is_under_the_pointer(
    page: Page, reports: dict[str, Path], name: str, width: int
) -> None:
    open_whole(page, reports[name], width=width)

    silent = [
        page.evaluate(f"document.querySelectorAll('.plot')[{index}].getAttribute('aria-label')")
        for index in range(page.evaluate("document.querySelectorAll('.plot').length"))
        if not says_something(page, index)
    ]

    assert silent == []
    assert page.complaints() == []


def open_whole(page: Page, report: Path, *, width: int, scheme: str = "light") -> None:
    """Open a report and wait until everything is drawn."""
    page.open(report, width=width, scheme=scheme)
    page.evaluate(DRAWN)


def says_something(page: Page, index: int) -> bool:
    """Move the pointer over marks of a plot until it says something."""
    for place in page.evaluate(MARKS % index):
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0] - 3, y=place[1] - 3)
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        if page.evaluate(SAID % index):
            return True
    return False


@pytest.mark.parametrize("name", VIEWS)
def test_the_page_opens_in_less_than_3_seconds(page: Page, reports: dict[str, Path], name: str) -> None:
    page.call("Performance.enable", timeDomain="threadTicks")
    page.open(reports[name], width=1280)

    metrics = cpu(page)
    page.evaluate(DRAWN)
    whole = cpu(page)
    page.call("Performance.disable")

    print(f"{name} trials: {metrics:.2f} s of CPU to open, {whole:.2f} s until all below is drawn too")
    assert metrics < MAX_CPU_S


def cpu(page: Page) -> float:
    """Return the seconds that the page's thread has worked since it was opened."""
    metrics = {one["name"]: one["value"] for one in page.call("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def test_plots_follow_the_colour_scheme(page: Page, reports: dict[str, Path]) -> None:
    open_whole(page, reports["16"], width=1280, scheme="light")
    colour = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = page.evaluate(colour)

    page.use_scheme("dark")
    page.evaluate("new Promise(done => setTimeout(() => done(true), 200))")

    assert page.evaluate(colour) != light


def test_no_value_beside_a_parallel_axis_is_cut_on_a_phone(page: Page, tmp_path: Path) -> None:
    space = {
        "model": {"choice": ["models/llama-000123", "models/llama-000456"]},
        "learning_rate": {"grid": [1e-4]},
    }
    records = [
        make_record(n, TrialState.COMPLETE, {"model": path, "learning_rate": 1e-4 * (n + 1)})
        for n, path in enumerate(space["model"]["choice"])
    ]
    open_whole(page, write_report(make_view(records, make_config(space)), tmp_path), width=390)

    outside = page.evaluate("""[...document.querySelectorAll('.plot .annotation-text')]
      .filter(text => text.getBoundingClientRect().left < text.closest('.plot').getBoundingClientRect().left)
      .map(text => text.textContent)""")

    assert outside == []


def test_a_click_on_a_heading_sorts_the_table(page: Page, reports: dict[str, Path]) -> None:
    open_whole(page, reports["16"], width=1280)
    heading = "[...document.querySelectorAll('th button')].find(b => b.textContent === 'accuracy')"
    first = "document.querySelectorAll('section[aria-labelledby=trials] tbody tr')[0].cells[0].textContent"

    page.evaluate(f"{heading}.click()")
    assert page.evaluate(first) == "7"
    page.evaluate(f"{heading}.click()")
    assert page.evaluate(first) == "10"


def test_the_switch_shows_curves_by_steps_and_by_time(page: Page, reports: dict[str, Path]) -> None:
    open_whole(page, reports["16"], width=1280)
    ends = "Math.max(...document.querySelectorAll('.plot')[1].data.map(t => t.x[t.x.length - 1] ?? 0))"
    assert page.evaluate(ends) == 2048

    page.evaluate("document.querySelector('.switch button[value=steps]').click()")
    assert page.evaluate(ends) == 128
    page.evaluate("document.querySelector('.switch button[value=times]').click()")

    assert page.evaluate(ends) == pytest.approx(128 * 0.05)  # each step took 0.05 s
    assert page.complaints() == []
