"""A report as JSON: `docs/report.md` says what each key means. `--previous` reads it again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from topicwarden.output import wording
from topicwarden.output.jsonl import Shown, encode
from topicwarden.report.model import FORMAT, Cell, Figure, Kind, Query, Report, ReportFinding, Section, Table
from topicwarden.report.reading import NANOSECONDS
from topicwarden.report.since import TYPE


def document(report: Report) -> dict[str, Any]:
    """Return the report as an object of JSON values; every key is always there, what is not known is null."""
    period, coverage = report.period, report.coverage
    return {
        "type": TYPE,
        "format": FORMAT,
        "version": report.version,
        "generated": wording.timestamp(report.generated_ns, 9),
        "host": report.host,
        "period": {
            "from": wording.timestamp(period.from_ns, 9),
            "to": wording.timestamp(period.to_ns, 9),
            "first_event": None if period.first_ns is None else wording.timestamp(period.first_ns, 9),
            "last_event": None if period.last_ns is None else wording.timestamp(period.last_ns, 9),
        },
        "store": {
            "id": report.store.id,
            "created": wording.timestamp(report.store.created_ns, 9),
            "sealed": report.store.sealed,
            "writers": report.store.writers,
        },
        "policy": None if report.policy is None else asdict(report.policy),
        "grants_read": report.grants_read,
        "gaps": {
            "count": 0 if coverage is None else len(coverage.gaps),
            "seconds": 0 if coverage is None else coverage.missing_ns / NANOSECONDS,
            "allowed_seconds": 0 if coverage is None else coverage.allowed_gap_ns / NANOSECONDS,
        },
        "sets": {
            "granted": _figure(report.sets.granted),
            "observed": _figure(report.sets.observed),
            "intended": _figure(report.sets.intended),
            "differences": [
                {
                    "number": one.number,
                    "name": one.name,
                    "reads_as": one.reads_as,
                    "findings": _figure(one.figure),
                    "occurrences": one.occurrences,
                }
                for one in report.sets.differences
            ],
        },
        "sections": [_section(section) for section in report.sections],
        "findings": [finding(one) for one in report.findings],
        "findings_total": report.findings_total,
        "integrity": asdict(report.integrity)
        | {
            "signed_ns": None
            if report.integrity.signed_ns is None
            else wording.timestamp(report.integrity.signed_ns, 9)
        },
        "versions": dict(report.versions),
    }


def text(report: Report) -> str:
    """Return the report as one line of ASCII JSON with a line feed."""
    return encode(document(report)) + "\n"


def finding(one: ReportFinding) -> dict[str, Any]:
    """Return a finding; its keys are those of JSON lines output where they are the same thing."""
    return {
        "fingerprint": one.fingerprint,
        "code": one.code,
        "name": one.name,
        "severity": one.severity,
        "title": Shown(one.title),
        "who": one.who,
        "broker": one.broker,
        "host": one.host,
        "client": None if one.client is None else dict(one.client),
        "count": one.count,
        "certainty": one.certainty,
        "first_seen": wording.timestamp(one.first_ns, 9),
        "last_seen": wording.timestamp(one.last_ns, 9),
        "runs": one.runs,
        "witnesses": [{"name": name, "count": count} for name, count in one.witnesses],
        "more_witnesses": one.more_witnesses,
        "evidence": dict(one.evidence),
        "behind": [asdict(process) | {"command": Shown(process.command)} for process in one.behind],
        "more_behind": one.more_behind,
        "accepted": one.accepted,
        "difference": one.difference,
        "meaning": one.meaning,
        "why": one.why,
        "fix": one.fix,
        "limits": list(one.limits),
        "attack": list(one.attack),
        "controls": {framework: list(ids) for framework, ids in one.controls.items()},
    }


def _section(section: Section) -> dict[str, Any]:
    return {
        "id": section.id,
        "title": section.title,
        "intro": list(section.intro),
        "warnings": list(section.warnings),
        "facts": [{"name": name, "value": value} for name, value in section.facts],
        "figures": [_figure(figure) for figure in section.figures],
        "tables": [_table(table) for table in section.tables],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "id": figure.id,
        "label": figure.label,
        "value": figure.value,
        "table": figure.table,
        "query": _query(figure.query),
        "note": figure.note,
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "id": table.id,
        "title": table.title,
        "total": table.total,
        "note": table.note,
        "query": _query(table.query),
        "rows": [
            {column.key: _cell(cell, column.kind) for column, cell in zip(table.columns, row, strict=True)}
            for row in table.rows
        ],
    }


def _query(query: Query | None) -> dict[str, Any] | None:
    return None if query is None else {"sql": query.sql, "of_period": query.of_period}


def _cell(cell: Cell, kind: Kind) -> Any:
    if kind is Kind.TIME and isinstance(cell, int):
        return wording.timestamp(cell, 9)
    return list(cell) if isinstance(cell, tuple) else cell
