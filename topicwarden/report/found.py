"""Chapters about findings: deviations over time, all findings, and the techniques they point to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from topicwarden.output import attack
from topicwarden.report.findings import SEVERITIES, by_gravity
from topicwarden.report.model import Column, Figure, Kind, Query, ReportFinding, Section, Table
from topicwarden.report.reading import MAX_ROWS, Reading, Totals, counted_in


def over_time(reading: Reading) -> Section:
    """Return when deviations began, and how much was done and refused, step by step."""
    span = reading.span
    by_step: dict[int, Counter[str]] = {}
    earlier = 0
    for step_number, severity, found in reading.found(
        f"select first_ns // {span.step}, severity, count(*) from found where accepted is null and "  # noqa: S608
        "(difference like 'observed%' or difference like 'hosts observed%') group by all order by all"
    ):
        begins_ns = int(step_number) * span.step
        if begins_ns + span.step <= span.from_ns:
            earlier += int(found)
        else:
            by_step.setdefault(begins_ns, Counter())[str(severity)] += int(found)
    columns = tuple(Column(name, name.capitalize(), Kind.NUMBER) for name in reversed(SEVERITIES))
    begins = span.steps()
    rows = [(step, *(by_step[step][column.key] for column in columns)) for step in begins if step in by_step]
    seen = reading.events_by_step()
    traffic = [(step, *seen[step // span.step]) for step in begins if step // span.step in seen]
    tables = (
        Table(
            "deviations-over-time",
            "New deviations, step by step",
            (Column("begins", "From", Kind.TIME), *columns),
            tuple(rows),
            len(rows),
            reading.findings_in(
                "f.accepted is null and (f.difference like 'observed%' or f.difference like 'hosts observed%')",
                "f.first_seen, f.severity, f.code, fingerprint, h.count",
            ),
            note=f"A step is {span.step_said}. A deviation counts when it was seen for the first time; those "
            "that an exception accepts are left out, and so are steps without any.",
            empty="No deviation began in the period.",
        ),
        Table(
            "traffic-over-time",
            "Events and refusals, step by step",
            (
                Column("begins", "From", Kind.TIME),
                Column("events", "Events", Kind.NUMBER),
                Column("denied", "Refused", Kind.NUMBER),
            ),
            tuple(traffic),
            len(traffic),
            Query(
                f"select time_ns // {span.step} * {span.step} as begins_ns, sum(count) as events, "  # noqa: S608
                "coalesce(sum(count) filter (outcome = 'denied'), 0) as refused from events group by 1 order by 1"
            ),
            note=f"A step is {span.step_said}; steps without events are left out.",
        ),
    )
    figures = (
        Figure("new-deviations", "deviations seen first in the period", _sum(rows), "deviations-over-time"),
        Figure("earlier-deviations", "that began before it and go on", earlier, "findings"),
    )
    return Section("time", "Deviations over time", figures=figures, tables=tables)


def _sum(rows: Iterable[Sequence[Any]]) -> int:
    return sum(int(cell) for row in rows for cell in row[1:])


def findings(reading: Reading, found: Sequence[ReportFinding], totals: Sequence[Totals]) -> Section:
    """Return all findings, by code and one by one."""
    opened = Counter[str]()
    for one in totals:
        if not one.accepted:
            opened[one.severity] += one.findings
    codes: dict[tuple[str, str, str, str], list[int]] = {}
    for one in totals:
        numbers = codes.setdefault((one.code, one.name, one.severity, one.difference), [0, 0, 0])
        numbers[1 if one.accepted else 0] += one.findings
        numbers[2] += one.occurrences
    ordered = sorted(codes.items(), key=lambda item: (-SEVERITIES.index(item[0][2]), item[0]))
    condition = reading.standing("f.fingerprint")
    standing = "" if condition is None else f" where {condition}"
    by_code = Table(
        "findings-by-code",
        "By kind",
        (
            Column("severity", "Severity", Kind.SEVERITY),
            Column("code", "Code"),
            Column("name", "Name"),
            Column("difference", "Difference"),
            Column("open", "Open findings", Kind.NUMBER),
            Column("accepted", "Accepted", Kind.NUMBER),
            Column("occurrences", "Occurrences", Kind.NUMBER),
        ),
        tuple((severity, code, name, difference, *row) for (code, name, severity, difference), row in ordered),
        len(ordered),
        Query(
            "select f.severity, f.code, f.name, f.difference, count(*) filter (f.accepted is null) as open, "  # noqa: S608
            "count(*) filter (f.accepted is not null) as accepted, sum(h.count) as occurrences "
            f"from findings f join ({counted_in(reading.span)}) h using (fingerprint){standing} group by 1, 2, 3, 4 "
            "order by severity_rank(f.severity) desc, 2",
            of_period=False,
        ),
        note="A finding is one cause, however often it recurs; occurrences say how often.",
    )
    total = sum(one.findings for one in totals)
    ranked = sorted(found, key=by_gravity)
    table = Table(
        "findings",
        "All findings, the gravest first",
        (
            Column("severity", "Severity", Kind.SEVERITY),
            Column("code", "Code"),
            Column("who", "Who", Kind.NAME),
            Column("where", "Broker or host", Kind.NAME),
            Column("witness", "For example", Kind.NAMES),
            Column("count", "Occurrences", Kind.NUMBER),
            Column("first", "First", Kind.TIME),
            Column("last", "Last", Kind.TIME),
            Column("certainty", "Certainty"),
            Column("state", "State"),
            Column("finding", "Finding", Kind.FINDING),
        ),
        tuple(
            (
                one.severity,
                one.code,
                one.who,
                one.host if one.host is not None else one.broker,
                tuple(name for name, _ in one.witnesses[:2]),
                one.count,
                one.first_ns,
                one.last_ns,
                one.certainty,
                "open" if one.accepted is None else "accepted",
                one.fingerprint,
            )
            for one in ranked[:MAX_ROWS]
        ),
        total,
        reading.findings_in(),
        empty="Nothing was found in the period. Read chapter 2 before you rely on it.",
    )
    figures = tuple(
        Figure(f"open-{severity}", f"{severity}, open", opened[severity], "findings-by-code")
        for severity in reversed(SEVERITIES)
    )
    return Section("findings", "Findings", figures=figures, tables=(by_code, table))


def techniques(reading: Reading) -> Section:
    """Return the ATT&CK techniques that open findings point to."""
    rows = [
        (str(technique), int(count), int(occurrences), tuple(sorted(codes)))
        for technique, count, occurrences, codes in reading.found(
            "select technique, count(*), sum(count), list(distinct code) from (select code, count, "
            "unnest(attack) as technique from found where accepted is null) "
            "group by 1 order by 2 desc, 1"
        )
    ]
    table = Table(
        "techniques",
        "ATT&CK techniques",
        (
            Column("technique", "Technique"),
            Column("name", "Name"),
            Column("tactic", "Tactic"),
            Column("findings", "Open findings", Kind.NUMBER),
            Column("occurrences", "Occurrences", Kind.NUMBER),
            Column("codes", "Codes", Kind.TEXTS),
        ),
        tuple(
            (technique, attack.technique(technique).full_name, attack.technique(technique).tactic, count, times, codes)
            for technique, count, times, codes in rows
        ),
        len(rows),
        note="Names as in MITRE ATT&CK v18. A technique says what a behaviour may be part of, not that there was an "
        "attack.",
        empty="No open finding points to a technique.",
    )
    return Section("attack", "ATT&CK techniques", tables=(table,))
