"""Findings as a report has them: from the documents that were stored, which may be of another version or damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from topicwarden.output.escape import quoted
from topicwarden.report.model import Behind, ReportFinding

SEVERITIES: Final = ("info", "low", "medium", "high", "critical")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WORD_COLUMNS: Final = 120
_ESCAPED: Final = re.compile(r"\\\\|\\u\{(d[89a-f][0-9a-f]{2})\}")
_MAX_LIST: Final = 64
"""Entries of a list in a document that are read; more than any version writes."""


def read_findings(rows: Iterable[tuple[str, int, int, int, int, str]]) -> tuple[list[ReportFinding], int]:
    """Return the findings of rows (fingerprint, count, first, last, runs, document), and how many cannot be read."""
    found, unreadable = [], 0
    for fingerprint, count, first_ns, last_ns, runs, text in rows:
        try:
            found.append(_finding(json.loads(text), fingerprint, count, first_ns, last_ns, runs))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            unreadable += 1
    return found, unreadable


def by_gravity(finding: ReportFinding) -> tuple[object, ...]:
    """Order findings, the gravest first."""
    return (-SEVERITIES.index(finding.severity), finding.code, -finding.count, finding.fingerprint)


def _finding(
    row: Mapping[str, Any], fingerprint: str, count: int, first_ns: int, last_ns: int, runs: int
) -> ReportFinding:
    severity = _text(row["severity"])
    if severity not in SEVERITIES:
        raise ValueError(severity)
    client = row.get("client")
    return ReportFinding(
        fingerprint=fingerprint,
        code=_text(row["code"]),
        name=_text(row["name"]),
        severity=severity,
        title=_title(row["title"]),
        broker=_text(row["broker"]),
        host=_maybe(row.get("host")),
        client=None if client is None else {as_it_was(str(key)): _scalar(value) for key, value in client.items()},
        count=count,
        certainty=_text(row["certainty"]),
        first_ns=first_ns,
        last_ns=last_ns,
        runs=runs,
        witnesses=tuple((_text(one["name"]), _whole(one["count"])) for one in _some(row.get("witnesses"))),
        more_witnesses=_whole(row.get("more_witnesses", 0)),
        evidence={as_it_was(str(key)): _scalar(value) for key, value in (row.get("evidence") or {}).items()},
        behind=tuple(_behind(one) for one in _some(row.get("behind"))),
        more_behind=_whole(row.get("more_behind", 0)),
        accepted=_maybe(row.get("accepted")),
        difference=_text(row["difference"]),
        meaning=_text(row.get("meaning", "")),
        why=_text(row.get("why", "")),
        fix=_text(row.get("fix", "")),
        limits=tuple(_text(one) for one in _some(row.get("limits"))),
        attack=tuple(_text(one) for one in _some(row.get("attack"))),
        controls={
            str(key): tuple(_text(one) for one in _some(ids)) for key, ids in (row.get("controls") or {}).items()
        },
        gap_ns=_gap(row),
    )


def _gap(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return from when to when, of a finding that says of the store's own gap what `cli.keeping` says of one."""
    evidence = row.get("evidence") or {}
    told = [evidence.get(name) for name in ("min_from", "last_until")]
    if row["code"] != "TW901" or row.get("scope") != ["store"]:
        return None
    since, until = (_moment(one) if isinstance(one, str) else None for one in told)
    return None if since is None or until is None else (since, until)


def _moment(text: str) -> int | None:
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, TypeError, OverflowError):
        return None


def _behind(row: Mapping[str, Any]) -> Behind:
    words = [_text(word) for word in _some(row.get("arguments"))] or [_maybe(row.get("executable")) or ""]
    command = " ".join(quoted(word, _WORD_COLUMNS) for word in words)
    return Behind(
        host=_text(row["host"]),
        user=_maybe(row.get("user")),
        command=f"{command} …" if row.get("arguments_cut") else command,
        parent=_maybe(row.get("parent_executable")),
        sureness=_text(row.get("sureness", "")),
        reason=_text(row.get("reason", "")),
    )


def _some(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value[:_MAX_LIST]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return as_it_was(value)


def as_it_was(text: str) -> str:
    """Return the text that `well_formed` was given when the document was stored."""
    if "\\u{" not in text:
        return text
    return _ESCAPED.sub(lambda found: "\\" if found[1] is None else chr(int(found[1], 16)), text)


def _title(value: Any) -> str:
    """Return a title: it was made for people, and so was not escaped once more."""
    if not isinstance(value, str):
        raise TypeError("a title is text")
    return value


def _maybe(value: Any) -> str | None:
    return None if value is None else _text(value)


def _scalar(value: Any) -> str | int | float | None:
    if isinstance(value, str):
        return as_it_was(value)
    return value if value is None or isinstance(value, int | float) else json.dumps(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value
