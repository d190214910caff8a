"""SARIF 2.1.0 (OASIS, with errata 01): one log for a run that ends, with file and line, for code review.

Messages are plain text in which braces are doubled (section 3.11.5) and no name can make a link (section 3.11.6).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import quote, quote_from_bytes

from topicwarden.findings import Finding, FindingType, Severity
from topicwarden.output import jsonl, wording
from topicwarden.output.escape import well_formed
from topicwarden.output.jsonl import Shown, client_object, prose, title_text
from topicwarden.output.origin import PRODUCT, Origin
from topicwarden.output.summary import ScannedGrants, SourceSummary, Summary

VERSION: Final = "2.1.0"
SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT: Final = "topicwarden/v1"
LEVEL: Final[Mapping[Severity, str]] = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
}
SECURITY_SEVERITY: Final[Mapping[Severity, str]] = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.0",
    Severity.INFO: "0.0",
}
"""In the ranges by which GitHub tells critical (above 9.0), high (7.0), medium (4.0) and low."""
_NOTIFICATIONS: Final = {
    "blind-spot": "Something that could not be seen",
    "undecided": "Questions that could not be answered",
    "lost": "Events that were not seen or not read",
    "overflow": "Findings that were not kept",
}
_SHORT: Final = 200
_RESERVED: Final = ":/?#[]@!$&'()*+,;=%~"


class SarifSink:
    """Collects the findings of a run and writes one log at its end."""

    def __init__(self, stream: TextIO, origin: Origin, folder: Path | None = None) -> None:
        """Write to `stream`; files are given relative to `folder`, the working directory, where they lie below it."""
        self._stream = stream
        self._origin = origin
        self._folder = Path.cwd() if folder is None else folder
        self._findings: dict[str, Finding] = {}

    def opened(self, finding: Finding) -> None:
        """Keep the finding for the end; as bounded as the ledger."""
        self._findings[finding.fingerprint] = finding

    def updated(self, finding: Finding) -> None:
        """Keep the finding as it is now."""
        self._findings[finding.fingerprint] = finding

    def finish(self, summary: Summary) -> None:
        """Write the log."""
        for finding in summary.findings:
            self._findings[finding.fingerprint] = finding
        log = log_document(self._findings.values(), summary, self._origin, self._folder)
        self._stream.write(jsonl.encode(log) + "\n")
        self._stream.flush()


def log_document(findings: Iterable[Finding], summary: Summary, origin: Origin, folder: Path) -> dict[str, Any]:
    """Return the log of one run: gravest findings first."""
    listed = sorted(findings, key=lambda f: (-f.severity, f.type.code, f.first_ns, f.broker, f.fingerprint))
    types = {finding.type.code: finding.type for finding in listed}
    codes = sorted(types)
    driver = {
        "name": PRODUCT,
        "version": origin.version,
        "rules": [_rule(types[code]) for code in codes],
        "notifications": [{"id": key, "shortDescription": {"text": text}} for key, text in _NOTIFICATIONS.items()],
    }
    invocation = {
        "executionSuccessful": not summary.interrupted,
        "startTimeUtc": wording.timestamp(summary.started_ns),
        "endTimeUtc": wording.timestamp(summary.ended_ns),
        "toolExecutionNotifications": _notifications(summary),
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"{PRODUCT}/{summary.command}/"},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, codes.index(finding.type.code), summary, folder) for finding in listed],
    }
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def _rule(kind: FindingType) -> dict[str, Any]:
    meaning = " ".join(kind.meaning.split())
    limits = "\n".join(f"- {prose(limit)}" for limit in kind.limits)
    controls = [f"{framework}/{item}" for framework, ids in kind.controls.items() for item in ids]
    return {
        "id": kind.code,
        "name": "".join(word.capitalize() for word in kind.name.replace(".", "-").split("-")),
        "shortDescription": {"text": _message(_first_sentence(meaning))},
        "fullDescription": {"text": _message(meaning)},
        "help": {
            "text": _message(prose(kind.fix)),
            "markdown": _message(
                f"{prose(kind.fix)}\n\n**Why it matters**\n\n{prose(kind.why)}\n\n**What it cannot see**\n\n{limits}"
            ),
        },
        "defaultConfiguration": {"level": LEVEL[kind.severity]},
        "properties": {
            "tags": list(dict.fromkeys(["security", *kind.attack, *controls])),
            "security-severity": SECURITY_SEVERITY[kind.severity],
            "precision": "high",
            "difference": kind.difference,
        },
    }


def _first_sentence(text: str) -> str:
    sentence = text.split(". ", 1)[0].rstrip(".")
    return sentence if len(sentence) <= _SHORT else sentence[: _SHORT - 1] + "…"


def _result(finding: Finding, rule: int, summary: Summary, folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.type.code,
        "ruleIndex": rule,
        "level": LEVEL[finding.severity],
        "message": {"text": _message(title_text(finding))},
        "locations": [_location(finding, summary, folder)],
        "partialFingerprints": {FINGERPRINT: finding.fingerprint},
        "occurrenceCount": finding.count,
        "properties": {
            "severity": finding.severity.name.lower(),
            "broker": finding.broker,
            "host": finding.host,
            "client": None if finding.client is None else client_object(finding.client),
            "witnesses": list(finding.witnesses),
            "more_witnesses": finding.more_witnesses,
            "evidence": dict(finding.evidence),
            "certainty": finding.certainty.name.lower(),
            "first_seen": wording.timestamp(finding.first_ns, 9),
            "last_seen": wording.timestamp(finding.last_ns, 9),
        },
    }
    if finding.accepted is not None:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": finding.accepted}]
    return result


def _location(finding: Finding, summary: Summary, folder: Path) -> dict[str, Any]:
    """Return where a finding is to be fixed: in a file where there is one, else in the policy, since viewers want one.

    And the broker, as what it is about.
    """
    where, line = finding.evidence.get("where_file"), finding.evidence.get("where_line")
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": finding.host or finding.broker, "kind": "resource"}]
    }
    if not isinstance(where, str) or not _is_place(where, folder):
        where, line = summary.policy, None
    if where:
        physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(where, folder)}}
        if isinstance(line, int) and line >= 1:
            physical["region"] = {"startLine": line}
        location["physicalLocation"] = physical
    return location


def _is_place(where: str, folder: Path) -> bool:
    """Whether it is an address or a file there is, and no mere title."""
    if "://" in where:
        return True
    try:
        return (folder / where).is_file()
    except (OSError, ValueError):
        return False


def _uri(where: str, folder: Path) -> str:
    """Return a file's URI, relative to the folder where it lies below; an address is one already."""
    if "://" in where:
        return quote(well_formed(where), safe=_RESERVED)
    path = os.path.normpath(folder / where)
    below = os.path.relpath(path, folder)
    if below == ".." or below.startswith("../"):
        return f"file://{_encoded(path)}"
    return _encoded(below)


