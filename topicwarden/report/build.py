"""Builds a report: each chapter from what was read, in the order in which a reader needs them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from topicwarden.findings import Catalogue
from topicwarden.output.wording import counted
from topicwarden.report import activity, integrity, judged, observed, privilege, since
from topicwarden.report import found as found_chapters
from topicwarden.report.commands import command
from topicwarden.report.controls import assess
from topicwarden.report.coverage import Coverage, coverage_of
from topicwarden.report.findings import by_gravity, read_findings
from topicwarden.report.inputs import Inputs
from topicwarden.report.model import Column, Kind, Period, Query, Report, ReportFinding, Section, StoreFacts, Table
from topicwarden.report.reading import MAX_FINDINGS, Reading, Totals
from topicwarden.report.standing import with_scans

_SCANS: Final = frozenset({"TW102", "TW104", "TW105", "TW106", "TW107", "TW108", "TW109", "TW112", "TW113"})
"""Codes that only a scan of grants finds."""
_OF_SCANS: Final = (
    "Grants were scanned as they stood at some moments. What such a scan found stands until a newer one of the same "
    "configuration looked for it and did not find it: then it is told in chapter privilege, and counts nowhere else."
)
_METHOD: Final = tuple(
    " ".join(paragraph.split())
    for paragraph in (
        """Collectors read what brokers and hosts tell of themselves; identity is what the broker verified. Every event
        is held against the policy, and every grant against the policy and the events. Each difference is a finding:
        one cause, however often it recurs, and never stated more strongly than its evidence.""",
        """A finding is in this report when a run that told of it overlaps the period. Its count is of those runs: of
        one that began before the period, the occurrences before it count too. What several runs watched, or several
        scans found, counts once for each.""",
        f"""Tables show the first rows; of findings, at most {MAX_FINDINGS} are read whole. Where rows are left out, the
        number stands below the table, and the command beside it gives all of them.""",
    )
)


def build_report(inputs: Inputs, catalogue: Catalogue, opened: Callable[[Reading], None] = lambda _: None) -> Report:
    """Return the report; raises ObservationError when the store cannot be read.

    `opened` is called with what reads the store, for whoever wants to interrupt that.
    """
    with Reading(inputs.store, inputs.span, opened) as reading:
        inputs, succession = with_scans(inputs, reading)
        reading.add_findings(inputs.scanned, inputs.now_ns)
        totals = reading.totals()
        found, unreadable = read_findings(reading.documents())
        found.sort(key=by_gravity)
        inputs = _told(inputs, totals)
        coverage = _coverage(inputs, reading, totals, unreadable + reading.unreadable)
        results = tuple(assess(inputs.frameworks, found, coverage))
        total = sum(one.findings for one in totals)
        sections = [
            observed.scope(inputs, reading),
            observed.unseen(inputs, reading, catalogue, coverage),
            Section("sets", "Who may, who does, who should"),
            judged.controls(results),
            privilege.privilege(inputs, reading, found, totals, succession),
            found_chapters.over_time(reading),
            activity.activity(reading),
            activity.denied(reading),
            activity.changes(reading),
            judged.exceptions(inputs, reading),
            found_chapters.findings(reading, found, totals),
            since.chapter(inputs, found, total, results),
            found_chapters.techniques(reading),
        ]
        sets = judged.sets(inputs, reading, totals, observed.policies_of(inputs))
        first_ns, last_ns = reading.ends()
        report = Report(
            generated_ns=inputs.now_ns,
            version=inputs.version,
            host=inputs.host,
            period=Period(
                inputs.span.from_ns, inputs.span.to_ns, first_ns, last_ns, inputs.open_start, inputs.open_end
            ),
            store=StoreFacts(
                inputs.store.info.id, inputs.store.info.created_ns, inputs.store.sealed + 1, len(inputs.runs)
            ),
            policy=inputs.policy and replace(inputs.policy, recorded=observed.policies_of(inputs).digests),
            grants_read=inputs.grants_read,
            sets=sets,
            sections=tuple(sections),
            findings=tuple(found),
            findings_total=total,
            integrity=inputs.integrity,
            controls=results,
            coverage=coverage,
            directory=inputs.directory,
            versions=inputs.versions,
        )
        last = (_method(report, inputs, found), integrity.chapter(inputs.integrity, inputs.directory))
        return replace(report, sections=(*report.sections, *last))


def _told(inputs: Inputs, totals: Sequence[Totals]) -> Inputs:
    """Return the inputs with what the store shows of what was looked at."""
    sources = [row for run in observed.runs_in(inputs) for row in observed.sources_of(run)]
    return replace(
        inputs,
        grants_told=any(one.code in _SCANS for one in totals),
        hosts_watched=any(row.get("host") is True for row in sources),
    )


def _coverage(inputs: Inputs, reading: Reading, totals: Sequence[Totals], unreadable: int) -> Coverage:
    """Return what was looked at in the period: what controls are judged by."""
    brokers, _ = reading.rows(Query("select broker, sum(events)::bigint from clients group by broker order by broker"))
    judged = observed.policies_of(inputs).problem is None
    if inputs.scans and not observed.runs_in(inputs):
        judged = inputs.policy is not None  # what scans were held against, each of them says
    return coverage_of(
        inputs.entries,
        inputs.span.from_ns,
        inputs.span.to_ns,
        events={str(broker): int(count) for broker, count in brokers},
        policy=judged,
        grants=[one.broker for one in inputs.grants],
        grants_unjudged=[one.broker for one in inputs.grants if not one.judged],
        grants_spots=[(title, what) for title, what, _ in inputs.grants_spots],
        integrity=inputs.verified if inputs.integrity.holds else False,
        unreadable=unreadable,
        totals=totals,
        at_work=inputs.at_work,
        allowed_gap_ns=inputs.allowed_gap_ns,
    )


def _method(report: Report, inputs: Inputs, found: Iterable[ReportFinding]) -> Section:
    """Return how the report was made, what it cannot know, and the query behind each figure."""
    queries = [
        (figure.label, figure.value, figure.query)
        for figure in report.figures()
        if isinstance(figure.query, Query) and figure.value is not None
    ]
    figures = Table(
        "figures",
        "The figures and what they count",
        (Column("figure", "Figure"), Column("value", "Value", Kind.NUMBER), Column("command", "Command", Kind.COMMAND)),
        tuple((label, value, command(report.directory, report.period, query)) for label, value, query in queries),
        len(queries),
        note=privilege.NOT_STORED if inputs.scanned else None,
    )
    limits: dict[tuple[str, str, str], None] = {}
    for one in found:
        for limit in one.limits:
            limits[one.code, one.name, limit] = None
    limits_table = Table(
        "limits",
        "What the findings of this report cannot see, and when they may be wrong",
        (Column("code", "Code"), Column("name", "Name"), Column("limit", "Limit")),
        tuple(sorted(limits)),
        len(limits),
        empty="There are no findings.",
    )
    segments = counted(report.store.sealed, "segment")
    return Section(
        "method",
        "Method, versions and limits",
        (*_METHOD, _OF_SCANS) if inputs.scans else _METHOD,
        facts=(
            ("topicwarden", report.version),
            ("Python", platform.python_version()),
            *report.versions.items(),
            ("Written by", ", ".join(_versions(inputs)) or "not said"),
            ("Store", f"{segments}, opened for writing {counted(report.store.writers, 'time')}"),
        ),
        tables=(figures, limits_table),
    )


def _versions(inputs: Inputs) -> list[str]:
    found = {str((run.opened.facts or {}).get("version", "")) for run in inputs.runs}
    return sorted(f"topicwarden {version}" for version in found if version)
