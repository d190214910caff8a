"""What changed since an earlier report, from its JSON form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.output import wording
from topicwarden.report.controls import ControlResult
from topicwarden.report.inputs import Inputs
from topicwarden.report.judged import CONTROLS
from topicwarden.report.model import FORMAT, Cell, Column, Figure, Kind, ReportFinding, Section, Table
from topicwarden.report.reading import MAX_ROWS, NANOSECONDS

TYPE: Final = "topicwarden-report"
MAX_BYTES: Final = 256 << 20
_TIME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})\.\d+Z")


def read_previous(path: Path) -> Mapping[str, Any]:
    """Read an earlier report; raises ConfigurationError for what is none, or was made by a newer topicwarden."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        row = json.loads(data) if len(data) <= MAX_BYTES else None
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be read: {error.strerror}", str(path))) from error
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or row.get("type") != TYPE:
        raise ConfigurationError(
            Problem("not an earlier report", str(path), hint="give what `report -o FILE.json` wrote")
        )
    if not isinstance(row.get("format"), int) or row["format"] > FORMAT:
        raise ConfigurationError(
            Problem(f"a report of format {row.get('format')}, this topicwarden reads {FORMAT}", str(path))
        )
    return row


def chapter(
    inputs: Inputs, findings: Sequence[ReportFinding], total: int, controls: Sequence[ControlResult]
) -> Section:
    """Return what is new, gone, or judged differently; raises ConfigurationError for a report that lacks its parts."""
    title = "What changed since the last report"
    if inputs.previous is None:
        return Section("since", title, ("No earlier report was given to compare with (--previous FILE.json).",))
    file, row = inputs.previous
    try:
        return _compared(inputs, findings, total, controls, row)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigurationError(
            Problem(f"the earlier report is damaged ({error!r})", file, hint="give what `report -o FILE.json` wrote")
        ) from error


def _compared(
    inputs: Inputs,
    findings: Sequence[ReportFinding],
    total: int,
    controls: Sequence[ControlResult],
    row: Mapping[str, Any],
) -> Section:
    before = {str(one["fingerprint"]): one for one in row["findings"]}
    now = {one.fingerprint: one for one in findings}
    # Of what was cut off, nobody can say whether it is new or gone.
    cut_before = int(row["findings_total"]) > len(before)
    cut_now = total > len(now)
    fresh = [] if cut_before else [one for one in findings if one.fingerprint not in before]
    gone = [] if cut_now else [one for fingerprint, one in before.items() if fingerprint not in now]
    period = row["period"]
    facts = [
        ("The last report", f"made {_clock(row['generated'])}"),
        ("Its period", f"{_clock(period['from'])} to {_clock(period['to'])}"),
        ("Findings then", wording.number(int(row["findings_total"]))),
        ("Findings now", wording.number(total)),
    ]
    warnings = []
    if row["store"]["id"] != inputs.store.info.id:
        warnings.append("The last report is of another store.")
    policy = row["policy"]
    if (policy or {}).get("sha256") != (inputs.policy.sha256 if inputs.policy else None):
        warnings.append("The policy is another one than in the last report: findings come and go because of that too.")
    if cut_before or cut_now:
        warnings.append("There are more findings than a report keeps: what is new or gone among them is not known.")
    allowed = (row.get("gaps") or {}).get("allowed_seconds", 0)
    if allowed != inputs.allowed_gap_ns / NANOSECONDS:
        warnings.append(
            f"The last report allowed {_allowance(int(allowed * NANOSECONDS))} in the evidence, this one "
            f"{_allowance(inputs.allowed_gap_ns)}: controls are judged differently because of that too."
        )
    judged = _controls(row, controls)
    return Section(
        "since",
        "What changed since the last report",
        warnings=tuple(warnings),
        facts=tuple(facts),
        figures=(
            Figure("new", "new findings", None if cut_before else len(fresh), "new-findings"),
            Figure("gone", "not found again", None if cut_now else len(gone), "gone-findings"),
            Figure("rejudged", "controls judged differently", len(judged), "rejudged-controls"),
        ),
        tables=(
            _listed("new-findings", "New findings", [_row(one) for one in fresh]),
            _listed("gone-findings", "Found last time and not now", [_old_row(one) for one in gone]),
            Table(
                "rejudged-controls",
                "Controls that are judged differently",
                (
                    Column("framework", "Framework"),
                    Column("control", "Control"),
                    Column("before", "Then", Kind.STATUS),
                    Column("now", "Now", Kind.STATUS),
                ),
                tuple(judged[:MAX_ROWS]),
                len(judged),
            ),
        ),
    )


def _listed(table_id: str, title: str, rows: Sequence[tuple[Cell, ...]]) -> Table:
    return Table(
        table_id,
        title,
        (
            Column("severity", "Severity", Kind.SEVERITY),
            Column("code", "Code"),
            Column("name", "Name"),
            Column("who", "Who", Kind.NAME),
            Column("where", "Broker or host", Kind.NAME),
            Column("count", "Occurrences", Kind.NUMBER),
            Column("finding", "Finding", Kind.FINDING),
        ),
        tuple(rows[:MAX_ROWS]),
        len(rows),
    )


def _row(one: ReportFinding) -> tuple[Cell, ...]:
    where = one.host if one.host is not None else one.broker
    return (one.severity, one.code, one.name, one.who, where, one.count, one.fingerprint)


def _old_row(one: Mapping[str, Any]) -> tuple[Cell, ...]:
    where = one["host"] if one["host"] is not None else one["broker"]
    return (str(one["severity"]), str(one["code"]), str(one["name"]), str(one["who"]), str(where), int(one["count"]),
            str(one["fingerprint"]))  # fmt: skip


def _allowance(length_ns: int) -> str:
    return f"gaps of {wording.duration(length_ns)}" if length_ns else "no gaps"


def _clock(text: str) -> str:
    """Return a time of the JSON form as the rest of the report has times."""
    found = _TIME.fullmatch(text)
    return text if found is None else f"{found[1]} {found[2]}Z"


def _controls(row: Mapping[str, Any], controls: Sequence[ControlResult]) -> list[tuple[Cell, ...]]:
    before = {
        (str(table["id"]), str(one["control"])): str(one["status"])
        for section in row["sections"]
        for table in section["tables"]
        if str(table["id"]).startswith(CONTROLS)
        for one in table["rows"]
    }
    return [
        (one.framework_title, one.control, then, one.status)
        for one in controls
        if (then := before.get((f"{CONTROLS}{one.framework}", one.control))) is not None and then != one.status
    ]
