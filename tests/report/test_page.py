"""The page: what it shows is what the report holds, nothing in it is somebody else's, and it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.sample_report import sample_report
from tests.report.samples import HOSTILE
from topicwarden.output import wording
from topicwarden.output.escape import shorten
from topicwarden.report import html_page
from topicwarden.report.model import Cell, Column, Figure, Kind, Report, Section, Table

TEMPLATES = Path(html_page.__file__).parent / "templates"
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}
TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "nav",
        "ol",
        "li",
        "main",
        "section",
        "span",
        "dl",
        "dt",
        "dd",
        "div",
        "ul",
        "svg",
        "g",
        "defs",
        "pattern",
        "rect",
        "path",
        "circle",
        "line",
        "text",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "code",
        "pre",
        "strong",
        "small",
        "figure",
        "figcaption",
        "article",
        "footer",
        "script",
        "wbr",
        "br",
    ]
)


class Page(HTMLParser):
    """A page taken apart; raises AssertionError when elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.numbers: dict[str, str] = {}
        """`data-v` of figures, by id."""
        self.shown: dict[str, str] = {}
        """The text of figures, by id."""
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        """Text and `data-v` of cells, by table."""
        self.text: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._table = ""
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), (tag, attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids.append(str(found["id"]))
            if tag == "div" and str(found["id"]).startswith("t-"):
                self._table = str(found["id"])[2:]
        if found.get("data-figure") is not None and found.get("data-v") is not None:
            self.numbers[str(found["data-figure"])] = str(found["data-v"])
        if tag == "tr":
            self.tables.setdefault(self._table, []).append([])
        if tag == "td":
            self.tables[self._table][-1].append(("", found.get("data-v")))
        if tag not in VOID:
            self._open.append((tag, found))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open[-1][0] == tag, (tag, self._open[-3:], self.getpos())
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if any(tag in ("script", "style") for tag, _ in self._open):
            return
        self.text.append(data)
        for tag, found in self._open:
            if tag == "td":
                text, value = self.tables[self._table][-1][-1]
                self.tables[self._table][-1][-1] = (text + data, value)
            if found.get("data-figure") is not None:
                figure = str(found["data-figure"])
                self.shown[figure] = self.shown.get(figure, "") + data


def said(cell: Cell, kind: Kind) -> tuple[str, str | None]:
    """Return what a cell of the model is to look like, and its sort key."""
    if cell is None or cell in ("", ()):
        return "–", ""
    if kind is Kind.NUMBER:
        assert isinstance(cell, int)
        return wording.number(cell), str(cell)
    assert isinstance(cell, int)
    return wording.timestamp(cell).replace("T", " ").removesuffix("Z").removesuffix(".000"), str(cell)


def check_numbers(report: Report, page: Page) -> None:
    """Assert that each number and time in tables and figures is the model's, as text and as sort key."""
    for table in report.tables():
        rows = [row for row in page.tables.get(table.id, []) if row]
        assert len(rows) == len(table.rows), table.id
        for row, shown in zip(table.rows, rows, strict=True):
            for cell, column, (text, value) in zip(row, table.columns, shown, strict=True):
                if column.kind in (Kind.NUMBER, Kind.TIME):
                    assert (text.strip(), value) == said(cell, column.kind), (table.id, column.key)
    for figure in report.figures():
        if figure.value is not None:
            assert page.numbers[figure.id] == str(figure.value)
            assert page.shown[figure.id].strip() == wording.number(figure.value)
        else:
            assert figure.id not in page.numbers


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return sample_report(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return sample_report(tmp_path_factory.mktemp("hostile"), HOSTILE)


def test_every_number_on_the_page_is_the_models(plain: Report, hostile: Report) -> None:
    for report in (plain, hostile):
        page = Page(html_page.render(report))
        check_numbers(report, page)
        shown = {one.fingerprint: one.count for one in report.findings}
        told = [int(found["data-finding-count"] or 0) for _, found in page.tags if "data-finding-count" in found]
        assert sorted(told) == sorted(shown.values())


cells = st.one_of(st.none(), st.integers(0, 2**63 - 1), st.integers(0, 9999))


def test_any_numbers_and_names_come_out_as_they_are(plain: Report) -> None:
    @given(
        st.lists(st.tuples(cells, st.one_of(st.none(), st.integers(0, 2**62)), st.text(max_size=40)), max_size=6),
        st.one_of(st.none(), st.integers(0, 2**64)),
    )
    @settings(max_examples=40, deadline=None)
    def try_one(rows: Sequence[tuple[int | None, int | None, str]], number: int | None) -> None:
        columns = (Column("n", "N", Kind.NUMBER), Column("t", "T", Kind.TIME), Column("name", "Name", Kind.NAME))
        table = Table("any", "Any", columns, tuple(rows), len(rows))
        section = Section("sets", "Any", figures=(Figure("any", "any", number, "any"),), tables=(table,))
        report = replace(plain, sections=(section,), findings=(), findings_total=0)
        page = Page(html_page.render(report))
        check_numbers(report, page)
        for row, shown in zip(rows, [row for row in page.tables.get("any", []) if row], strict=True):
            assert shown[2][0] == (shorten(row[2], html_page.NAME_COLUMNS) if row[2] else "–")

    try_one()


def test_no_name_becomes_an_element_an_attribute_or_a_request(hostile: Report) -> None:
    text = html_page.render(hostile)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= TAGS
    attributes = {name for _, found in page.tags for name in found}
    assert not [name for name in attributes if name.startswith("on")]
    assert not attributes & {"src", "srcset", "action", "formaction", "background", "data", "poster", "xlink:href"}
    links = {found.get("href") or "" for tag, found in page.tags if tag == "a"}
    assert all(link.startswith("#") for link in links)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in links} <= set(page.ids)
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    assert "@import" not in text
    assert [tag for tag, _ in page.tags].count("script") == 1


def test_every_hostile_name_stands_on_the_page_as_text_that_harms_nobody(hostile: Report) -> None:
    page = Page(html_page.render(hostile))
    whole = "".join(page.text)
    for name in HOSTILE:
        shown = shorten(name, html_page.NAME_COLUMNS)
        assert shown in whole, ascii(name)
    assert not [letter for letter in whole if letter != "\n" and not letter.isprintable() and letter != "\xa0"]


def test_the_policy_of_the_page_allows_its_own_script_and_nothing_else(plain: Report) -> None:
    text = html_page.render(plain)
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(found["content"] for tag, found in Page(text).tags if found.get("http-equiv"))
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert text.index("http-equiv") < text.index("<style>") < text.index("<script>")
    assert "{{" not in script


def test_no_template_switches_escaping_off() -> None:
    for path in TEMPLATES.iterdir():
        words = path.read_text("utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", words), path


def luminance(color: str) -> float:
    """Return a colour's relative luminance (WCAG 2.2)."""
    digits = color.lstrip("#")
    digits = "".join(letter * 2 for letter in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_text_colour_has_a_contrast_of_at_least_4_5_on_every_ground_it_stands_on() -> None:
    style = (TEMPLATES / "style.css").read_text()
    named = dict(re.findall(r"(--[a-z]+): (#[0-9a-f]{3,6});", style))
    used = {
        named.get(name[4:-1], name) for name in re.findall(r"(?<![-a-z])color: (var\(--[a-z]+\)|#[0-9a-f]+)", style)
    }
    assert len(used) >= 4
    grounds = ["#fff", named["--faint"], *re.findall(r"background: (#[0-9a-f]{6})", style)]
    for color in used:
        for ground in grounds:
            assert contrast(color, ground) >= 4.5, (color, ground)


def test_a_page_of_any_time_span_has_a_bounded_number_of_steps(plain: Report) -> None:
    for length in (0, 1, 10**9, 86_400 * 10**9 * 400, 2**63 - 1):
        period = replace(plain.period, from_ns=0, to_ns=length)
        report = replace(plain, period=period)
        assert len(html_page.render(report)) < 3_000_000


def test_what_was_not_looked_at_is_said_and_never_shown_as_zero(plain: Report) -> None:
    page = Page(html_page.render(plain))
    assert "granted" not in page.numbers
    assert "difference-4" in page.numbers
    assert "not known" in "".join(page.text)
