"""A report as one HTML file that loads nothing: style, script and pictures are in it, and its policy forbids all else.

Two escapes stand between a hostile name and the page, and no template can forget them: `finalize` makes every text
visible as on a terminal, and autoescape takes away every meaning it could have in HTML. The page's Content-Security-
Policy allows our one script by its hash, and no request whatever.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from topicwarden.output import attack, wording
from topicwarden.output.escape import quoted, shorten, visible
from topicwarden.output.jsonl import Shown
from topicwarden.report import charts
from topicwarden.report.commands import command
from topicwarden.report.findings import SEVERITIES, by_gravity
from topicwarden.report.model import Report, ReportFinding, clock
from topicwarden.report.reading import Span

MAX_DETAILS: Final = 200
"""Findings that are shown with everything that is known of them."""
NAME_COLUMNS: Final = 160
"""Columns a name may take; longer ones lose their middle."""
BAR_COLUMNS: Final = 34
_PIECE: Final = re.compile(r"[^/.:_,;@?&=\s-]{1,24}[/.:_,;@?&=\s-]?|[/.:_,;@?&=\s-]")
_STATUSES: Final = ("satisfied", "not assessed", "not satisfied")
_SEVERITY_SERIES: Final = tuple((name, name, name) for name in reversed(SEVERITIES))


def render(report: Report) -> str:
    """Return the page."""
    environment = _environment()
    shown = sorted(report.findings, key=by_gravity)[:MAX_DETAILS]
    script = environment.get_template("tables.js").render()
    return environment.get_template("report.html").render(
        report=report,
        script=Markup(script),  # noqa: S704 - our own file, without a value in it
        script_hash=script_hash(script),
        shown_findings=shown,
        groups=_groups(shown),
        detailed=frozenset(one.fingerprint for one in shown),
        charts=_charts(report),
        command=lambda query: command(report.directory, report.period, query),
    )


def script_hash(script: str) -> str:
    """Return a script's hash as a Content-Security-Policy has it. Of the text as it stands between the tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("topicwarden.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(
        number=lambda value: Shown(wording.number(value)),
        moment=lambda value: Shown(f"{clock(value)}Z"),
        clock=clock,
        pieces=_pieces,
        known=lambda fields: [(key, str(value)) for key, value in fields.items() if value not in (None, "")],
        day=lambda value: Shown(wording.timestamp(value)[:10]),
        bar_name=lambda value: Shown(shorten(value, BAR_COLUMNS)),
        fact=_fact,
        words=_words,
        told=Shown,
        rank=_rank,
        technique=_technique,
    )
    return environment


def _finalize(value: Any) -> Any:
    """Make every text fit to be read that no filter has made so."""
    if isinstance(value, Markup | Shown) or not isinstance(value, str):
        return value
    return visible(value)


def _pieces(text: object) -> list[Shown]:
    """Return a name, shortened, in pieces between which a line may break: behind separators, and at the latest then."""
    shown = shorten(str(text), NAME_COLUMNS)
    return [Shown(piece) for piece in _PIECE.findall(shown)]


def _words(text: str) -> Shown:
    """Return our own prose: its ellipses are no mark of a name that was shortened."""
    return Shown("…".join(visible(part) for part in text.split("…")))


def _groups(findings: Sequence[ReportFinding]) -> list[list[ReportFinding]]:
    """Return findings by code, in the order of the gravest of each."""
    groups: dict[str, list[ReportFinding]] = {}
    for one in findings:
        groups.setdefault(one.code, []).append(one)
    return list(groups.values())


def _fact(value: str | float | None) -> Shown:
    if isinstance(value, str):
        return Shown(quoted(value, NAME_COLUMNS))
    return Shown("not known" if value is None else wording.scalar(value))


def _rank(word: str) -> int:
    """Return where a severity or status stands among its like."""
    for order in (SEVERITIES, _STATUSES):
        if word in order:
            return order.index(word)
    return -1


def _technique(technique_id: str) -> str:
    found = attack.technique(technique_id)
    return technique_id if found.full_name == technique_id else f"{technique_id} {found.full_name}"


def _charts(report: Report) -> Mapping[str, Sequence[charts.Chart]]:
    """Return each chapter's charts."""
    found: dict[str, Sequence[charts.Chart | None]] = {section.id: () for section in report.sections}
    if "time" in found:
        traffic = report.table("traffic-over-time")
        span = Span(report.period.from_ns, report.period.to_ns)
        begins = span.steps()
        found["time"] = (
            charts.over_time(
                "deviations", "New deviations by severity", report.table("deviations-over-time"), begins,
                span.step_said, _SEVERITY_SERIES, "new deviations",
            ),
            charts.over_time(
                "denied", "Attempts that brokers refused", traffic, begins, span.step_said,
                (("denied", "refused", "denied"),), "refused",
            ),
            charts.over_time(
                "events", "Events", traffic, begins, span.step_said, (("events", "events", "plain"),), "events"
            ),
        )  # fmt: skip
    if "activity" in found:
        found["activity"] = (
            charts.by_row(
                "busiest", "The busiest clients", report.table("busiest-clients"), ("user", "client_id"), "broker",
                (("events", "events", "plain"),), "events",
            ),
        )  # fmt: skip
    return {key: [chart for chart in ours if chart is not None] for key, ours in found.items()}