def _encoded(path: str) -> str:
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:  # no file has such a name
        name = well_formed(path).encode()
    return quote_from_bytes(name, safe="/")


def _notifications(summary: Summary) -> list[dict[str, Any]]:
    """Return what was not seen, not judged and not kept."""
    found: list[dict[str, Any]] = []
    read: list[SourceSummary | ScannedGrants] = [*summary.sources, *summary.scanned]
    for one in read:
        for spot in one.blind_spots:
            text = spot.what if spot.fix is None else f"{spot.what}. To see it: {spot.fix}"
            found.append(_notification("blind-spot", "note", f"{one.title}: {text}"))
    for grants in summary.scanned:
        if grants.undecided:
            what = wording.counted(grants.undecided, "question")
            found.append(_notification("undecided", "warning", f"{grants.title}: {what} could not be answered"))
    missed = {
        "events were lost": summary.lost,
        "records could not be read": summary.undecodable,
        "events could not be resolved": summary.unresolved,
    }
    for words, count in missed.items():
        if count:
            found.append(_notification("lost", "warning", f"{wording.number(count)} {words}"))
    if summary.overflow:
        what = wording.counted(summary.overflow, "record")
        found.append(_notification("overflow", "warning", f"{what} opened no finding: there were too many causes"))
    return found


def _notification(kind: str, level: str, text: str) -> dict[str, Any]:
    index = list(_NOTIFICATIONS).index(kind)
    return {"descriptor": {"id": kind, "index": index}, "level": level, "message": {"text": _message(text)}}


def _message(text: str) -> str:
    """Return text as a message string: braces are no placeholders, and brackets before parentheses no links."""
    readable = text if isinstance(text, Shown) else well_formed(text)
    return Shown(readable.replace("{", "{{").replace("}", "}}").replace("](", "]\\("))
