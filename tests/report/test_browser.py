"""The page as readers meet it: in a real browser, by keyboard, without JavaScript, on paper."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report import chromium
from tests.report.chromium import Chromium
from tests.report.sample_report import sample_report
from tests.report.samples import HOSTILE
from topicwarden.report import html_page, pdf
from topicwarden.report.model import Report

needs_chromium = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="Chromium is not installed: `apt-get install chromium`"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return sample_report(tmp_path_factory.mktemp("hostile"), HOSTILE)


@pytest.fixture(scope="module")
def path(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_page.render(report))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Chromium, path: Path) -> Chromium:
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    browser.size(1280)
    browser.open(path)
    return browser


def told(browser: Chromium) -> list[Any]:
    """Return errors, messages of the console and broken rules of the page's policy."""
    kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    return [event for event in browser.events if event.get("method") in kinds]


COLUMN = "[...document.querySelectorAll('#t-busiest-clients tbody tr:not([hidden])')].map(r => r.cells[{}].dataset.v)"
SORT = "document.querySelectorAll('#t-busiest-clients th')[{}].getAttribute('aria-sort')"


@needs_chromium
def test_the_page_asks_for_nothing_and_nothing_in_it_goes_wrong(page: Chromium, path: Path) -> None:
    clicked = "a => a.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    page.run(f"[...document.querySelectorAll('a')].slice(0, 30).forEach({clicked})")
    asked = [e["params"]["request"]["url"] for e in page.events if e.get("method") == "Network.requestWillBeSent"]
    assert {url.partition("#")[0] for url in asked} == {path.absolute().as_uri()}
    assert told(page) == []
    # What the page's policy forbids really is forbidden.
    page.run("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x'}))")
    page.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.owned = 1'}))")
    assert page.run("window.owned") is None
    assert [event for event in told(page) if "Content Security Policy" in str(event)]
    page.events.clear()


@needs_chromium
def test_every_table_of_several_rows_is_sorted_by_mouse_and_by_keyboard(page: Chromium) -> None:
    before = page.run(COLUMN.format(6))
    assert len(before) > 9
    page.run("document.querySelectorAll('#t-busiest-clients th button')[6].focus()")
    page.key("Enter", 13, "\r")
    assert page.run(SORT.format(6)) == "ascending"
    ascending = page.run(COLUMN.format(6))
    assert [int(value) for value in ascending] == sorted(int(value) for value in before)
    page.key(" ", 32, " ")
    assert page.run(SORT.format(6)) == "descending"
    assert [int(value) for value in page.run(COLUMN.format(6))] == sorted((int(v) for v in before), reverse=True)
    page.run("document.querySelectorAll('#t-busiest-clients th button')[6].click()")
    assert page.run(SORT.format(6)) == "none"
    assert page.run(COLUMN.format(6)) == before
    unsorted = page.run(
        "[...document.querySelectorAll('table.data')].filter(t => t.tBodies[0].rows.length > 1 && "
        "t.tHead.querySelectorAll('button').length !== t.tHead.rows[0].cells.length).length"
    )
    assert unsorted == 0


@needs_chromium
def test_severities_are_sorted_by_gravity_and_unknown_values_stay_last(page: Chromium) -> None:
    page.run("document.querySelector('#t-findings th button').click()")
    order = page.run("[...document.querySelectorAll('#t-findings tbody tr')].map(r => r.cells[0].dataset.v)")
    assert order == sorted(order, key=int)
    for _ in range(2):
        page.run("document.querySelectorAll('#t-busiest-clients th button')[1].click()")
        hosts = page.run("[...document.querySelectorAll('#t-busiest-clients tbody tr')].map(r => r.cells[1].innerText)")
        assert set(hosts[-7:]) == {"–"}


@needs_chromium
def test_rows_are_filtered_by_words_and_a_link_to_a_hidden_row_shows_it_again(page: Chromium) -> None:
    rows = "document.querySelectorAll('#t-findings tbody tr:not([hidden])').length"
    whole = page.run(rows)
    page.run("document.querySelector('#t-findings input').focus()")
    page.call("Input.insertText", text="tw201 SENSOR-2")
    assert 0 < page.run(rows) < whole
    assert (
        page.run("document.querySelector('#t-findings [role=status]').textContent")
        == f"{page.run(rows)} of {whole} rows"
    )
    hidden = page.run("document.querySelector('#t-findings tbody tr[hidden]').id")
    page.run(f"new Promise(done => {{ addEventListener('hashchange', () => done(1)); location.hash = {hidden!r}; }})")
    assert page.run(rows) == whole
    page.run("document.querySelector('#t-findings input').value = '<img onerror=alert(1)>'")
    page.run("document.querySelector('#t-findings input').dispatchEvent(new Event('input'))")
    assert told(page) == []


@needs_chromium
def test_without_javascript_everything_is_there(browser: Chromium, path: Path, report: Report) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(path)
    assert browser.run("document.querySelectorAll('th button, .tools').length") == 0
    rows = sum(len(table.rows) for table in report.tables())
    assert browser.run("document.querySelectorAll('tbody tr').length") == rows
    assert browser.run("[...document.querySelectorAll('tbody tr')].every(row => row.offsetHeight > 0)")
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


@needs_chromium
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_itself_never_scrolls_sideways(page: Chromium, width: int) -> None:
    page.size(width)
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")


@needs_chromium
def test_links_of_charts_and_figures_lead_to_what_they_name(page: Chromium) -> None:
    missing = page.run(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))"
        ".filter(id => !document.getElementById(id))"
    )
    assert missing == []
    assert page.run("document.querySelectorAll('svg.chart a rect').length") > 20


@needs_chromium
def test_printed_tables_repeat_their_heads_and_nothing_is_hidden(page: Chromium, tmp_path: Path) -> None:
    page.run("document.querySelector('#t-findings input').value = 'nothing has this'")
    page.run("document.querySelector('#t-findings input').dispatchEvent(new Event('input'))")
    printed = tmp_path / "printed.pdf"
    printed.write_bytes(page.printed())
    pages = page_texts(printed)
    assert len(pages) > 5
    text = "".join(pages)
    assert text.count("Occurrences") > 6
    assert "plant/a/sensor-2/command" in text.replace("\n", "")
    assert "1 / " in pages[0]
    assert "Filter rows" not in text


def page_texts(path: Path) -> list[str]:
    """Return the text of each page; by Chromium's own reading where poppler is not there the test is skipped."""
    try:
        read = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("pdftotext is not installed: `apt-get install poppler-utils`")
    return read.stdout.split("\f")


def test_weasyprint_makes_a_pdf_and_fetches_nothing(report: Report) -> None:
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        pytest.skip(f"WeasyPrint cannot be loaded (pip install 'topicwarden[pdf]', libpangoft2-1.0-0): {error}")
    assert weasyprint.__version__
    small = html_page.render(report).partition('<section id="controls"')[0]
    made = pdf.render(small + "<img src='http://127.0.0.1:9/x'></main></body></html>")
    assert made.startswith(b"%PDF-")
